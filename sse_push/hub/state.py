"""The values of the hub: merchants, subscriptions and their states, and what the hub is handed.

Knows which changes of state are legal. Does not know when they happen (``hub``), nor how a frame
reaches its connections (``fan_out``).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

from sse_push.access.grant import Grant
from sse_push.errors import EndReason, Occasion
from sse_push.hub.expiry import Expiry
from sse_push.hub.refresh import Pending, Refresh
from sse_push.notification import EventId
from sse_push.runtime.timer_wheel import Timer

FrameT = TypeVar("FrameT")
FrameT_contra = TypeVar("FrameT_contra", contravariant=True)

SLICE_S = 0.002
"""How long one callback of the hub may keep the event loop busy, and so delay requests."""


class Source(Protocol):
    """Where changes come from; it reports them by ``Hub.armed``, ``publish`` and ``revoke``."""

    def watch(self, merchant_id: str) -> None:
        """Report this merchant from now on: ``Hub.armed`` once, then each change."""

    def unwatch(self, merchant_id: str) -> None:
        """Stop reporting this merchant."""


class Sink(Protocol[FrameT_contra]):
    """The way to one client."""

    def offer(self, frame: FrameT_contra) -> bool:
        """Write the frame without waiting and return True, or refuse it and return False.

        After a refusal the sink calls ``Hub.drained`` as soon as it can take bytes again.
        """

    def end(self, reason: EndReason) -> None:
        """Write a goodbye and complete the response; no frame is offered after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The hub's times, in seconds; ``Settings`` owns their defaults and meanings."""

    heartbeat_s: float
    refresh_interval_s: float
    send_timeout_s: float
    max_connection_age_s: float
    drain_s: float
    token_expiring_s: float


@dataclass(slots=True)
class HubTally:
    """What a hub has done since it was made; the numbers only rise.

    Written and skipped refreshes of a fan-out are added when the fan-out has finished.
    """

    opened: int = 0
    closed: dict[EndReason, int] = field(
        default_factory=lambda: dict.fromkeys(EndReason.on(Occasion.END), 0)
    )
    written: int = 0
    """Refreshes that were handed to connections."""
    merged: int = 0
    """Refreshes that became part of another one before they were written."""
    skipped: int = 0
    """Refreshes that a fan-out left pending for a connection that could not take them."""


class State(enum.Enum):
    """Where a subscription stands between its first and its last moment.

    ================  ================================  ================
    state             event                             next state
    ================  ================================  ================
    JOINING           the sink refuses a frame          JOINING_BLOCKED
    JOINING           ``Hub.admit``                     FLOWING
    JOINING           ``Hub.unsubscribe``, ``Hub.end``  ENDED
    JOINING_BLOCKED   ``Hub.drained``                   JOINING
    JOINING_BLOCKED   ``Hub.admit``                     BLOCKED
    JOINING_BLOCKED   ``Hub.unsubscribe``, ``Hub.end``  ENDED
    FLOWING           the sink refuses a frame          BLOCKED
    FLOWING           ``Hub.unsubscribe``, ``Hub.end``  ENDED
    BLOCKED           ``Hub.drained``                   FLOWING
    BLOCKED           ``Hub.unsubscribe``, ``Hub.end``  ENDED
    ================  ================================  ================

    Any other event leaves the state as it is. A subscription begins in ``JOINING``; ``ENDED`` is
    final.
    """

    JOINING = "joining"
    """The last event ID is not compared yet. Refreshes become pending; only heartbeats and the
    announcement of a token's end are offered."""
    JOINING_BLOCKED = "joining_blocked"
    """As ``JOINING``, and the sink has refused a frame: nothing is offered."""
    FLOWING = "flowing"
    """Each frame is offered as it is made."""
    BLOCKED = "blocked"
    """The sink has refused a frame: refreshes become pending, and nothing is offered."""
    ENDED = "ended"
    """The connection has given up its place: no change becomes pending, and nothing is offered."""

    # Members are compared by identity; Enum's own hash runs Python code.
    __hash__ = object.__hash__


JOINING, JOINING_BLOCKED, FLOWING, BLOCKED, ENDED = State
"""The members once more: in Python 3.11 looking a member up in its class takes 0.1 µs."""

TRANSITIONS: dict[State, frozenset[State]] = {
    JOINING: frozenset({JOINING_BLOCKED, FLOWING, ENDED}),
    JOINING_BLOCKED: frozenset({JOINING, BLOCKED, ENDED}),
    FLOWING: frozenset({BLOCKED, ENDED}),
    BLOCKED: frozenset({FLOWING, ENDED}),
    ENDED: frozenset(),
}
"""The table of ``State``: the states that may follow each one."""


class Merchant(Generic[FrameT]):
    """A merchant with at least one subscription in this process."""

    __slots__ = (
        "fan_out",
        "fanned_out_at",
        "id",
        "is_armed",
        "newest",
        "next_fan_out_at",
        "pending",
        "subscriptions",
        "timer",
        "version",
    )

    def __init__(self, merchant_id: str) -> None:
        self.id = merchant_id
        self.is_armed = False
        """The merchant's stream has been read once, and each change since then is reported."""
        self.newest: EventId | None = None
        """The newest ID that was *read*; what was written to a connection may be older."""
        self.version = 0
        """How many refreshes were published here; the next ``Refresh.version`` is one more."""
        self.pending: Pending = {}
        """Refreshes that were published and are in no fan-out yet."""
        self.subscriptions: dict[Subscription[FrameT], None] = {}
        self.fan_out: FanOut[FrameT] | None = None
        """The fan-out under way."""
        self.fanned_out_at = -math.inf
        """When the last fan-out finished."""
        self.next_fan_out_at = -math.inf
        """The earliest time at which the next fan-out may start."""
        self.timer: Timer | None = None
        """Starts the next fan-out."""


class Subscription(Generic[FrameT]):
    """The place of one connection at a merchant, and the refreshes that are pending for it.

    A connection to one merchant has one, and to several merchants one ``JointSubscription`` each.
    """

    __slots__ = (
        "blocked_at",
        "end_reason",
        "ends_at",
        "expires_at",
        "expiry",
        "grant",
        "is_flowing",
        "merchant",
        "on_armed",
        "pending",
        "sink",
        "state",
        "tick",
        "version",
        "written_at",
    )

    is_joint: ClassVar[bool] = False
    """The connection has several subscriptions, of which this is one."""

    def __init__(
        self,
        merchant: Merchant[FrameT],
        grant: Grant,
        sink: Sink[FrameT],
        now: float,
    ) -> None:
        self.merchant = merchant
        self.grant = grant
        self.sink = sink
        self.state = JOINING
        """Changed by ``become`` only."""
        self.is_flowing = False
        """``state is FLOWING``, set by ``become``: the fan-out reads this 8 ns faster per delivery.
        Until Python 3.12 is required, where comparing enum members is cheap."""
        self.version = merchant.version
        """Changes up to this version were settled by comparing IDs and are not delivered."""
        self.pending: Pending = {}
        self.on_armed: Callable[[], None] | None = None
        self.end_reason = EndReason.CLIENT_DISCONNECTED
        """Why the connection has ended; until then, the reason if the client leaves."""
        self.blocked_at = math.inf
        """When the sink refused a frame; valid in the two blocked states only, and of a leader."""
        self.written_at = now
        """When this place last got a frame of its own; at first, when the connection began."""
        self.ends_at = math.inf
        """When the connection has reached its greatest age; of a leader."""
        self.expiry: Expiry[Subscription[FrameT]] | None = None
        self.expires_at = math.inf
        """When the token expires, by the event loop's clock; nothing is written after that."""
        self.tick = 0
        """The place on the heartbeat wheel, which sets it."""

    @property
    def connection(self) -> tuple[Subscription[FrameT], ...]:
        """All subscriptions of the connection; the first one leads."""
        return (self,)

    def become(self, state: State) -> None:
        """Change the state; no other method does."""
        assert state in TRANSITIONS[self.state], (
            f"expected a change of state that the table has, got {self.state.name} to {state.name}"
        )
        self.state = state
        self.is_flowing = state is FLOWING

    def armed(self) -> None:
        """Call back, once, who waits until the merchant's stream has been read."""
        assert self.on_armed is not None, "somebody waits"
        self.on_armed()
        self.on_armed = None

    def leave(self) -> None:
        """Give up the place: nothing is pending for it, and nobody waits for it any more."""
        self.become(ENDED)
        self.pending.clear()
        if self.on_armed is not None:
            self.armed()


class JointSubscription(Subscription[FrameT]):
    """The place of a connection at one of its several merchants.

    The subscriptions of one connection are blocked, drained and ended as one. The first of them
    leads: what there is once per connection, as its greatest age, is the leader's.
    """

    __slots__ = ("connection",)

    is_joint: ClassVar[bool] = True

    connection: tuple[Subscription[FrameT], ...]
    """All subscriptions of the connection, the leader first; empty once they have ended."""

    def become(self, state: State) -> None:
        """Change the state; no other method does."""
        super().become(state)
        if state is ENDED:
            # Break the reference cycle: a full garbage collection would be needed otherwise.
            self.connection = ()


class FanOut(Generic[FrameT]):
    """One frame on its way to all connections of a merchant, which are fixed at its start."""

    __slots__ = (
        "frame",
        "merchant",
        "missed",
        "oldest",
        "position",
        "recipients",
        "refreshes",
        "started_at",
    )

    def __init__(
        self,
        merchant: Merchant[FrameT],
        refreshes: Sequence[Refresh],
        frame: FrameT,
        started_at: float,
    ) -> None:
        self.merchant = merchant
        self.refreshes = refreshes
        self.frame = frame
        self.oldest = refreshes[0].version
        """The version of the oldest refresh in the frame."""
        self.recipients = tuple(merchant.subscriptions)
        self.position = 0
        """How many recipients have had their turn."""
        self.missed = 0
        """How many recipients were not handed the frame."""
        self.started_at = started_at
