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

ResyncReason = Literal["server_changed", "history_lost", "stream_gone", "not_a_stream"]
"""Why the ID that we held of a stream holds no longer: the server was restarted, or is another one;
the stream does not contain that ID; the stream does not exist; its key is of another type."""


class Position(Enum):
    """What the tail knows of a stream.

    ========  ======  ==========================================================================
    from      to      when
    ========  ======  ==========================================================================
    UNREAD    HOLDS   the first read is answered, with an entry or none, or as no stream
    HOLDS     BEHIND  an answer does not begin with the ID held, or is full; or the server is
                      another one
    BEHIND    HOLDS   the read of the newest entry is answered
    (each)    CLOSED  nobody listens any more
    ========  ======  ==========================================================================
    """

    UNREAD = "unread"
    """No read has been answered yet."""
    HOLDS = "holds"
    """``held`` is the newest entry that was read, or None if there was no entry."""
    BEHIND = "behind"
    """``held`` leads nowhere; the next read asks for the newest entry (see ``Gap``)."""
    CLOSED = "closed"
    """An answer, or an announcement, that is still on its way means nothing."""


TRANSITIONS: Mapping[Position, frozenset[Position]] = {
    Position.UNREAD: frozenset({Position.HOLDS, Position.CLOSED}),
    Position.HOLDS: frozenset({Position.BEHIND, Position.CLOSED}),
    Position.BEHIND: frozenset({Position.HOLDS, Position.CLOSED}),
    Position.CLOSED: frozenset(),
}


class Gap(NamedTuple):
    """What is known of the entries between the ID held and the newest one."""

    floor: EntryId | None
    """The newest entry cannot be older, unless it is a resync; None: it is a resync anyway."""
    loss: ResyncReason
    """Why it is a resync, if it is one."""


class Watch(Scheduled):
    """One merchant's stream: its position, its schedule, and whether the next read has a cause."""

    __slots__ = (
        "gap",
        "held",
        "is_planting",
        "lifetime_due_at",
        "merchant_id",
        "next_has_cause",
        "next_is_planting",
        "position",
        "read_has_cause",
    )

    def __init__(self, merchant_id: str) -> None:
        super().__init__()
        self.merchant_id = merchant_id
        self.position = Position.UNREAD
        self.held: Held | None = None
        """The newest entry that we know of; None if the stream had none."""
        self.gap = Gap(None, "history_lost")
        """What the next answer closes; of meaning while the position is BEHIND."""
        self.next_has_cause = False
        """A change was announced, or a connection lost, since the last read was sent."""
        self.read_has_cause = False
        """The value of ``next_has_cause`` when the last read was sent."""
        self.next_is_planting = False
        """The stream is missing: an entry is planted before the next read."""
        self.is_planting = False
        """The value of ``next_is_planting`` when the last read was sent."""
        self.lifetime_due_at = -math.inf
        """When the lifetime of a planted entry is looked at next; ``planting`` sets it."""

    def begin_read(self) -> None:
        """Note that the read is sent, and takes the cause with it."""
        super().begin_read()
        self.read_has_cause = self.next_has_cause
        self.next_has_cause = False
        self.is_planting = self.next_is_planting
        self.next_is_planting = False

    def hold(self, newest: Held | None) -> None:
        """Continue from this entry; None: the stream has none."""
        self.held = newest
        if self.position is not Position.HOLDS:
            self._move(Position.HOLDS)

    def fall_behind(self, floor: EntryId | None, loss: ResyncReason) -> None:
        """Give up the ID held; the next read asks for the newest entry."""
        self.gap = Gap(floor, loss)
        if self.position is not Position.BEHIND:
            self._move(Position.BEHIND)

    def close(self) -> None:
        """Follow the stream no longer."""
        self._move(Position.CLOSED)

    def _move(self, position: Position) -> None:
        assert position in TRANSITIONS[self.position], f"{self.position} never becomes {position}"
        self.position = position
