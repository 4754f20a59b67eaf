"""What is owed to a browser, and how several of them become one.

Knows that a newer refresh stands for an older one, and what may still be said of both. Does not
know who is owed, nor how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sse_push.notification import EntryId

TOPICS_PENDING = 32
"""So many topics wait for a connection one by one; more wait as one refresh without topic."""

Reason = Literal["connected", "missed", "resync"]
_STRENGTH: dict[Reason | None, int] = {None: 0, "connected": 1, "missed": 2, "resync": 3}


@dataclass(frozen=True, slots=True)
class Refresh:
    """What one ``refresh`` event says: what you show of ``topic`` may be older than ``id``.

    ``version`` is this process's own count of changes to the merchant. It rises even when
    IDs fall (after a resync), and orders refreshes where IDs can't.
    """

    version: int
    id: EntryId | None
    topic: str | None = None
    data: str | None = None
    by: str | None = None
    reason: Reason | None = None

    def merged_with(self, newer: Refresh) -> Refresh:
        """Return one refresh that stands for both, and says only what holds for both."""
        return Refresh(
            newer.version,
            newer.id,
            topic=self.topic if self.topic == newer.topic else None,
            by=self.by if self.by == newer.by else None,
            reason=max(self.reason, newer.reason, key=_STRENGTH.__getitem__),
        )


Pending = dict[str | None, Refresh]
"""The refreshes that wait: one per topic, or a single one without topic, which covers all."""


def keep(pending: Pending, refresh: Refresh) -> int:
    """Add a refresh to those that wait, and return how many were merged into another by it."""
    merged = 0
    is_one_too_many = len(pending) >= TOPICS_PENDING and refresh.topic not in pending
    if refresh.topic is None or None in pending or is_one_too_many:
        for other in pending.values():
            refresh = other.merged_with(refresh)
        merged = len(pending)
        pending.clear()
        assert refresh.topic is None, "what covers several topics has none"
    elif refresh.topic in pending:
        refresh = pending.pop(refresh.topic).merged_with(refresh)  # its ID is the newest now
        merged = 1
    pending[refresh.topic] = refresh
    return merged


def in_order(pending: Pending) -> list[Refresh]:
    """Return what waits in the order of IDs, so that a cut in between leaves the rest owed."""
    return sorted(pending.values(), key=lambda refresh: refresh.version)
