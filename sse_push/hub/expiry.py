"""Tokens that expire while their streams live: told a while before, ended in time.

Knows when a token expires, and the clock. Does not know what is written, nor how a stream ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sse_push.runtime.timer_wheel import Clock, TimerWheel

StreamT = TypeVar("StreamT")

_TICK_S = 0.1
"""The wheel comes up to a tick early or late, and the loop may be busy for another one."""

_ENOUGH_S = 2 * _TICK_S
"""So long before its token expires a stream is ended; it is never ended after it."""


class Expiry(Generic[StreamT]):
    """When a stream's token expires, by the event loop's clock."""

    __slots__ = ("at", "is_told", "stream", "tell_at", "tick")

    def __init__(self, stream: StreamT, at: float, tell_at: float) -> None:
        self.stream = stream
        self.at = at
        self.tell_at = tell_at
        self.is_told = False
        self.tick = 0


class Expiries(Generic[StreamT]):
    """All streams with a token; one timer for all of them, and none while there are none.

    ``tell(stream, expires_in_s)`` is called ``expiring_s`` before the token expires, or at half of
    what is left when it comes, so that a token which lives for less is not renewed over and over;
    if it returns False, it is called again soon. ``end(stream)`` is called on time, or shortly
    before.
    """

    def __init__(
        self,
        expiring_s: float,
        tell: Callable[[StreamT, int], bool],
        end: Callable[[StreamT], None],
        clock: Clock,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._expiring_s = expiring_s
        self._tell = tell
        self._end = end
        self._clock = clock
        self._wall_clock = wall_clock
        self._wheel: TimerWheel[Expiry[StreamT]] = TimerWheel(_TICK_S, self._visit, clock)

    def add(self, stream: StreamT, expires_at: float) -> Expiry[StreamT]:
        """Take a stream whose token expires then, in seconds since 1970.

        Whatever happens to the wall clock afterwards, that is so many seconds from now.
        """
        now = self._clock.time()
        left_s = expires_at - self._wall_clock()
        at = now + left_s
        expiry = Expiry(stream, at, at - min(self._expiring_s, left_s / 2))
        if left_s > 2 * _ENOUGH_S:
            self._plan(expiry)
        else:  # too short for the wheel
            self._clock.call_later(max(0.0, left_s - _ENOUGH_S), lambda: self._end(stream))
        return expiry

    def forget(self, expiry: Expiry[StreamT]) -> None:
        """Let go of a stream that has ended."""
        self._wheel.forget(expiry)

    def _plan(self, expiry: Expiry[StreamT]) -> None:
        due = expiry.at if expiry.is_told else min(expiry.tell_at, expiry.at)
        self._wheel.plan(expiry, due - _ENOUGH_S)

    def _visit(self, expiry: Expiry[StreamT], now: float) -> None:
        left_s = expiry.at - now
        if left_s < 2 * _ENOUGH_S - _TICK_S:
            self._end(expiry.stream)
            return
        if not expiry.is_told:
            expiry.is_told = self._tell(expiry.stream, round(left_s))
        self._plan(expiry)
