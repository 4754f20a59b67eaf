"""How often a line of one kind is logged: at most once a minute, however often it is caused.

Knows counts and time. Does not know what is logged, nor who causes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable

INTERVAL_S = 60.0
"""How long a kind is silent after its line."""


class LogPace:
    """Counts occasions to log, by kind. There are few kinds: none is made of what clients send."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}
        """When the last line of a kind was due, and how often the kind occurred since."""

    def count(self, kind: Hashable) -> int:
        """Count an occasion; return how many there were since the last line, 0 if none is due."""
        now = self._clock()
        logged_at, count = self._kinds.get(kind, (-math.inf, 0))
        if now - logged_at < INTERVAL_S:
            self._kinds[kind] = (logged_at, count + 1)
            return 0
        self._kinds[kind] = (now, 0)
        return count + 1
