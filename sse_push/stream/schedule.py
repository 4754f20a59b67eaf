"""When a stream is read: the dirty mark, and never two reads of one stream at once.

The part that the followers of both kinds of stream (``tail``, ``revocations``) have in common.
Does not know what a read asks for, nor what its answer means.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Schedule(Enum):
    """Whether a stream is to be read, or is being read.

    =============  =============  ========================================================
    from           to             when
    =============  =============  ========================================================
    IDLE           QUEUED         a change is announced; a sweep or a new connection wants
                                  the stream read
    QUEUED         READING        the read is sent
    READING        READING_DIRTY  a change is announced while the read is under way
    READING        IDLE           the answer arrives, and nothing is left to read
    READING        QUEUED         the answer arrives, and shows that another read is needed;
                                  or the connection is lost, and the answer with it
    READING_DIRTY  QUEUED         the answer arrives, or is lost with its connection
    READING        PUT_OFF        the server refuses the read, which has armed nothing
    READING_DIRTY  PUT_OFF        the same; or the answer arrives, and many announcements in a
                                  row were no change
    IDLE           PUT_OFF        a change is announced, and many in a row were none
    PUT_OFF        QUEUED         it is time to read again, or the connection is new
    =============  =============  ========================================================
    """

    # Enum's own hash is a Python function, which doubles the cost of a change of state.
    __hash__ = object.__hash__

    IDLE = "idle"
    QUEUED = "queued"
    READING = "reading"
    READING_DIRTY = "reading, to be read again"
    PUT_OFF = "to be read later"


IDLE, QUEUED, READING, READING_DIRTY, PUT_OFF = Schedule
"""The members once more: in Python 3.11 looking a member up in its class takes 0.1 µs."""

TRANSITIONS: Mapping[Schedule, frozenset[Schedule]] = {
    IDLE: frozenset({QUEUED, PUT_OFF}),
    QUEUED: frozenset({READING}),
    READING: frozenset({READING_DIRTY, IDLE, QUEUED, PUT_OFF}),
    READING_DIRTY: frozenset({QUEUED, PUT_OFF}),
    PUT_OFF: frozenset({QUEUED}),
}
"""The table of ``Schedule``: the states that may follow each one."""


class Scheduled:
    """A stream that is read again whenever it may have changed.

    Redis announces the first change after a read, and no other until the next read. An
    announcement that arrives while a read is under way is therefore never dropped: the server may
    have made its answer before the change, and would not announce that change again. READING_DIRTY
    remembers to read once more.
    """

    __slots__ = ("schedule",)

    def __init__(self) -> None:
        self.schedule = IDLE

    def mark(self) -> bool:
        """Note that the stream may have changed; True if it was idle, and is queued now."""
        if self.schedule is IDLE:
            self._enter(QUEUED)
            return True
        if self.schedule is READING:
            self._enter(READING_DIRTY)
        # The stream is queued, dirty or put off already: several announcements before a read cause
        # one read.
        return False

    def begin_read(self) -> None:
        """Note that the read is sent: from here on an announcement causes another one."""
        self._enter(READING)

    def finish_read(self, *, is_whole: bool) -> bool:
        """Note that the answer has arrived; True if the stream has to be read again.

        ``is_whole`` is False if the answer itself asks for another read.
        """
        is_again = self.schedule is READING_DIRTY or not is_whole
        self._enter(QUEUED if is_again else IDLE)
        return is_again

    def put_off(self) -> None:
        """Note that another read follows, but not at once."""
        self._enter(PUT_OFF)

    def restart(self) -> None:
        """Queue the stream again: the connection is new and a read lost, or it was put off."""
        if self.schedule is not QUEUED:
            self._enter(QUEUED)

    def _enter(self, schedule: Schedule) -> None:
        assert schedule in TRANSITIONS[self.schedule], f"{self.schedule} never becomes {schedule}"
        self.schedule = schedule
