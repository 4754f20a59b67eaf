"""Refreshes that are pending, and how several of them become one.

Knows that a newer refresh replaces an older one, and which fields hold for both. Does not know
which connection a refresh is pending for, nor how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sse_push.notification import EventId

TOPICS_PENDING = 32
"""At most this many topics are pending; beyond that they merge into one refresh without topic."""

Reason = Literal["connected", "missed", "resync"]
_STRENGTH: dict[Reason | None, int] = {None: 0, "connected": 1, "missed": 2, "resync": 3}


@dataclass(frozen=True, slots=True)
class Refresh:
    """One ``refresh`` event: what a page shows of ``topic`` may be older than ``id``.

    ``version`` counts the merchant's refreshes in this process. Versions rise even when IDs fall
    (after a resync), and order refreshes where IDs cannot.
    """

    version: int
    id: EventId | None
    topic: str | None = None
    data: str | None = None
    by: str | None = None
    reason: Reason | None = None

    def merged_with(self, newer: Refresh) -> Refresh:
        """Return one refresh that stands for both, with the fields that hold for both."""
        return Refresh(
            newer.version,
            newer.id,
            topic=self.topic if self.topic == newer.topic else None,
            by=self.by if self.by == newer.by else None,
            reason=max(self.reason, newer.reason, key=_STRENGTH.__getitem__),
        )


Pending = dict[str | None, Refresh]
"""Pending refreshes: one per topic, or a single one without topic, which stands for all topics."""


def merge_into(pending: Pending, refresh: Refresh) -> int:
    """Make a refresh pending, and return how many pending refreshes became part of it."""
    merged = 0
    is_over_limit = len(pending) >= TOPICS_PENDING and refresh.topic not in pending
    if refresh.topic is None or None in pending or is_over_limit:
        # All that is pending becomes one refresh without topic, which stands for all topics.
        for other in pending.values():
            refresh = other.merged_with(refresh)
        merged = len(pending)
        pending.clear()
        assert refresh.topic is None, "a refresh that stands for several topics names none"
    elif refresh.topic in pending:
        refresh = pending.pop(refresh.topic).merged_with(refresh)
        merged = 1
    pending[refresh.topic] = refresh
    return merged


def in_order(pending: Pending) -> list[Refresh]:
    """Return pending refreshes in the order of their IDs.

    A client that is cut off between two of them comes back with the ID of the first, and is owed
    the second.
    """
    return sorted(pending.values(), key=lambda refresh: refresh.version)
