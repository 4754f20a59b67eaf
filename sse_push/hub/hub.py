"""The hub itself: the life of each connection, from its first moment to its last.

Synchronous: nothing is awaited between reading and changing its state, so there is no lock. Knows
merchants, subscriptions and time. Does not know the wire format (``encode`` makes the frames), nor
sockets (each connection has a ``Sink``), nor Redis (changes come from a ``Source``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason
from sse_push.hub.drain import Drain
from sse_push.hub.fan_out import FanOuts
from sse_push.hub.grants import Grants
from sse_push.hub.heartbeats import Heartbeats
from sse_push.hub.refresh import Refresh, in_order, merge_into
from sse_push.hub.register import Register
from sse_push.hub.state import (
    BLOCKED,
    ENDED,
    FLOWING,
    JOINING,
    JOINING_BLOCKED,
    FrameT,
    HubTally,
    JointSubscription,
    Pace,
    Sink,
    Subscription,
)
from sse_push.notification import Change, EntryId, EventId
from sse_push.runtime.timer_wheel import Clock

_AGE_SPREAD = 0.2
"""Connections reach their greatest age this share of ``max_connection_age_s`` early or late."""


class Hub(Register[FrameT]):
    """All subscriptions of this process.

    ``encode(merchant_id, refreshes)`` makes the frame of one or several refresh events, in their
    order; ``heartbeat`` is the frame that follows a silence, ``encode_expiring(seconds)`` makes
    the one that announces the end of a token. Set ``source`` before the first subscription.
    """

    def __init__(
        self,
        *,
        encode: Callable[[str, Sequence[Refresh]], FrameT],
        encode_expiring: Callable[[int], FrameT],
        heartbeat: FrameT,
        pace: Pace,
        revocations: Revocations,
        clock: Clock,
        wall_clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        super().__init__()
        self.tally = HubTally()
        self.is_draining = False
        self._pace = pace
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._heartbeats: Heartbeats[FrameT] = Heartbeats(
            heartbeat, end=self.end, pace=pace, clock=clock, chance=self._chance
        )
        self._fan_outs: FanOuts[FrameT] = FanOuts(
            encode=encode,
            block=self._heartbeats.block,
            refresh_interval_s=pace.refresh_interval_s,
            tally=self.tally,
            clock=clock,
            chance=self._chance,
        )
        self._grants: Grants[FrameT] = Grants(
            expiring_s=pace.token_expiring_s,
            encode_expiring=encode_expiring,
            revocations=revocations,
            end=self.end,
            offer=self._heartbeats.offer,
            clock=clock,
            wall_clock=wall_clock,
        )

    @property
    def on_fan_out(self) -> Callable[[EntryId], None] | None:
        """Called with the newest entry of each fan-out as it starts, but not for a resync."""
        return self._fan_outs.on_start

    @on_fan_out.setter
    def on_fan_out(self, callback: Callable[[EntryId], None]) -> None:
        self._fan_outs.on_start = callback

    # -- from joining to the end

    def subscribe(self, grant: Grant, sink: Sink[FrameT]) -> Subscription[FrameT]:
        """Give a connection its place, before anything is awaited on its behalf.

        Changes are pending for the connection from now on, until ``admit``. Its grant's end, by
        time or by a revocation, ends the connection.

        Raises:
            Unauthorized: the grant is revoked. The check and the place are one step, so that a
                revocation comes before both or after both.
        """
        self._grants.require_unrevoked(grant)
        now = self._clock.time()
        subscription = Subscription(self._merchant(grant.merchant_id), grant, sink, now)
        self._begin((subscription,), now)
        return subscription

    def subscribe_all(
        self, places: Sequence[tuple[Grant, Sink[FrameT]]]
    ) -> tuple[Subscription[FrameT], ...]:
        """Give a connection its place at each of several merchants; the first place leads.

        All grants end at the same time, and all sinks are ways to the same client: if one refuses a
        frame, none is offered another one before ``drained``.

        Raises:
            Unauthorized: a grant is revoked; no place is given.
        """
        for grant, _ in places:
            self._grants.require_unrevoked(grant)
        now = self._clock.time()
        connection = tuple(
            JointSubscription(self._merchant(grant.merchant_id), grant, sink, now)
            for grant, sink in places
        )
        for each in connection:
            each.connection = connection
        self._begin(connection, now)
        return connection

    def _begin(self, connection: tuple[Subscription[FrameT], ...], now: float) -> None:
        leader = connection[0]
        share = self._chance.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)
        leader.ends_at = now + self._pace.max_connection_age_s * share
        self.tally.opened += 1
        self._heartbeats.add(leader)
        self._grants.add(leader)
        self._add(connection)

    def when_armed(self, subscription: Subscription[FrameT], callback: Callable[[], None]) -> None:
        """Call back as soon as the merchant's stream has been read; at once if it has been.

        If the subscription ends first, the callback is called then, or at once if it has ended.
        """
        if subscription.merchant.is_armed or subscription.state is ENDED:
            callback()
        else:
            subscription.on_armed = callback

    def settle(self, subscription: Subscription[FrameT]) -> EventId | None:
        """Return the newest ID that was read, to compare a last event ID with; None: no entry.

        The comparison settles all changes up to now: they are pending no more. Later changes are
        pending until ``admit``.
        """
        merchant = subscription.merchant
        assert merchant.is_armed, "compared only with a stream that was read"
        subscription.version = merchant.version
        subscription.pending.clear()
        return merchant.newest

    def admit(self, subscription: Subscription[FrameT], owed: Iterable[Refresh]) -> None:
        """Put the refreshes that are owed before those since the comparison, and go live.

        Call ``first_frame`` next to write all of these, or ``offer_pending`` to have them offered.
        An ended connection stays ended, and its first frame is written all the same.
        """
        since, subscription.pending = subscription.pending, {}
        for refresh in (*owed, *in_order(since)):
            self.tally.merged += merge_into(subscription.pending, refresh)
        if subscription.state is JOINING:
            subscription.become(FLOWING)
        elif subscription.state is JOINING_BLOCKED:
            subscription.become(BLOCKED)

    def first_frame(self, subscription: Subscription[FrameT]) -> FrameT | None:
        """Return the frame of all pending refreshes after ``admit``, for the caller to write.

        None if no refresh is pending, or if the connection is not admitted yet.
        """
        if subscription.state in (JOINING, JOINING_BLOCKED):
            return None
        frame = self._fan_outs.pending_frame(subscription)
        if frame is not None:
            self._fan_outs.wrote_pending(subscription)
        return frame

    def offer_pending(self, subscription: Subscription[FrameT]) -> None:
        """Offer all that is pending after ``admit``, if the connection is not blocked."""
        if subscription.state is FLOWING:
            self._fan_outs.offer_pending(subscription)

    def offer(self, subscription: Subscription[FrameT], frame: FrameT) -> bool:
        """Offer a frame that is no refresh; False if a blocked or ended connection gets none."""
        return subscription.state is not ENDED and self._heartbeats.offer(subscription, frame)

    def drained(self, subscription: Subscription[FrameT]) -> None:
        """Note that a connection can take bytes again, and offer it all pending refreshes."""
        if subscription.state in (BLOCKED, JOINING_BLOCKED):
            self._heartbeats.unblock(subscription)
        connection = subscription.connection
        if len(connection) > 1:
            # The merchant first that has waited longest: a sink may take one frame at a time.
            connection = tuple(sorted(connection, key=lambda each: each.written_at))
        for each in connection:
            if each.state is FLOWING:
                self._fan_outs.offer_pending(each)

    def unsubscribe(self, subscription: Subscription[FrameT]) -> bool:
        """Give up all places of a connection; False if the connection had none any more."""
        if subscription.state is ENDED:
            return False
        connection = subscription.connection
        self.tally.closed[connection[0].end_reason] += 1
        self._heartbeats.remove(connection[0])
        self._grants.remove(connection[0])
        self._remove(connection)
        return True

    def end(self, subscription: Subscription[FrameT], reason: EndReason) -> None:
        """End a connection: first its places here, then its response, so that no frame follows."""
        if subscription.state is not ENDED:
            leader = subscription.connection[0]
            leader.end_reason = reason
            self.unsubscribe(leader)
            leader.sink.end(reason)

    def drain(self) -> None:
        """End all connections, spread over at most ``drain_s``; each is live until its turn."""
        if self.is_draining:
            return
        self.is_draining = True
        leaders = [each for each in self._subscriptions() if each.connection[0] is each]
        # In random order: the clients of one merchant do not come back together.
        self._chance.shuffle(leaders)
        Drain(leaders, self.end, drain_s=self._pace.drain_s, clock=self._clock).go_on()

    # -- from the source

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        """Note that a merchant's stream has been read, and its newest ID; None: no entry."""
        merchant = self._merchants[merchant_id]
        merchant.newest = newest
        merchant.is_armed = True
        for subscription in merchant.subscriptions:
            if subscription.on_armed is not None:
                subscription.armed()

    def publish(self, change: Change, history: str) -> None:
        """Write a change, whose IDs are of this ``history``, to all connections of its merchant."""
        merchant = self._merchants[change.merchant_id]
        merchant.newest = None if change.newest is None else EventId(change.newest, history)
        self._fan_outs.publish(merchant, change, history)

    def revoke(self, revocation: Revocation, at: float) -> None:
        """End the connections whose grants are revoked (``at``: since 1970), and refuse these."""
        merchant = self._merchants.get(revocation.merchant_id)
        self._grants.revoke(revocation, at, () if merchant is None else merchant.subscriptions)

    def revoke_all(self, until: float) -> None:
        """End the connections whose grants were issued until then, and refuse these grants."""
        self._grants.revoke_all(until, self._subscriptions())

    def require_unrevoked(self, grant: Grant) -> None:
        """Check a grant before ``subscribe``, which checks it again.

        Raises:
            Unauthorized: the grant is revoked.
        """
        self._grants.require_unrevoked(grant)
