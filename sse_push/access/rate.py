"""How often a key may notify: a token bucket for each.

Knows keys and time. Does not know what is notified, nor how a caller over its rate is answered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from sse_push.access.keys import NotifyKey

_ROUNDING = 1e-6
"""Tolerance for rounding errors in a bucket's sums."""


class Bucket:
    """A token bucket: ``burst`` tokens at first, refilled at ``rate_per_s``.

    A full bucket also allows more than ``burst``, and is in debt until that much is refilled:
    otherwise a larger count could never be allowed.

    https://en.wikipedia.org/wiki/Token_bucket
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate_per_s", "_refilled_at")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._refilled_at = clock()

    def spend(self, count: int) -> float:
        """Spend ``count`` tokens and return 0; or spend none and return the seconds to wait."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._refilled_at) * self._rate_per_s)
        self._refilled_at = now
        lacking = min(count, self._burst) - self._left
        if lacking > _ROUNDING:
            return lacking / self._rate_per_s
        self._left -= count
        return 0.0


class Rates:
    """A bucket for each key, and one for all callers without a key; a rate of 0: no limit.

    Each worker has its share of the rate and of the burst, so that all workers together keep the
    limits.
    """

    def __init__(
        self,
        keys: Sequence[NotifyKey] | Literal["none"],
        *,
        rate_per_s: float,
        burst: int,
        workers: int,
        has_keyless: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        callers: set[NotifyKey | None] = {None} if keys == "none" else {*keys}
        callers |= {None} if has_keyless else set()
        share, burst_share = rate_per_s / workers, burst / workers
        self._buckets = (
            {key: Bucket(share, burst_share, clock) for key in callers} if rate_per_s > 0 else {}
        )

    def spend(self, key: NotifyKey | None, count: int) -> int:
        """Spend ``count`` notifications of a key and return 0, or return the seconds to wait."""
        if not self._buckets:
            return 0
        return math.ceil(self._buckets[key].spend(count))
