"""Reads of a stream: what a read asks for, and what its answer may hold.

These values stand between the state machines that decide on reads (``tail``, ``revocations``) and
the module that turns them into commands of Redis (``contract``), so that neither needs the other.
Knows entry IDs. Does not know Redis, its keys or its replies.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from sse_push.access.revocation import Revocation
from sse_push.notification import Entry, EntryId

NEW_ENTRIES = 32
"""Fewer new entries than this are published one by one; otherwise only the newest ID is."""

PAGE_ENTRIES = 64
"""At most this many revocations are in one answer, which is less than a MB even if all their claims
are long; at least two, as the first may be known."""

REVOCATIONS_MAX = 100_000
"""Redis keeps at least this many of the newest revocations, and few more: some 6 MB. At two in a
minute for each of 1 000 merchants, it takes 50 minutes until the oldest is dropped."""

_ENTRY_OVERHEAD_BYTES = 1024
"""What an entry may have beside its data: topic, name of the sender, ID, and some fields that are
ignored."""

_REPLY_LEAST_BYTES = 8_388_608


def reply_limit_bytes(data_limit_bytes: int) -> int:
    """Return how large a reply to a read may be: twice what the entries of notifications take.

    A backend that adds entries without HTTP may add larger ones.
    """
    entry_bytes = data_limit_bytes + _ENTRY_OVERHEAD_BYTES
    return max(_REPLY_LEAST_BYTES, 2 * (NEW_ENTRIES + 1) * entry_bytes)


class Read(NamedTuple):
    """One read of a merchant's stream, from ``start`` to ``end``, both inclusive.

    Without ``start`` it asks for the newest entry only. The answer has at most
    ``NEW_ENTRIES + 1`` entries, oldest first. ``is_planting``: a stream that is missing gets a
    planted entry before it is read.
    """

    merchant_id: str
    start: EntryId | None = None
    end: EntryId | None = None
    is_planting: bool = False


class ReadFrom(NamedTuple):
    """One read of the stream of revocations, from ``start`` on, inclusive.

    Without ``start`` it begins with the oldest entry. The answer has at most ``PAGE_ENTRIES``
    entries, oldest first.
    """

    start: EntryId | None


class ProbeEntry(NamedTuple):
    """An entry that is added to be found again, in a stream that no merchant can have."""

    merchant_id: str


class RevocationEntry(NamedTuple):
    """An entry of the stream of revocations; ``revocation`` is None if it is malformed."""

    id: EntryId
    revocation: Revocation | None
    fingerprint: int = 0
    """As that of ``notification.Entry``."""


class Held(NamedTuple):
    """The entry of a stream that a follower continues from: enough to recognize it.

    Its ID alone is not enough. After DEL a stream begins anew, and gives an ID of the same
    millisecond again; a backend may also choose an ID itself.
    """

    id: EntryId
    fingerprint: int
    is_planted: bool = False

    @classmethod
    def of(cls, entry: Entry | RevocationEntry) -> Self:
        """Return what is held of an entry."""
        is_planted = isinstance(entry, Entry) and entry.is_planted
        return cls(entry.id, entry.fingerprint, is_planted)


def telling(entries: list[Entry]) -> tuple[Entry, ...]:
    """Return the entries but the planted ones; of use only where none may be missing."""
    return tuple(entry for entry in entries if not entry.is_planted)


def entries_between(start: EntryId, end: EntryId, entries: list[Entry]) -> tuple[Entry, ...] | None:
    """Return the entries after ``start`` up to ``end``, or None if some of them may be missing.

    Planted entries say nothing, and are left out: it may be that none is left.

    ``entries`` is the answer to ``Read(merchant_id, start, end)``. It is whole only if it begins
    with ``start``, ends with ``end``, and was not cut short by the limit. A client's last event ID
    does not tell the fields of its entry: an ID that was given again while the client was away is
    taken for the one that the client knows.
    """
    if len(entries) > NEW_ENTRIES or not entries:
        return None
    if entries[0].id != start or entries[-1].id != end:
        return None
    return telling(entries[1:])
