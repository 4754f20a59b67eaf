"""Tokens that expire while their connections live: announced a while before, ended in time.

Knows when a token expires, and the clock. Does not know what is written, nor how a connection ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sse_push.runtime.timer_wheel import Clock, TimerWheel

ConnectionT = TypeVar("ConnectionT")

_TICK_S = 0.1
"""A visit is up to a tick early or late, and the loop may be busy for another tick."""

_MARGIN_S = 2 * _TICK_S
"""A connection ends this long before its token expires, never after."""


class Expiry(Generic[ConnectionT]):
    """When a connection's token expires, by the event loop's clock."""

    __slots__ = ("at", "connection", "tick")

    def __init__(self, connection: ConnectionT, at: float) -> None:
        self.connection = connection
        self.at = at
        self.tick = 0


class Expiries(Generic[ConnectionT]):
    """All connections with a token; one timer for all of them, and no timer without any.

    ``announce(connection, expires_in_s)`` is called ``expiring_s`` before the token expires. If
    the token has less than twice that time left when its connection begins, ``announce`` is called
    at half of that time: a page must not renew short-lived tokens over and over. If ``announce``
    returns False, it is called again soon. ``end(connection)`` is called shortly before the token
    expires.
    """

    def __init__(
        self,
        expiring_s: float,
        announce: Callable[[ConnectionT, int], bool],
        end: Callable[[ConnectionT], None],
        clock: Clock,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._expiring_s = expiring_s
        self._announce = announce
        self._end = end
        self._clock = clock
        self._wall_clock = wall_clock
        self._wheel: TimerWheel[Expiry[ConnectionT]] = TimerWheel(_TICK_S, self._visit, clock)

    def add(self, connection: ConnectionT, expires_at: float) -> Expiry[ConnectionT]:
        """Plan the end of a connection whose token expires at ``expires_at``, seconds since 1970.

        The wall clock is read once: setting it later neither shortens nor lengthens a connection.
        """
        now = self._clock.time()
        left_s = expires_at - self._wall_clock()
        at = now + left_s
        expiry = Expiry(connection, at)
        if left_s > 2 * _MARGIN_S:
            self._plan(expiry, at - min(self._expiring_s, left_s / 2))
        else:
            # The wheel is too coarse for a token that is about to expire, or has expired.
            self._clock.call_later(max(0.0, left_s - _MARGIN_S), lambda: self._end(connection))
        return expiry

    def remove(self, expiry: Expiry[ConnectionT]) -> None:
        """Drop the plan for a connection that has ended."""
        self._wheel.forget(expiry)

    def _plan(self, expiry: Expiry[ConnectionT], due: float) -> None:
        self._wheel.plan(expiry, due - _MARGIN_S)

    def _visit(self, expiry: Expiry[ConnectionT], now: float) -> None:
        left_s = expiry.at - now
        if left_s < 2 * _MARGIN_S - _TICK_S:
            # The token is about to expire: another visit could come after that.
            self._end(expiry.connection)
        elif self._announce(expiry.connection, round(left_s)):
            self._plan(expiry, expiry.at)
        else:
            # The client takes no bytes now: the next tick tries again.
            self._plan(expiry, now)
