"""The fan-out inside one process: from a merchant's change to each of its connections.

Synchronous: nothing is awaited between reading and changing its state, so there is no lock. Knows
merchants, subscriptions and time. Does not know the wire format (it is handed ``encode``), nor
sockets (it is handed a ``Sink`` per connection), nor Redis (it is handed a ``Source``).
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason, Occasion, Unauthorized
from sse_push.hub.expiry import Expiries, Expiry
from sse_push.hub.refresh import Pending, Reason, Refresh, in_order, keep
from sse_push.notification import Change, EntryId
from sse_push.runtime.timer_wheel import Clock, Timer, TimerWheel

FrameT = TypeVar("FrameT")
FrameT_contra = TypeVar("FrameT_contra", contravariant=True)


class Source(Protocol):
    """Where changes come from: told at once whom to watch, it reports to ``Hub.publish``."""

    def watch(self, merchant_id: str) -> None:
        """Report this merchant from now on: ``Hub.armed`` once, then each change."""

    def unwatch(self, merchant_id: str) -> None:
        """Report it no more."""


class Sink(Protocol[FrameT_contra]):
    """The way to one client."""

    def offer(self, frame: FrameT_contra) -> bool:
        """Write the frame without waiting, or refuse: False.

        After a refusal ``Hub.drained`` must be called as soon as bytes can be taken again.
        """

    def end(self, reason: EndReason) -> None:
        """Say goodbye and complete the response; nothing is offered after that."""


@dataclass(slots=True)
class HubTally:
    """What has happened in a hub since it was made; the numbers only rise.

    Of a fan-out, what was written and what was skipped is counted once, when it is finished.
    """

    opened: int = 0
    closed: dict[EndReason, int] = field(
        default_factory=lambda: dict.fromkeys(EndReason.on(Occasion.END), 0)
    )
    written: int = 0
    """Refreshes that were handed to connections."""
    merged: int = 0
    """Refreshes that became part of another one before they were written, in any slot."""
    skipped: int = 0
    """Refreshes that a fan-out left in a connection's slot, since it could not take them."""


class Merchant(Generic[FrameT]):
    """One merchant that somebody listens to here."""

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
        self.newest: EntryId | None = None
        """The newest ID *read*; what was written to whom may lag behind it."""
        self.version = 0
        self.pending: Pending = {}
        """What was read and is in no fan-out yet."""
        self.subscriptions: dict[Subscription[FrameT], None] = {}
        self.fan_out: FanOut[FrameT] | None = None
        self.fanned_out_at = -math.inf
        self.next_fan_out_at = -math.inf
        self.timer: Timer | None = None


class Subscription(Generic[FrameT]):
    """One connection's place in the hub, with the one slot of what it could not take yet."""

    __slots__ = (
        "blocked_at",
        "end_reason",
        "ends_at",
        "expires_at",
        "expiry",
        "grant",
        "is_ended",
        "is_flowing",
        "is_joining",
        "merchant",
        "on_armed",
        "pending",
        "sink",
        "tick",
        "version",
        "written_at",
    )

    def __init__(
        self,
        merchant: Merchant[FrameT],
        grant: Grant,
        sink: Sink[FrameT],
        now: float,
        ends_at: float,
    ) -> None:
        self.merchant = merchant
        self.grant = grant
        self.expiry: Expiry[Subscription[FrameT]] | None = None
        self.expires_at = math.inf
        """When its token expires, by the event loop's clock; nothing is written after that."""
        self.on_armed: Callable[[], None] | None = None
        self.sink = sink
        self.version = merchant.version
        """Changes up to this one are settled by comparing IDs, not by being delivered."""
        self.pending: Pending = {}
        self.is_joining = True
        """Its position has not been compared yet: whatever comes waits in the slot."""
        self.is_flowing = False
        """Frames may be offered to the sink: not joining, not blocked, not ended."""
        self.is_ended = False
        self.end_reason = EndReason.CLIENT_DISCONNECTED
        """Why it has ended, or will have if it is the client that leaves."""
        self.blocked_at: float | None = None
        self.written_at = now
        self.ends_at = ends_at
        self.tick = 0
        """Its place on the heartbeat wheel."""


class FanOut(Generic[FrameT]):
    """One frame on its way to all connections of a merchant, which are fixed when it starts."""

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
        self.recipients = tuple(merchant.subscriptions)
        self.position = 0
        self.missed = 0
        """Recipients that its frame was not handed to."""
        self.started_at = started_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The hub's times, in seconds; defaults and meanings are those of ``Settings``."""

    heartbeat_s: float
    refresh_interval_s: float
    send_timeout_s: float
    max_connection_age_s: float
    drain_s: float
    token_expiring_s: float


_WRITES_PER_LOOK = 32
"""Writes between two looks at the clock; one takes about 10 µs."""

_SLICE_S = 0.002
"""So long a fan-out may keep the event loop to itself: requests wait no longer than that."""

_TICKS_PER_HEARTBEAT = 60

_SHORTEST_SILENCE = 0.8
"""A heartbeat follows a silence of this share of ``heartbeat_s`` to all of it."""

_RESYNCS_AT_ONCE = 100
_RESYNC_SPREAD_S = 3.0
"""After a loss in Redis thousands of merchants refetch: the first at once, the rest spread."""

_ENDS_PER_S = 100.0
"""A drain of few connections need not take all its time."""

_DRAIN_STEP_S = 0.05

_FORGET_INTERVAL_S = 60.0
"""A revocation is remembered for so long after it has lost its meaning, at most."""


class Hub(Generic[FrameT]):
    """All subscriptions of this process.

    ``encode(merchant_id, refreshes)`` makes the frame of one or several refresh events, in their
    order; it is called once per fan-out, not once per connection. ``on_fan_out(newest)`` is called
    as each one begins, with the newest entry in it; not if it only says that history was lost.
    ``encode_expiring(seconds)`` makes the frame that tells of a token's end; without it nobody is
    told.
    """

    def __init__(
        self,
        source: Source,
        encode: Callable[[str, Sequence[Refresh]], FrameT],
        heartbeat: FrameT,
        pace: Pace,
        clock: Clock,
        *,
        encode_expiring: Callable[[int], FrameT] | None = None,
        chance: random.Random | None = None,
        revocations: Revocations | None = None,
        wall_clock: Callable[[], float] = time.time,
        on_fan_out: Callable[[EntryId], None] | None = None,
    ) -> None:
        self._source = source
        self._encode = encode
        self._heartbeat = heartbeat
        self._pace = pace
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._on_fan_out = on_fan_out
        self._merchants: dict[str, Merchant[FrameT]] = {}
        self._active: deque[FanOut[FrameT]] = deque()
        self._is_writing = False
        self._resync_slot = -math.inf
        self._wheel: TimerWheel[Subscription[FrameT]] = TimerWheel(
            pace.heartbeat_s / _TICKS_PER_HEARTBEAT, self._visit, clock
        )
        self._encode_expiring = encode_expiring
        self._expiries: Expiries[Subscription[FrameT]] = Expiries(
            pace.token_expiring_s,
            self._tell_expiring,
            lambda subscription: self.end(subscription, EndReason.TOKEN_EXPIRED),
            clock,
            wall_clock,
        )
        self._revocations = Revocations(0, 0) if revocations is None else revocations
        self._forgetting: Timer | None = None
        self._count = 0
        self.tally = HubTally()
        self.is_draining = False

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return self._count

    @property
    def merchants(self) -> int:
        """The number of merchants with a subscription."""
        return len(self._merchants)

    # -- joining and leaving

    def subscribe(self, grant: Grant, sink: Sink[FrameT]) -> Subscription[FrameT]:
        """Give a connection its place, before anything is awaited on its behalf.

        What is published from now on waits in its slot until ``admit``. It ends when its grant
        expires or is revoked, or before that.

        Raises:
            Unauthorized: it is revoked. That is looked up here, in one step with taking the place,
                so that a revocation comes before both or after both.
        """
        self.refuse_revoked(grant)
        merchant_id = grant.merchant_id
        merchant = self._merchants.get(merchant_id)
        is_first = merchant is None
        if merchant is None:
            merchant = self._merchants[merchant_id] = Merchant(merchant_id)
        now = self._clock.time()
        age_s = self._pace.max_connection_age_s * self._chance.uniform(0.8, 1.2)
        subscription = Subscription(merchant, grant, sink, now, now + age_s)
        merchant.subscriptions[subscription] = None
        self._count += 1
        self.tally.opened += 1
        self._plan_heartbeat(subscription, now)
        if grant.expires_at is not None:
            subscription.expiry = self._expiries.add(subscription, grant.expires_at)
            subscription.expires_at = subscription.expiry.at
        if is_first:
            self._source.watch(merchant_id)
        return subscription

    def when_armed(self, subscription: Subscription[FrameT], callback: Callable[[], None]) -> None:
        """Call back as soon as the merchant's stream has been read; at once if it has been.

        It is also called, unarmed, if the subscription ends first.
        """
        if subscription.merchant.is_armed or subscription.is_ended:
            callback()
        else:
            subscription.on_armed = callback

    def position(self, subscription: Subscription[FrameT]) -> EntryId | None:
        """Return the newest ID *read*, to compare a last event ID with; None: there is no entry.

        The comparison settles all changes up to now; later ones are kept for ``admit``.
        """
        merchant = subscription.merchant
        assert merchant.is_armed, "compared only with a stream that was read"
        subscription.version = merchant.version
        subscription.pending.clear()
        return merchant.newest

    def admit(self, subscription: Subscription[FrameT], owed: Iterable[Refresh]) -> None:
        """Put what the comparison has shown to be owed before what came since, and go live.

        Call ``take`` next to get it all for the first write, or ``drained`` to have it offered.
        """
        since, subscription.pending = subscription.pending, {}
        for refresh in (*owed, *in_order(since)):
            self.tally.merged += keep(subscription.pending, refresh)
        subscription.is_joining = False
        subscription.is_flowing = not subscription.is_ended and subscription.blocked_at is None

    def take(self, subscription: Subscription[FrameT]) -> FrameT | None:
        """Return the frame of all that waits, for the caller to write; None if nothing does."""
        if not subscription.pending:
            return None
        frame = self._encode(subscription.merchant.id, in_order(subscription.pending))
        self.tally.written += len(subscription.pending)
        subscription.pending.clear()
        subscription.written_at = self._clock.time()
        return frame

    def drained(self, subscription: Subscription[FrameT]) -> None:
        """Take a sink's word that it can take bytes again."""
        if subscription.is_ended:
            return
        if subscription.blocked_at is not None:
            subscription.blocked_at = None
            self._wheel.forget(subscription)
            self._plan_heartbeat(subscription, self._clock.time())
        if not subscription.is_joining:
            subscription.is_flowing = True
            self._flush(subscription)

    def unsubscribe(self, subscription: Subscription[FrameT]) -> bool:
        """Give the place up; False if that was done before."""
        if subscription.is_ended:
            return False
        subscription.is_ended = True
        subscription.is_flowing = False
        subscription.pending.clear()
        self._count -= 1
        self.tally.closed[subscription.end_reason] += 1
        self._wheel.forget(subscription)
        if subscription.expiry is not None:
            self._expiries.forget(subscription.expiry)
            subscription.expiry = None  # it holds us: together they would wait for the collector
        if subscription.on_armed is not None:
            subscription.on_armed()
            subscription.on_armed = None
        merchant = subscription.merchant
        del merchant.subscriptions[subscription]
        if not merchant.subscriptions:
            if merchant.timer is not None:
                merchant.timer.cancel()
            del self._merchants[merchant.id]
            self._source.unwatch(merchant.id)
        return True

    def end(self, subscription: Subscription[FrameT], reason: EndReason) -> None:
        """End a connection: first its place here, then its last chunk, so that nothing follows."""
        subscription.end_reason = reason
        if self.unsubscribe(subscription):
            subscription.sink.end(reason)

    def drain(self) -> None:
        """End all subscriptions, spread over at most ``drain_s``; each is live until its turn."""
        if self.is_draining:
            return
        self.is_draining = True
        waiting = [
            subscription
            for merchant in self._merchants.values()
            for subscription in merchant.subscriptions
        ]
        self._chance.shuffle(waiting)
        per_s = max(_ENDS_PER_S, len(waiting) / max(self._pace.drain_s, _DRAIN_STEP_S))
        self._end_some(waiting, math.ceil(per_s * _DRAIN_STEP_S))

    def _end_some(self, waiting: list[Subscription[FrameT]], most: int) -> None:
        for subscription in waiting[-most:]:
            self.end(subscription, EndReason.SERVER_STOPPING)
        del waiting[-most:]
        if waiting:
            self._clock.call_later(_DRAIN_STEP_S, lambda: self._end_some(waiting, most))

    # -- revocations

    def revoke(self, revocation: Revocation, at: float) -> None:
        """Refuse what a revocation covers from now on, and end what is here of it.

        ``at``: when it was said, in seconds since 1970. One that is told again ends nothing: who
        came after it, and was let in, stays.
        """
        if not self._revocations.add(revocation, at):
            return
        if self._forgetting is None:
            self._forget_later()
        merchant = self._merchants.get(revocation.merchant_id)
        if merchant is not None:
            revokes = self._revocations.revokes
            self._end_revoked([each for each in merchant.subscriptions if revokes(each.grant)])

    def refuse_revoked(self, grant: Grant) -> None:
        """Refuse a grant by a token that was revoked; one without a token is decided each time.

        Raises:
            Unauthorized: it is revoked.
        """
        if grant.expires_at is not None and self._revocations.revokes(grant):
            raise Unauthorized.invalid_token("expected a token that was not revoked")

    def _end_revoked(self, waiting: list[Subscription[FrameT]]) -> None:
        """End them for one slice, and go on after the next."""
        deadline = self._clock.time() + _SLICE_S
        while waiting:
            self.end(waiting.pop(), EndReason.REVOKED)
            if self._clock.time() >= deadline and waiting:
                self._clock.call_soon(lambda: self._end_revoked(waiting))
                return

    def _forget_later(self) -> None:
        self._forgetting = self._clock.call_later(_FORGET_INTERVAL_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self._revocations.forget()
        if self._revocations:
            self._forget_later()

    # -- changes

    def armed(self, merchant_id: str, newest: EntryId | None) -> None:
        """Take note of a merchant's position, after its stream was read for the first time."""
        merchant = self._merchants[merchant_id]
        merchant.newest = newest
        merchant.is_armed = True
        for subscription in merchant.subscriptions:
            if subscription.on_armed is not None:
                subscription.on_armed()
                subscription.on_armed = None

    def publish(self, change: Change) -> None:
        """Let every subscription of the merchant know, at once if the merchant was quiet."""
        merchant = self._merchants[change.merchant_id]
        merchant.newest = change.newest
        for refresh in self._refreshes(merchant, change):
            self.tally.merged += keep(merchant.pending, refresh)
        delay_s = self._resync_delay_s() if change.is_resync else 0.0
        self._schedule(merchant, delay_s)

    def _refreshes(self, merchant: Merchant[FrameT], change: Change) -> Iterable[Refresh]:
        if not change.entries:
            merchant.version += 1
            reason: Reason | None = "resync" if change.is_resync else None
            yield Refresh(merchant.version, change.newest, reason=reason)
        for entry in change.entries:
            merchant.version += 1
            told = entry.notification
            yield Refresh(merchant.version, entry.id, told.topic, told.data, told.by)

    def _schedule(self, merchant: Merchant[FrameT], delay_s: float = 0.0) -> None:
        if merchant.fan_out is not None:
            return  # what waits goes out after it
        now = self._clock.time()
        due = max(merchant.next_fan_out_at, now + delay_s)
        if merchant.timer is not None:
            if merchant.timer.when() <= due:
                return
            merchant.timer.cancel()
        if due <= now:
            self._start(merchant)
        else:
            merchant.timer = self._clock.call_later(due - now, lambda: self._start(merchant))

    def _start(self, merchant: Merchant[FrameT]) -> None:
        merchant.timer = None
        refreshes = in_order(merchant.pending)
        merchant.pending.clear()
        frame = self._encode(merchant.id, refreshes)
        merchant.fan_out = FanOut(merchant, refreshes, frame, self._clock.time())
        self._active.append(merchant.fan_out)
        newest = refreshes[-1]
        if self._on_fan_out is not None and newest.id is not None and newest.reason is None:
            self._on_fan_out(newest.id)
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        """Write for one slice, in turns if several merchants fan out, and go on after the next.

        https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_soon
        """
        self._is_writing = True
        time = self._clock.time
        deadline = time() + _SLICE_S
        while self._active:
            fan_out = self._active.popleft()
            self._write_some(fan_out)
            if fan_out.position < len(fan_out.recipients):
                self._active.append(fan_out)
            else:
                self._finished(fan_out)
            if time() >= deadline and self._active:
                self._clock.call_soon(self._write)
                return
        self._is_writing = False

    def _write_some(self, fan_out: FanOut[FrameT]) -> None:
        frame, oldest = fan_out.frame, fan_out.oldest
        stop = fan_out.position + _WRITES_PER_LOOK
        for subscription in fan_out.recipients[fan_out.position : stop]:
            if not (
                subscription.is_flowing
                and subscription.version < oldest
                and subscription.sink.offer(frame)
            ):
                fan_out.missed += 1
                self._keep(subscription, fan_out.refreshes)
        fan_out.position = stop

    def _finished(self, fan_out: FanOut[FrameT]) -> None:
        merchant = fan_out.merchant
        merchant.fan_out = None
        handed = len(fan_out.recipients) - fan_out.missed
        self.tally.written += handed * len(fan_out.refreshes)
        now = merchant.fanned_out_at = self._clock.time()
        # Never back to back: a merchant whose fan-out takes long leaves as much time to the others.
        rest_s = now - fan_out.started_at
        merchant.next_fan_out_at = max(
            fan_out.started_at + self._pace.refresh_interval_s, now + rest_s
        )
        if merchant.pending and merchant.subscriptions:
            self._schedule(merchant)

    def _keep(self, subscription: Subscription[FrameT], refreshes: Sequence[Refresh]) -> None:
        """Put into its slot what a subscription did not get from a fan-out."""
        if subscription.is_ended:
            return
        news = [refresh for refresh in refreshes if refresh.version > subscription.version]
        for refresh in news:
            self.tally.merged += keep(subscription.pending, refresh)
        if subscription.is_flowing and news and subscription.version >= refreshes[0].version:
            self._flush(subscription)  # it joined between the changes in this fan-out
            return
        self.tally.skipped += len(news)
        if subscription.is_flowing and news:
            self._block(subscription)  # it was offered, and refused

    def _flush(self, subscription: Subscription[FrameT]) -> None:
        if not subscription.pending:
            return
        frame = self._encode(subscription.merchant.id, in_order(subscription.pending))
        if subscription.sink.offer(frame):
            self.tally.written += len(subscription.pending)
            subscription.pending.clear()
            subscription.written_at = self._clock.time()
        else:
            self._block(subscription)

    def _block(self, subscription: Subscription[FrameT]) -> None:
        subscription.is_flowing = False
        subscription.blocked_at = self._clock.time()
        self._wheel.forget(subscription)
        self._wheel.plan(subscription, subscription.blocked_at + self._pace.send_timeout_s)

    def _resync_delay_s(self) -> float:
        now = self._clock.time()
        step_s = _RESYNC_SPREAD_S / 1000
        self._resync_slot = max(now, self._resync_slot + step_s)
        delay_s = self._resync_slot - now - _RESYNCS_AT_ONCE * step_s
        return delay_s if delay_s < _RESYNC_SPREAD_S else self._chance.uniform(0, _RESYNC_SPREAD_S)

    # -- heartbeats and ends

    def _plan_heartbeat(self, subscription: Subscription[FrameT], heard_at: float) -> None:
        # Not all at once: connections that were written to together are due apart.
        silence_s = self._pace.heartbeat_s * self._chance.uniform(_SHORTEST_SILENCE, 1)
        due = heard_at + silence_s - self._wheel.tick_s
        self._wheel.plan(subscription, min(due, subscription.ends_at))

    def _visit(self, subscription: Subscription[FrameT], now: float) -> None:
        """Do what is due for one connection: its end, or a heartbeat after silence."""
        pace = self._pace
        if subscription.blocked_at is not None:
            if now - subscription.blocked_at >= pace.send_timeout_s:
                self.end(subscription, EndReason.STALLED)
            else:
                self._wheel.plan(subscription, subscription.blocked_at + pace.send_timeout_s)
            return
        if now >= subscription.ends_at:
            self.end(subscription, EndReason.CONNECTION_AGE)
            return
        heard_at = subscription.written_at
        if subscription.is_flowing:
            heard_at = max(heard_at, subscription.merchant.fanned_out_at)
        if now - heard_at >= pace.heartbeat_s * _SHORTEST_SILENCE - 2 * self._wheel.tick_s:
            heard_at = subscription.written_at = now
            if not subscription.sink.offer(self._heartbeat):
                self._block(subscription)
                return
        self._plan_heartbeat(subscription, heard_at)

    def _tell_expiring(self, subscription: Subscription[FrameT], expires_in_s: int) -> bool:
        """Say that a token is about to expire; False if that can't be said now."""
        if self._encode_expiring is None:
            return True
        if subscription.blocked_at is not None:
            return False
        if not subscription.sink.offer(self._encode_expiring(expires_in_s)):
            self._block(subscription)
            return False
        return True
