"""What is due for one connection: a heartbeat, or its end, at its greatest age or if it stalls.

Knows silences, ages and how long a sink may take no bytes. Does not know merchants' changes, nor
how a connection ends (``end``).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic

from sse_push.errors import EndReason
from sse_push.hub.state import (
    BLOCKED,
    FLOWING,
    JOINING,
    JOINING_BLOCKED,
    FrameT,
    Pace,
    Subscription,
)
from sse_push.runtime.timer_wheel import Clock, TimerWheel

_TICKS_PER_HEARTBEAT = 60

_SHORTEST_SILENCE = 0.8
"""The shortest silence before a heartbeat, as a share of ``heartbeat_s``."""


def _written_at(subscription: Subscription[FrameT]) -> float:
    """Return when the client was last written to on behalf of this subscription."""
    if subscription.is_flowing:
        # A fan-out notes its time on the merchant only: it has written to all that flow.
        return max(subscription.written_at, subscription.merchant.fanned_out_at)
    return subscription.written_at


class Heartbeats(Generic[FrameT]):
    """Visits each connection when something is due for it; one timer for all connections.

    Of the subscriptions of one connection only the leader is visited.

    A connection that is not blocked has a visit planned for its next heartbeat or its greatest
    age, a blocked one for the moment at which it counts as stalled.
    """

    def __init__(
        self,
        heartbeat: FrameT,
        *,
        end: Callable[[Subscription[FrameT], EndReason], None],
        pace: Pace,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._heartbeat = heartbeat
        self._end = end
        self._pace = pace
        self._clock = clock
        self._chance = chance
        self._wheel: TimerWheel[Subscription[FrameT]] = TimerWheel(
            pace.heartbeat_s / _TICKS_PER_HEARTBEAT, self._visit, clock
        )

    def add(self, subscription: Subscription[FrameT]) -> None:
        """Plan the first visit to a connection."""
        self._plan(subscription, subscription.written_at)

    def remove(self, subscription: Subscription[FrameT]) -> None:
        """Drop the plan for a connection that has ended."""
        self._wheel.forget(subscription)

    def block(self, subscription: Subscription[FrameT]) -> None:
        """Note that a sink has refused a frame: if it does not drain in time, end its connection.

        The time is ``send_timeout_s``.
        """
        connection = subscription.connection
        for each in connection:
            each.become(JOINING_BLOCKED if each.state is JOINING else BLOCKED)
        leader = connection[0]
        leader.blocked_at = self._clock.time()
        self._wheel.forget(leader)
        self._wheel.plan(leader, leader.blocked_at + self._pace.send_timeout_s)

    def unblock(self, subscription: Subscription[FrameT]) -> None:
        """Note that the sink of a blocked connection can take bytes again."""
        connection = subscription.connection
        for each in connection:
            each.become(JOINING if each.state is JOINING_BLOCKED else FLOWING)
        self._wheel.forget(connection[0])
        self._plan(connection[0], self._clock.time())

    def offer(self, subscription: Subscription[FrameT], frame: FrameT) -> bool:
        """Offer a frame that is no refresh; False if the connection is blocked, or is by now."""
        if subscription.state in (BLOCKED, JOINING_BLOCKED):
            return False
        if not subscription.sink.offer(frame):
            self.block(subscription)
            return False
        return True

    def _plan(self, subscription: Subscription[FrameT], written_at: float) -> None:
        # A random silence: connections that were written to together are not due together.
        silence_s = self._pace.heartbeat_s * self._chance.uniform(_SHORTEST_SILENCE, 1)
        due = written_at + silence_s - self._wheel.tick_s
        self._wheel.plan(subscription, min(due, subscription.ends_at))

    def _visit(self, subscription: Subscription[FrameT], now: float) -> None:
        """Do what is due for one connection."""
        pace = self._pace
        if subscription.state in (BLOCKED, JOINING_BLOCKED):
            if now - subscription.blocked_at >= pace.send_timeout_s:
                # The client has had its whole time to take bytes, and has taken none.
                self._end(subscription, EndReason.STALLED)
            else:
                # The wheel visits up to a tick early: the client still has some of its time.
                self._wheel.plan(subscription, subscription.blocked_at + pace.send_timeout_s)
            return
        if now >= subscription.ends_at:
            # Connections spread over workers again as each one ends at its greatest age.
            self._end(subscription, EndReason.CONNECTION_AGE)
            return
        if subscription.is_joint:  # else without a loop, which took 5 % of each heartbeat
            written_at = max(map(_written_at, subscription.connection))
        else:
            written_at = _written_at(subscription)
        if now - written_at >= pace.heartbeat_s * _SHORTEST_SILENCE - 2 * self._wheel.tick_s:
            # The connection has been silent for long enough, up to the wheel's precision.
            written_at = subscription.written_at = now
            if not subscription.sink.offer(self._heartbeat):
                self.block(subscription)
                return
        # The next heartbeat is due after the last write, be it this heartbeat or an earlier frame.
        self._plan(subscription, written_at)
