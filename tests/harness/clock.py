"""A clock that a test moves by hand, and what a hub needs beside one.

Knows the two protocols ``Clock`` and ``Source``. Does not know Redis, sockets or an event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sse_push.hub import Pace

PACE = Pace(
    heartbeat_s=15,
    refresh_interval_s=0.1,
    send_timeout_s=15,
    max_connection_age_s=900,
    drain_s=20,
    token_expiring_s=30,
)


@dataclass
class Timer:
    due: float
    callback: Callable[[], object]
    is_canceled: bool = False

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self.is_canceled = True


class ManualClock:
    """The clock and the callbacks of an event loop; time passes by ``advance`` only."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: deque[Callable[[], object]] = deque()
        self.timers: list[Timer] = []
        self.cost_s = 0.0
        """How far each look at the clock moves the clock: the work between two looks takes time."""

    def time(self) -> float:
        self.now += self.cost_s
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        timer = Timer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def run_soon(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.is_canceled]
            due = [timer for timer in self.timers if timer.due <= until]
            if not due:
                break
            timer = min(due, key=lambda each: each.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.callback()
            self.run_soon()
        self.now = max(self.now, until)


class WatchList:
    """A source that records which merchants it is asked to watch and to unwatch."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def watch(self, merchant_id: str) -> None:
        self.calls.append(("watch", merchant_id))

    def unwatch(self, merchant_id: str) -> None:
        self.calls.append(("unwatch", merchant_id))
