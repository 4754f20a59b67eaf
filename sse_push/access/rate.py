"""How often a key may notify: a token bucket for each.

Knows keys and time. Does not know what is notified, nor what whoever is too fast is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from sse_push.access.keys import NotifyKey


class Bucket:
    """So many at once, and so many per second after that.

    More than ``burst`` at once are taken if the bucket is full, and paid off after: otherwise they
    could never be taken.

    https://en.wikipedia.org/wiki/Token_bucket
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate_per_s", "_seen_at")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._seen_at = clock()

    def take(self, count: int) -> float:
        """Take so many and return 0; or none, and return after how many seconds to come back."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen_at) * self._rate_per_s)
        self._seen_at = now
        lacking = min(count, self._burst) - self._left
        if lacking > _ROUNDING:
            return lacking / self._rate_per_s
        self._left -= count
        return 0.0


_ROUNDING = 1e-6
"""Of the sums above; so much of a notification is given away."""


class Rates:
    """A bucket for each key, or one for all where none is needed; a rate of 0 is no limit.

    Each worker has its share of the rate and of the burst, so that all together keep to them.
    """

    def __init__(
        self,
        keys: Sequence[NotifyKey] | Literal["none"],
        *,
        rate_per_s: float,
        burst: int,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        every: tuple[NotifyKey | None, ...] = (None,) if keys == "none" else tuple(keys)
        share, burst_share = rate_per_s / workers, burst / workers
        self._buckets = (
            {key: Bucket(share, burst_share, clock) for key in every} if rate_per_s > 0 else {}
        )

    def take(self, key: NotifyKey | None, count: int) -> int:
        """Let a key notify so often and return 0; or return for how many seconds it may not."""
        if not self._buckets:
            return 0
        return math.ceil(self._buckets[key].take(count))
