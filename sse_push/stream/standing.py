"""Which streams are not read on the connection that all share, since their replies may end it.

Knows what each stream has done, as a state with a table, and when it may be read again. Does not
know how a stream is read (``aside``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum

logger = logging.getLogger(__name__)

StreamName = str | None
"""The merchant of a stream; None: the stream of revocations."""

_PAUSE_FIRST_S = 10.0
_PAUSE_CAP_S = 600.0
"""How long a stream is not read whose reply was too large, at first and at most. Redis makes the
whole reply before it sends any of it, and meanwhile does nothing else."""

_PROBATION_S = 600.0
"""How long after such a pause a stream stays on a connection of its own."""

_CUTS = 2
"""After so many cuts with no other reply on the way, the stream itself is the cause; the first one
may be a coincidence."""

_REMEMBERED = 20_000
"""At most this many streams are remembered; then the one that was added first is forgotten."""


class Standing(Enum):
    """How a stream is read, other than by all the others.

    A stream without a standing is read on the shared connection; any other has a connection of its
    own.

    ============  ============  ==================================================================
    from          to            when
    ============  ============  ==================================================================
    (none)        SUSPECT       a connection was lost while its reply was on the way
    (none)        OVERSIZED     its reply exceeds the limit
    SUSPECT       OVERSIZED     the same; or its own connection was lost, and again, while no other
                                reply was on the way
    SUSPECT       (none)        its reply has arrived
    OVERSIZED     ON_PROBATION  its reply has arrived, after a pause that grows
    ON_PROBATION  OVERSIZED     as from SUSPECT
    ON_PROBATION  (none)        its reply has arrived, long after the last pause
    OVERSIZED     (none)        the same; nobody listened to it meanwhile
    ============  ============  ==================================================================
    """

    SUSPECT = "suspect"
    OVERSIZED = "oversized"
    ON_PROBATION = "on probation"


TRANSITIONS: Mapping[Standing, frozenset[Standing]] = {
    Standing.SUSPECT: frozenset({Standing.OVERSIZED}),
    Standing.OVERSIZED: frozenset({Standing.ON_PROBATION}),
    Standing.ON_PROBATION: frozenset({Standing.OVERSIZED}),
}
"""The table of ``Standing``: the standings that may follow each one."""


class Record:
    """What is known of one stream that has a standing."""

    __slots__ = ("cuts", "pause_s", "readable_at", "standing", "trusted_at")

    def __init__(self) -> None:
        self.standing = Standing.SUSPECT
        self.cuts = 0
        """How often its own connection was lost while it alone was read."""
        self.pause_s = 0.0
        """How long it was not read after its last reply that was too large."""
        self.readable_at = 0.0
        """When it may be read again."""
        self.trusted_at = 0.0
        """From when on a reply that arrives ends its standing."""

    def enter(self, standing: Standing) -> None:
        """Change the standing."""
        assert standing in TRANSITIONS[self.standing], f"{self.standing} never becomes {standing}"
        self.standing = standing


class Standings:
    """The streams that have a standing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.records: dict[StreamName, Record] = {}
        """The streams that must not be read on the shared connection; others look at it only."""

    def may_be_read(self, stream: StreamName) -> bool:
        """Whether no pause of the stream is going on."""
        record = self.records.get(stream)
        return record is None or self._clock() >= record.readable_at

    def suspect(self, stream: StreamName) -> None:
        """Note that a connection was lost while the stream's reply was on the way."""
        if stream not in self.records:
            self._add(stream)

    def cut_alone(self, stream: StreamName, cause: Exception) -> None:
        """Note that its own connection was lost while it alone was read."""
        record = self.records.get(stream) or self._add(stream)
        record.cuts += 1
        if record.cuts >= _CUTS:
            self.exceeded(stream, cause)

    def exceeded(self, stream: StreamName, cause: Exception) -> None:
        """Note that its reply is too large, and begin a pause, longer than the last one."""
        record = self.records.get(stream) or self._add(stream)
        if record.pause_s == 0:
            logger.warning(
                "stream is too large, each change is a resync merchant_id=%s cause=%s",
                stream,
                cause,
            )
        if record.standing is not Standing.OVERSIZED:
            record.enter(Standing.OVERSIZED)
        record.cuts = 0
        record.pause_s = min(_PAUSE_CAP_S, max(_PAUSE_FIRST_S, 2 * record.pause_s))
        record.readable_at = self._clock() + record.pause_s
        record.trusted_at = record.readable_at + _PROBATION_S

    def answered(self, stream: StreamName) -> None:
        """Note that its reply has arrived on a connection of its own."""
        record = self.records.get(stream)
        if record is None:
            return
        record.cuts = 0
        if self._clock() >= record.trusted_at:
            del self.records[stream]
            if record.pause_s:
                logger.info("stream is read again merchant_id=%s", stream)
        elif record.standing is Standing.OVERSIZED:
            record.enter(Standing.ON_PROBATION)

    def _add(self, stream: StreamName) -> Record:
        if len(self.records) >= _REMEMBERED:
            del self.records[next(iter(self.records))]
        record = self.records[stream] = Record()
        return record
