"""What to read next of the stream of revocations, and what an answer means: a state machine.

Knows entry IDs and the rules under which no revocation is overlooked. Does no I/O, does not know
Redis, and remembers no revocation: whoever is told of one keeps it, whatever becomes of the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sse_push.access.revocation import Revocation
from sse_push.notification import EntryId

PAGE_ENTRIES = 256
"""Entries in one answer at most; at least two, since the first is one that we hold."""


class RevocationEntry(NamedTuple):
    """An entry of the stream; None: it is there, and says nothing that can be understood."""

    id: EntryId
    revocation: Revocation | None


class RevocationTail:
    """Follow the one stream of revocations, from its beginning.

    ``on_revoked(revocation, at)`` is called for each entry, in their order, from within
    ``answered``; again for those that are read again. ``at`` is when Redis took it, in seconds
    since 1970.
    """

    def __init__(self, on_revoked: Callable[[Revocation, float], None]) -> None:
        self._on_revoked = on_revoked
        self._held: EntryId | None = None
        """The newest entry that we have read; None: none, or our history has ended."""
        self._is_dirty = False
        """It may have changed since the last read was sent."""
        self._is_reading = False
        self.is_complete = False
        """On this connection it was read to its end: what is said from now on is announced."""

        self.is_refused = False
        """The last answer was an error."""

    def connected(self) -> None:
        """Begin again on a new connection: nothing is armed there, and we were blind till now."""
        self._is_reading = False
        self.is_complete = False
        self._is_dirty = True

    def mark(self) -> None:
        """Have it read: it was announced to have changed, or may have changed unannounced."""
        self._is_dirty = True

    def begin_read(self) -> tuple[EntryId | None] | None:
        """Return where a read begins that is to be sent now; None: there is nothing to send.

        At an entry, inclusive, or, None, at the beginning of the stream; for ``PAGE_ENTRIES`` at
        most. The mark is cleared here, before the read is sent: an announcement that comes while
        it is under way sets it again.
        """
        if self._is_reading or not self._is_dirty:
            return None
        self._is_reading = True
        self._is_dirty = False
        return (self._held,)

    def answered(self, entries: list[RevocationEntry]) -> None:
        """Take the answer to the read, oldest entry first."""
        self._is_reading = self.is_refused = False
        if self._held is not None and (not entries or entries[0].id != self._held):
            # Trimmed past us, deleted, or another history altogether.
            self._held = None
            self.is_complete = False
            self._is_dirty = True
            return
        for entry in entries if self._held is None else entries[1:]:
            if entry.revocation is not None:
                self._on_revoked(entry.revocation, entry.id.ms / 1000)
        if entries:
            self._held = entries[-1].id
        if len(entries) >= PAGE_ENTRIES:
            self._is_dirty = True  # there may be more, and nothing would announce it
        else:
            self.is_complete = True

    def refused(self) -> None:
        """Take an error reply: the key holds something else, or may not be read."""
        self._is_reading = False
        self.is_refused = True
        self.is_complete = False
