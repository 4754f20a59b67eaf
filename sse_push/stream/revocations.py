"""Follow the stream of revocations: which read comes next, and what an answer means.

A state machine. Knows entry IDs and the rules under which no revocation is overlooked. Does no
I/O, does not know Redis, and remembers no revocation: the callback that receives one keeps it,
whatever becomes of the stream.

The rules are those of ``tail``, simplified by what a revocation is: reading one twice does no harm.
So when history is lost there is nothing to guess; the stream is read again from its beginning. And
since a single overlooked revocation matters, a full answer is read on, page by page, and a stream
that is as long as it may be counts as one whose oldest entries were dropped unread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from sse_push.access.revocation import Revocation
from sse_push.stream.reads import PAGE_ENTRIES, REVOCATIONS_MAX, Held, ReadFrom, RevocationEntry
from sse_push.stream.schedule import Schedule, Scheduled


class Knowledge(Enum):
    """How much of the stream of revocations is known.

    ==========  ==========  ===============================================================
    from        to          when
    ==========  ==========  ===============================================================
    UNREAD      COMPLETE    an answer reaches the end of the stream
    UNREADABLE  COMPLETE    the same
    COMPLETE    UNREAD      the connection is new; or the entry held is gone, and the stream
                            is read again from its beginning
    UNREADABLE  UNREAD      an answer that is no error does not reach the end of the stream
    UNREAD      UNREADABLE  the reply is an error
    COMPLETE    UNREADABLE  the same
    ==========  ==========  ===============================================================
    """

    UNREAD = "unread"
    """The stream has not been read to its end on this connection."""
    COMPLETE = "complete"
    """The stream has been read to its end: the next revocation will be announced."""
    UNREADABLE = "unreadable"
    """The last reply was an error: the key is of another type, or may not be read."""


TRANSITIONS: Mapping[Knowledge, frozenset[Knowledge]] = {
    Knowledge.UNREAD: frozenset({Knowledge.COMPLETE, Knowledge.UNREADABLE}),
    Knowledge.COMPLETE: frozenset({Knowledge.UNREAD, Knowledge.UNREADABLE}),
    Knowledge.UNREADABLE: frozenset({Knowledge.UNREAD, Knowledge.COMPLETE}),
}
"""The table of ``Knowledge``: the states that may follow each one."""


class RevocationTail(Scheduled):
    """Follow the one stream of revocations, from its beginning.

    ``on_revoked(revocation, at)`` is called for each entry, in their order, from within
    ``answered``, and once more for an entry that is read again. ``at`` is the time in the entry's
    ID, which Redis gave: seconds since 1970. ``on_dropped(until)`` is called if revocations may
    have been dropped from the stream unread, none of them later than ``until``.
    """

    __slots__ = ("_held", "_oldest_at", "_on_dropped", "_on_revoked", "_read", "knowledge")

    def __init__(
        self,
        on_revoked: Callable[[Revocation, float], None],
        on_dropped: Callable[[float], None],
    ) -> None:
        super().__init__()
        self._on_revoked = on_revoked
        self._on_dropped = on_dropped
        self._oldest_at: float | None = None
        """The time of the oldest entry, while the stream is read from its beginning."""
        self._read = 0
        """How many entries were read since, with that one."""
        self._held: Held | None = None
        """The newest entry that was read; None: none was, or it is gone from the stream."""
        self.knowledge = Knowledge.UNREAD

    def connected(self) -> None:
        """Begin again on a new connection, on which nothing is armed."""
        if self.knowledge is Knowledge.COMPLETE:
            self._learn(Knowledge.UNREAD)
        self.restart()

    def next_read(self) -> ReadFrom | None:
        """Return the read that is to be sent now; None: there is none, or one is under way."""
        if self.schedule is not Schedule.QUEUED:
            return None
        self.begin_read()
        return ReadFrom(None if self._held is None else self._held.id)

    def answered(self, entries: list[RevocationEntry]) -> None:
        """Process the answer to the read, oldest entry first."""
        if self._held is not None and (not entries or Held.of(entries[0]) != self._held):
            # Trimmed past the entry held, deleted, or another history: read from the beginning.
            self._held = None
            self._learn(Knowledge.UNREAD)
            self.finish_read(is_whole=False)
            return
        if self._held is None and entries:
            self._oldest_at, self._read = entries[0].id.ms / 1000, 1
        for entry in entries if self._held is None else entries[1:]:
            if entry.revocation is not None:
                self._on_revoked(entry.revocation, entry.id.ms / 1000)
        if entries:
            self._held = Held.of(entries[-1])
            self._read += len(entries) - 1
        is_whole = len(entries) < PAGE_ENTRIES
        if is_whole:
            self._reach_the_end()
            self._learn(Knowledge.COMPLETE)
        elif self.knowledge is Knowledge.UNREADABLE:
            self._learn(Knowledge.UNREAD)
        # A full answer may have left entries behind, and nothing would announce those: read on.
        self.finish_read(is_whole=is_whole)

    def failed(self) -> None:
        """Process an error reply: the key is of another type, or may not be read."""
        self._learn(Knowledge.UNREADABLE)
        # The stream is not read again at once, but when a change is announced, or by the sweep.
        self.finish_read(is_whole=True)

    def _reach_the_end(self) -> None:
        if self._oldest_at is not None and self._read >= REVOCATIONS_MAX:
            self._on_dropped(self._oldest_at)
        self._oldest_at = None

    def _learn(self, knowledge: Knowledge) -> None:
        if knowledge is self.knowledge:
            return
        assert knowledge in TRANSITIONS[self.knowledge], f"{self.knowledge} to {knowledge}"
        self.knowledge = knowledge
