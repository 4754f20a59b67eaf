"""The drain: all connections end, spread over a time that the process still has.

Knows how many connections end together. Does not know how a connection ends (``end``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic

from sse_push.errors import EndReason
from sse_push.hub.state import FrameT, Subscription
from sse_push.runtime.timer_wheel import Clock

_LEAST_ENDS_PER_S = 100.0
"""A drain ends at least this many connections per second, however much time it has."""

_STEP_S = 0.05
"""The time between two batches of ends."""


class Drain(Generic[FrameT]):
    """Ends these connections, the last of the list first; each is live until its turn."""

    def __init__(
        self,
        live: list[Subscription[FrameT]],
        end: Callable[[Subscription[FrameT], EndReason], None],
        *,
        drain_s: float,
        clock: Clock,
    ) -> None:
        self._live = live
        self._end = end
        self._clock = clock
        # Many connections are spread evenly over ``drain_s``; a few take less than that.
        per_s = max(_LEAST_ENDS_PER_S, len(live) / max(drain_s, _STEP_S))
        self._size = math.ceil(per_s * _STEP_S)

    def go_on(self) -> None:
        """End one batch, and call this again for the next one."""
        for subscription in self._live[-self._size :]:
            self._end(subscription, EndReason.SERVER_STOPPING)
        del self._live[-self._size :]
        if self._live:
            self._clock.call_later(_STEP_S, self.go_on)
