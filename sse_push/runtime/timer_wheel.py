"""Many deadlines on one timer: a wheel of ticks, each with the items that are due in it.

Knows time and the place of each item. Does not know what an item is, nor why it is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Timer(Protocol):
    """The part of ``asyncio.TimerHandle`` that is used here."""

    def when(self) -> float:
        """Return the time of the call, by the clock."""

    def cancel(self) -> None:
        """Cancel the call."""


class Clock(Protocol):
    """The part of an event loop that is used here."""

    def time(self) -> float:
        """Return the time in seconds; it never goes back."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call in the next iteration of the loop, after its sockets."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call after ``delay`` seconds."""


NOT_PLANNED = 0
"""The ``tick`` of an item that is not on a wheel."""


class Item(Protocol):
    """Something that can be planned on one wheel, once at a time."""

    tick: int
    """The place on the wheel, or ``NOT_PLANNED``; only the wheel changes it."""


ItemT = TypeVar("ItemT", bound=Item)


class TimerWheel(Generic[ItemT]):
    """Call ``visit(item, now)`` once per planned item, at most one tick early or late.

    One timer serves all items; planning and forgetting cost the same for any number of items.
    """

    def __init__(self, tick_s: float, visit: Callable[[ItemT, float], None], clock: Clock) -> None:
        self.tick_s = tick_s
        self._visit = visit
        self._clock = clock
        self._tick = math.floor(clock.time() / tick_s)
        self._spokes: dict[int, dict[ItemT, None]] = {}
        self._timer: Timer | None = None

    def plan(self, item: ItemT, due: float) -> None:
        """Plan an item, which must not be planned already, for the time ``due`` by the clock."""
        if self._timer is None:
            self._tick = math.floor(self._clock.time() / self.tick_s)
            self._timer = self._clock.call_later(self.tick_s, self._turn)
        item.tick = max(self._tick + 1, math.floor(due / self.tick_s))
        self._spokes.setdefault(item.tick, {})[item] = None

    def forget(self, item: ItemT) -> None:
        """Remove an item; no effect on an item that is not planned."""
        spoke = self._spokes.get(item.tick)
        if spoke is not None:
            spoke.pop(item, None)
            if not spoke:
                del self._spokes[item.tick]
            item.tick = NOT_PLANNED

    def _turn(self) -> None:
        now = self._clock.time()
        last = math.floor(now / self.tick_s)
        while self._tick < last:
            self._tick += 1
            for item in self._spokes.pop(self._tick, ()):
                item.tick = NOT_PLANNED
                self._visit(item, now)
        self._timer = None
        if self._spokes:
            self._timer = self._clock.call_later(self.tick_s, self._turn)
