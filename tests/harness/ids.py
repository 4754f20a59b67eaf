"""IDs of events in one history, for tests that need no server."""

from __future__ import annotations

from sse_push.notification import EntryId, EventId

HISTORY = "0a1b2c3d"
OTHER_HISTORY = "4e5f6789"


def at(ms: int, seq: int = 0, history: str = HISTORY) -> EventId:
    return EventId(EntryId(ms, seq), history)


def in_redis(event_id: str) -> str:
    """Return the ID that the entry of an event has in Redis."""
    return str(EventId.parse(event_id).entry_id)
