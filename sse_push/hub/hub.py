"""The register of one process: which connection listens to which merchant, from first to last.

Synchronous: nothing is awaited between reading and changing its state, so there is no lock. Knows
merchants, subscriptions and time. Does not know the wire format (``encode`` makes the frames), nor
sockets (each connection has a ``Sink``), nor Redis (changes come from a ``Source``).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason
from sse_push.hub.fan_out import FanOuts
from sse_push.hub.grants import Grants
from sse_push.hub.heartbeats import Heartbeats
from sse_push.hub.refresh import Refresh, in_order, merge_into
from sse_push.hub.state import (
    BLOCKED,
    ENDED,
    FLOWING,
    JOINING,
    JOINING_BLOCKED,
    FrameT,
    HubTally,
    Merchant,
    Pace,
    Sink,
    Source,
    Subscription,
)
from sse_push.notification import Change, EntryId, EventId
from sse_push.runtime.timer_wheel import Clock

_AGE_SPREAD = 0.2
"""Connections reach their greatest age this share of ``max_connection_age_s`` early or late."""

_LEAST_ENDS_PER_S = 100.0
"""A drain ends at least this many connections per second, however much time it has."""

_DRAIN_STEP_S = 0.05
"""The time between two batches of ends."""


class Hub(Generic[FrameT]):
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
        self.source: Source | None = None
        self.tally = HubTally()
        self.is_draining = False
        self._pace = pace
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._merchants: dict[str, Merchant[FrameT]] = {}
        self._count = 0
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
            block=self._heartbeats.block,
            clock=clock,
            wall_clock=wall_clock,
        )

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return self._count

    @property
    def merchant_count(self) -> int:
        """The number of merchants with a subscription."""
        return len(self._merchants)

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
        merchant_id = grant.merchant_id
        merchant = self._merchants.get(merchant_id)
        is_first = merchant is None
        if merchant is None:
            merchant = self._merchants[merchant_id] = Merchant(merchant_id)
        now = self._clock.time()
        share = self._chance.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)
        ends_at = now + self._pace.max_connection_age_s * share
        subscription = Subscription(merchant, grant, sink, now, ends_at)
        merchant.subscriptions[subscription] = None
        self._count += 1
        self.tally.opened += 1
        self._heartbeats.add(subscription)
        self._grants.add(subscription)
        if is_first:
            assert self.source is not None, "expected a source before the first subscription"
            self.source.watch(merchant_id)
        return subscription

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

        Call ``first_frame`` next to write all of these, or ``drained`` to have them offered. An
        ended connection stays ended, and its first frame is written all the same.
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

    def drained(self, subscription: Subscription[FrameT]) -> None:
        """Note that a sink can take bytes again, and offer it all pending refreshes."""
        if subscription.state in (BLOCKED, JOINING_BLOCKED):
            self._heartbeats.unblock(subscription)
        if subscription.state is FLOWING:
            self._fan_outs.offer_pending(subscription)

    def unsubscribe(self, subscription: Subscription[FrameT]) -> bool:
        """Give up the place of a connection; False if the connection had none any more."""
        if subscription.state is ENDED:
            return False
        subscription.become(ENDED)
        subscription.pending.clear()
        self._count -= 1
        self.tally.closed[subscription.end_reason] += 1
        self._heartbeats.remove(subscription)
        self._grants.remove(subscription)
        if subscription.on_armed is not None:
            subscription.on_armed()
            subscription.on_armed = None
        merchant = subscription.merchant
        del merchant.subscriptions[subscription]
        if not merchant.subscriptions:
            # Without a connection there is nobody to write to.
            if merchant.timer is not None:
                merchant.timer.cancel()
            del self._merchants[merchant.id]
            assert self.source is not None, "expected the source that watches the merchant"
            self.source.unwatch(merchant.id)
        return True

    def end(self, subscription: Subscription[FrameT], reason: EndReason) -> None:
        """End a connection: first its place here, then its response, so that no frame follows."""
        subscription.end_reason = reason
        if self.unsubscribe(subscription):
            subscription.sink.end(reason)

    def drain(self) -> None:
        """End all connections, spread over at most ``drain_s``; each is live until its turn."""
        if self.is_draining:
            return
        self.is_draining = True
        live = self._live()
        # In random order: the clients of one merchant do not come back together.
        self._chance.shuffle(live)
        # Many connections are spread evenly over ``drain_s``; a few take less than that.
        per_s = max(_LEAST_ENDS_PER_S, len(live) / max(self._pace.drain_s, _DRAIN_STEP_S))
        self._end_batch(live, math.ceil(per_s * _DRAIN_STEP_S))

    def _live(self) -> list[Subscription[FrameT]]:
        return [one for each in self._merchants.values() for one in each.subscriptions]

    def _end_batch(self, live: list[Subscription[FrameT]], size: int) -> None:
        for subscription in live[-size:]:
            self.end(subscription, EndReason.SERVER_STOPPING)
        del live[-size:]
        if live:
            self._clock.call_later(_DRAIN_STEP_S, lambda: self._end_batch(live, size))

    # -- from the source

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        """Note that a merchant's stream has been read, and its newest ID; None: no entry."""
        merchant = self._merchants[merchant_id]
        merchant.newest = newest
        merchant.is_armed = True
        for subscription in merchant.subscriptions:
            if subscription.on_armed is not None:
                subscription.on_armed()
                subscription.on_armed = None

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
        self._grants.revoke_all(until, self._live())

    def require_unrevoked(self, grant: Grant) -> None:
        """Check a grant before ``subscribe``, which checks it again.

        Raises:
            Unauthorized: the grant is revoked.
        """
        self._grants.require_unrevoked(grant)
