"""Reads of a stream: what a read asks for, and what its answer may hold.

These values stand between the state machines that decide on reads (``tail``, ``revocations``) and
the module that turns them into commands of Redis (``contract``), so that neither needs the other.
Knows entry IDs. Does not know Redis, its keys or its replies.
"""

from __future__ import annotations

from typing import NamedTuple

from sse_push.access.revocation import Revocation
from sse_push.notification import Entry, EntryId

NEW_ENTRIES = 32
"""Fewer new entries than this are published one by one; otherwise only the newest ID is."""

PAGE_ENTRIES = 256
"""At most this many revocations are in one answer; at least two, as the first may be known."""


class Read(NamedTuple):
    """One read of a merchant's stream, from ``start`` to ``end``, both inclusive.

    Without ``start`` it asks for the newest entry only. The answer has at most
    ``NEW_ENTRIES + 1`` entries, oldest first.
    """

    merchant_id: str
    start: EntryId | None = None
    end: EntryId | None = None


class ReadFrom(NamedTuple):
    """One read of the stream of revocations, from ``start`` on, inclusive.

    Without ``start`` it begins with the oldest entry. The answer has at most ``PAGE_ENTRIES``
    entries, oldest first.
    """

    start: EntryId | None


class RevocationEntry(NamedTuple):
    """An entry of the stream of revocations; ``revocation`` is None if it is malformed."""

    id: EntryId
    revocation: Revocation | None


def entries_between(start: EntryId, end: EntryId, entries: list[Entry]) -> tuple[Entry, ...] | None:
    """Return the entries after ``start`` up to ``end``, or None if some of them may be missing.

    ``entries`` is the answer to ``Read(merchant_id, start, end)``. It is whole only if it begins
    with ``start``, ends with ``end``, and was not cut short by the limit.
    """
    if len(entries) > NEW_ENTRIES or not entries:
        return None
    if entries[0].id != start or entries[-1].id != end:
        return None
    return tuple(entries[1:])
