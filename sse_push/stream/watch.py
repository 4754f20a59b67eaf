"""One stream that is followed: what is known of it, as a state with a table.

Knows which changes of that state are possible. Does not know which answer causes which: ``tail``
decides that, and says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple

from sse_push.notification import EntryId
from sse_push.stream.reads import Held
from sse_push.stream.schedule import Scheduled

ResyncReason = Literal["server_changed", "history_lost", "stream_gone", "not_a_stream", "too_large"]
"""Why a stream can't be continued from the ID held: the server was restarted, or is another one;
the stream does not contain that ID; the stream does not exist; its key is of another type; an
answer is too large to be read."""


class Position(Enum):
    """What the tail knows of a stream.

    ========  ======  ==========================================================================
    from      to      when
    ========  ======  ==========================================================================
    UNREAD    HOLDS   the first read is answered, with an entry or none, or as no stream
    UNREAD    BEHIND  the stream was followed at another node of a cluster before
    HOLDS     BEHIND  an answer does not begin with the ID held, or is full; or the server is
                      another one
    BEHIND    HOLDS   the read of the newest entry is answered, with or without an entry, or
                      as no stream
    (each)    CLOSED  the merchant's last browser has left
    ========  ======  ==========================================================================
    """

    # Enum's own hash is a Python function, which doubles the cost of a change of state.
    __hash__ = object.__hash__

    UNREAD = "unread"
    """No read has been answered yet."""
    HOLDS = "holds"
    """``held`` is the newest entry that was read, or None if there was no entry."""
    BEHIND = "behind"
    """``held`` is of no use; the next read asks for the newest entry (see ``Gap``)."""
    CLOSED = "closed"
    """An answer, or an announcement, that is still on its way is ignored."""


UNREAD, HOLDS, BEHIND, CLOSED = Position
"""The members once more: in Python 3.11 looking a member up in its class takes 0.1 µs."""

TRANSITIONS: Mapping[Position, frozenset[Position]] = {
    UNREAD: frozenset({HOLDS, BEHIND, CLOSED}),
    HOLDS: frozenset({BEHIND, CLOSED}),
    BEHIND: frozenset({HOLDS, CLOSED}),
    CLOSED: frozenset(),
}
"""The table of ``Position``: the positions that may follow each one."""


class Gap(NamedTuple):
    """What is known of the entries between the ID held and the newest one."""

    floor: EntryId | None
    """If the newest entry is older than this, or if this is None: a resync."""
    loss: ResyncReason
    """The reason of the resync, if there is one."""


class Watch(Scheduled):
    """One merchant's stream: its position, its schedule, and whether the next read has a cause."""

    __slots__ = (
        "gap",
        "held",
        "in_vain",
        "is_planting",
        "lifetime_due_at",
        "merchant_id",
        "next_has_cause",
        "position",
        "read_has_cause",
    )

    def __init__(self, merchant_id: str) -> None:
        super().__init__()
        self.merchant_id = merchant_id
        self.position = UNREAD
        self.held: Held | None = None
        """The newest entry that we know of; None if the stream had none."""
        self.gap = Gap(None, "history_lost")
        """What the next answer closes; valid while the position is BEHIND."""
        self.next_has_cause = False
        """A change was announced, or a connection lost, since the last read was sent."""
        self.read_has_cause = False
        """The value of ``next_has_cause`` when the last read was sent."""
        self.in_vain = 0
        """How many reads with a cause were sent since the last one that found another entry."""
        self.is_planting = False
        """The stream is missing: an entry is planted before the next read, which then decides."""
        self.lifetime_due_at = -math.inf
        """When the lifetime of a planted entry is looked at next; ``planting`` sets it."""

    def begin_read(self) -> None:
        """Note that the read is sent, and takes the cause with it."""
        super().begin_read()
        self.read_has_cause = self.next_has_cause
        self.in_vain += self.read_has_cause
        self.next_has_cause = False

    def hold(self, newest: Held | None) -> None:
        """Continue from this entry; None: the stream has none."""
        if newest != self.held:
            self.in_vain = 0
        self.held = newest
        if self.position is not HOLDS:
            self._move(HOLDS)

    def fall_behind(self, floor: EntryId | None, loss: ResyncReason) -> None:
        """Give up the ID held; the next read asks for the newest entry."""
        self.gap = Gap(floor, loss)
        if self.position is not BEHIND:
            self._move(BEHIND)

    def lose_stream(self) -> None:
        """Note that the stream is gone: a resync, whatever entry is there next."""
        is_other = self.position is BEHIND and self.gap.loss == "server_changed"
        self.fall_behind(None, "server_changed" if is_other else "stream_gone")

    def close(self) -> None:
        """Follow the stream no longer."""
        self._move(CLOSED)

    def _move(self, position: Position) -> None:
        assert position in TRANSITIONS[self.position], f"{self.position} never becomes {position}"
        self.position = position
