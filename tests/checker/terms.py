"""The promises by name, and the figures of one run by which they are judged.

Knows ``sse_push/docs/operations.md#promises``. Does not know what happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Promise(StrEnum):
    """What a service may break, by the number of the promise where it has one."""

    HEARD = "promise 1, no browser is left behind"
    ID = "promise 1, an ID comes after the refresh that it stands for"
    ORDER = "promise 3, IDs rise until a resync"
    LOSS = "promise 4, a refresh when Redis loses data"
    HONEST = "promise 5, /notify is honest"
    BOUNDED = "promise 5, /notify is bounded"
    ISOLATION = "promise 6, isolation"
    SIGNS = "promise 7, signs of life"
    BOUNDS = "promise 8, bounds"
    END = "promise 9, a proper end"
    DATA = "the wire, data stands for exactly one notification"
    FORM = "the wire, the form of responses and events"
    COMES_BACK = "the wire, an EventSource is never ended for good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was set, what was broken on purpose, and how much a busy machine may add."""

    within_s: float
    """A notification is told so soon after its acceptance, or after ``healed_at`` if later."""
    slack_s: float
    """What a busy machine may add to any promised time."""
    healed_at: float = 0.0
    """When whatever was broken was whole again."""
    losses: Sequence[float] = ()
    """When Redis lost data."""
    heartbeat_s: float | None = None
    answer_s: float | None = None
    """Each notification is answered within so long."""
    age_s: float | None = None
    """``max_connection_age_s``."""
    may_cut: bool = False
    """Connections may break, since something broke them on purpose."""
    may_be_silent: bool = False
    """Open connections may be silent, since what they lead to stood still."""
    is_only_backend: bool = False
    """All notifications of these merchants are in the history."""
    pauses: Sequence[tuple[float, float]] = ()
    """When the checker itself could not run: from, to."""

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> Terms:
        """Read the terms that another process gives; an unknown name is an error."""
        return cls(**said)  # type: ignore[arg-type]  # the other side's tests would show it

    def due(self, at: float) -> float:
        """Return until when a browser is told of what happened then."""
        return max(at, self.healed_at) + self.within_s + self.slack_s

    def awake_s(self, began_at: float, ended_at: float) -> float:
        """Return a duration without what the checker itself was paused."""
        paused_s = sum(
            max(0.0, min(to, ended_at) - max(since, began_at)) for since, to in self.pauses
        )
        return ended_at - began_at - paused_s
