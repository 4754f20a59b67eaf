"""How long a stream is kept after its last entry, and which streams have had that time renewed.

Knows times. Does not know commands, nor whether a stream is there: Redis says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

_RENEWED_SHARE = 0.1
"""A lifetime is renewed once in this share of it, not with each entry: that is a command less. So
much longer a stream is kept, as its newest entry may have come without a renewal."""

_REMEMBERED = 50_000
"""At most this many merchants are remembered as needing no renewal yet; then all are forgotten."""


def lifetime_s(ttl_s: float) -> int:
    """Return the lifetime that a stream gets, in whole seconds, to be kept ``ttl_s`` at least."""
    return math.ceil(ttl_s * (1 + _RENEWED_SHARE))


class Lifetimes:
    """Whose stream was given its lifetime not long ago.

    A stream that was deleted meanwhile has no lifetime when it begins anew: ``forget`` it.
    """

    def __init__(self, ttl_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._now = now
        self._due_at: dict[str, float] = {}
        self.lifetime_s = lifetime_s(ttl_s)

    def due_among(self, merchant_ids: Iterable[str]) -> set[str]:
        """Return the merchants whose streams are to be given their lifetime with the next entry.

        ``merchant_ids`` are those of the entries of one pipeline. A merchant with several is due:
        an entry that does not begin a stream is sent again if its stream is gone. If another
        process began the stream in between, the second entry would be added before the first.
        """
        due: set[str] = set()
        seen: set[str] = set()
        now = self._now()
        for merchant_id in merchant_ids:
            if merchant_id in seen or now >= self._due_at.get(merchant_id, -math.inf):
                due.add(merchant_id)
            seen.add(merchant_id)
        return due

    def renewed(self, merchant_id: str) -> None:
        """Note that the stream has just been given its lifetime."""
        if len(self._due_at) >= _REMEMBERED:
            self._due_at.clear()
        self._due_at[merchant_id] = self._now() + self._ttl_s * _RENEWED_SHARE

    def forget(self, merchant_id: str) -> None:
        """Note that the stream is gone, and its lifetime with it."""
        self._due_at.pop(merchant_id, None)
