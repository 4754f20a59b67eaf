"""Where a client stands: what it is owed, by its last event ID and the newest ID that was read.

Knows entries and refreshes. Does not know connections, nor how the entries are stored.

https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from sse_push.errors import InvalidEntryId
from sse_push.hub import Refresh
from sse_push.notification import Entry, EntryId, EventId, is_one_history


class Archive(Protocol):
    """Where the entries between two IDs are looked up."""

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end`` that say something.

        None if not all of them are known.
        """


_UNKNOWN = "?"
"""Stands for a position that nobody knows: it is no ID, so that the client is owed a refresh."""


def position_of(merchant_id: str, places: Iterable[Sequence[str]], *, is_named: bool) -> str | None:
    """Return a client's last event ID of this merchant, without its name; None: there is none.

    ``places`` are the IDs in each place of the request, the place that wins first. A later place
    counts if no earlier one says anything of this merchant. Two IDs of one merchant in one place
    that differ are an unknown position: the greater one need not be the later one, since IDs fall
    when a stream begins anew.

    ``is_named``: the IDs of this stream name their merchant, since the request did not. What an ID
    without a name is compared with may be another merchant's stream then: a cookie names another
    merchant by now than when the client got the ID. So it counts for no merchant, and neither does
    an ID that names another one.
    """
    for texts in places:
        found = None
        for text in texts:
            name, at, event_id = text.rpartition("@")
            if event_id and (name == merchant_id if at else not is_named):
                found = event_id if found in (None, event_id) else _UNKNOWN
        if found is not None:
            return found
    return None


def owed(
    last_event_id: str | None, newest: EventId | None, version: int
) -> tuple[Refresh, ...] | EntryId:
    """Compare a last event ID with the newest ID that was read.

    Returns the refresh that is owed, or an empty tuple. If the client's ID is older than the
    newest, and of the same history, returns the client's entry ID: only the stream has the entries
    after it.
    """
    if not last_event_id:
        # WHATWG treats the empty ID as no ID. The page may have been rendered before the last
        # change.
        return (Refresh(version, newest, reason="connected"),)
    try:
        seen = EventId.parse(last_event_id)
    except InvalidEntryId:
        return (missed(newest, version),)
    if newest is None or not is_one_history(seen.history, newest.history):
        # The stream is gone; or the server is another one than that which gave the client its ID,
        # and may have lost what the client has not seen: the same entry ID proves nothing then.
        return (missed(newest, version),)
    if seen.entry_id == newest.entry_id:
        return ()
    if seen.entry_id < newest.entry_id:
        return seen.entry_id
    # The client is ahead: the stream was deleted, and has begun anew.
    return (missed(newest, version),)


def missed(newest: EventId | None, version: int) -> Refresh:
    """Return the refresh that is owed if the entries missed are not known."""
    return Refresh(version, newest, reason="missed")


def missed_topics(entries: Iterable[Entry], history: str, version: int) -> tuple[Refresh, ...]:
    """Return the refreshes that are owed for the entries missed, if all of them are known.

    None has data. The client's last event may have overtaken an older entry, which then became one
    refresh with a newer entry of its topic: if the client was cut off between the two events, its
    ID is above an entry that it never heard of, and the data of the newer entry is not enough.
    """
    return tuple(
        Refresh(
            version,
            EventId(entry.id, history),
            entry.notification.topic,
            by=entry.notification.by,
            reason="missed",
        )
        for entry in entries
    )
