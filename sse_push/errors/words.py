"""How the text of an error shows a value, and which name it suggests for one that is unknown.

Knows JSON's words for values. Does not know which values or names are right.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable

_SHOWN_CHARACTERS = 80
_DIGITS = 64
"""More digits are not shown: Python may refuse to, and nobody would read them."""

_LIKENESS = 0.85
"""As much of two names is the same if one is a slip for the other: ``merchant``, ``merchantIds``. A
name such as ``my_token`` or ``event_id`` may be another program's."""

_NAME_CHARACTERS = 40


def show(value: object) -> str:
    """Describe a decoded JSON value: its start, and its type in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()} (boolean)"
    if isinstance(value, (dict, list)):
        return f"a JSON {'object' if isinstance(value, dict) else 'array'}"
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        return f"an integer of more than {_DIGITS} digits"
    kind = "number" if isinstance(value, int | float) else "string"
    return f"{ascii(value)[:_SHOWN_CHARACTERS]} ({kind})"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``: did you mean …?`` if a known name is near, and nothing otherwise."""
    found = nearest(name, tuple(known))
    return "" if found is None else f": did you mean {found}?"


@functools.lru_cache(maxsize=256)
def nearest(name: str, known: tuple[str, ...]) -> str | None:
    """Return the known name for which this one is certainly a slip, as by its case; else None."""
    if len(name) > _NAME_CHARACTERS:
        return None
    folded = {_fold(each): each for each in known}
    close = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=_LIKENESS)
    return folded[close[0]] if close else None


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
