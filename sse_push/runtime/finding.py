"""One result of an examination: of a Redis, of settings, of a service behind its proxy.

Knows neither what is examined nor how the result is shown.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "warning", "failure"]
"""``note``: neither good nor bad, such as something that could not be examined."""


class Finding(NamedTuple):
    """The result of one check; the text says what to do if the level is not ok.

    ``name`` is for scripts: it stays the same while the text may change.
    """

    level: Level
    name: str
    text: str
