"""Many deadlines on one timer: a wheel of ticks, each with what is due in it.

Knows time and its items' places. Does not know what is due, nor why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Timer(Protocol):
    """What is needed of an event loop's timer."""

    def when(self) -> float:
        """Return when it is due, in the clock's time."""

    def cancel(self) -> None:
        """Do not call."""


class Clock(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float:
        """Return seconds that never go back."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call once the loop has looked at its sockets."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call after ``delay`` seconds."""


class Item(Protocol):
    """What can stand on a wheel, in one place at most."""

    tick: int
    """Its place; the wheel's to set."""


ItemT = TypeVar("ItemT", bound=Item)


class TimerWheel(Generic[ItemT]):
    """Call ``visit(item, now)`` once per planned item, up to one tick before it is due or after.

    One timer for all, however many items; planning and forgetting cost the same for any number.
    """

    def __init__(self, tick_s: float, visit: Callable[[ItemT, float], None], clock: Clock) -> None:
        self.tick_s = tick_s
        self._visit = visit
        self._clock = clock
        self._tick = math.floor(clock.time() / tick_s)
        self._spokes: dict[int, dict[ItemT, None]] = {}
        self._timer: Timer | None = None

    def plan(self, item: ItemT, due: float) -> None:
        """Put an item, which must not be planned already, where it is due in the clock's time."""
        if self._timer is None:
            self._tick = math.floor(self._clock.time() / self.tick_s)
            self._timer = self._clock.call_later(self.tick_s, self._turn)
        item.tick = max(self._tick + 1, math.floor(due / self.tick_s))
        self._spokes.setdefault(item.tick, {})[item] = None

    def forget(self, item: ItemT) -> None:
        """Take an item off; one that is not planned is as well."""
        spoke = self._spokes.get(item.tick)
        if spoke is not None:
            spoke.pop(item, None)
            if not spoke:
                del self._spokes[item.tick]

    def _turn(self) -> None:
        now = self._clock.time()
        last = math.floor(now / self.tick_s)
        while self._tick < last:
            self._tick += 1
            for item in self._spokes.pop(self._tick, ()):
                self._visit(item, now)
        self._timer = None
        if self._spokes:
            self._timer = self._clock.call_later(self.tick_s, self._turn)
