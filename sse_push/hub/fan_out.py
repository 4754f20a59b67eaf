"""The fan-out: when a merchant's refreshes are written, and how one frame reaches many connections.

Knows the pace, and that the event loop has other work to do. Does not know how a connection joins,
blocks or ends (``hub``), nor the wire format (``encode`` makes the frames).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from sse_push.hub.frames import PendingFrames
from sse_push.hub.refresh import Reason, Refresh, in_order, merge_into
from sse_push.hub.state import (
    ENDED,
    FLOWING,
    SLICE_S,
    FanOut,
    FrameT,
    HubTally,
    Merchant,
    Subscription,
)
from sse_push.notification import Change, EntryId, EventId
from sse_push.runtime.timer_wheel import Clock

_WRITES_PER_LOOK = 32
"""Writes between two looks at the clock; one write takes about 10 µs."""

_LONGEST_REST_S = 1.0
"""The longest rest after a fan-out; longer fan-outs are those in which the process stood still."""

_RESYNC_SPREAD_S = 3.0
"""How long the resyncs of all merchants are spread over, after a loss in Redis."""

_RESYNCS_AT_ONCE = 100
"""At most this many merchants resync at once; the others are spread."""

_RESYNC_STEP_S = _RESYNC_SPREAD_S / 1000
"""The time between two resyncs: a thousand merchants resync one by one within the spread."""


class FanOuts(Generic[FrameT]):
    """Writes refreshes to all connections of a merchant, and pending refreshes to one connection.

    A merchant has one fan-out at a time, and ``refresh_interval_s`` between two of them.
    ``encode(merchant_id, refreshes)`` makes one frame of refreshes in their order; a fan-out
    encodes once, not once per connection. ``block(subscription)`` is called if a sink refuses.
    """

    def __init__(
        self,
        *,
        encode: Callable[[str, Sequence[Refresh]], FrameT],
        block: Callable[[Subscription[FrameT]], None],
        refresh_interval_s: float,
        tally: HubTally,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._encode = encode
        self._pending_frames: PendingFrames[FrameT] = PendingFrames(encode)
        self._block = block
        self._refresh_interval_s = refresh_interval_s
        self._tally = tally
        self._clock = clock
        self._chance = chance
        self._active: deque[FanOut[FrameT]] = deque()
        self._is_writing = False
        """``_write`` is running, or is to be called soon."""
        self._resync_slot = -math.inf
        """The time that was given to the last resync; it may lie ahead."""
        self.on_start: Callable[[EntryId], None] | None = None
        """Called with the newest entry of each fan-out as it starts, but not for a resync."""

    # -- to one connection

    def pending_frame(self, subscription: Subscription[FrameT]) -> FrameT | None:
        """Return one frame of all pending refreshes, or None; then call ``wrote_pending``."""
        if not subscription.pending:
            return None
        return self._pending_frames.frame(subscription.merchant.id, subscription.pending)

    def wrote_pending(self, subscription: Subscription[FrameT]) -> None:
        """Note that the frame of all pending refreshes was written."""
        self._tally.written += len(subscription.pending)
        subscription.pending.clear()
        subscription.written_at = self._clock.time()

    def offer_pending(self, subscription: Subscription[FrameT]) -> None:
        """Offer all pending refreshes as one frame; they stay pending if the sink refuses it."""
        frame = self.pending_frame(subscription)
        if frame is None:
            return
        if subscription.sink.offer(frame):
            self.wrote_pending(subscription)
        else:
            self._block(subscription)

    # -- to all connections of a merchant

    def publish(self, merchant: Merchant[FrameT], change: Change, history: str) -> None:
        """Write a change to all connections of its merchant, at once if the merchant was quiet.

        ``merchant.newest`` is that of the change already. Nothing is written if only the newest ID
        has changed: a client that returns with an older ID is told then that nothing was missed.
        """
        if change.entries == ():
            return
        for refresh in self._refreshes(merchant, change, history):
            self._tally.merged += merge_into(merchant.pending, refresh)
        delay_s = self._resync_delay_s() if change.is_resync else 0.0
        self._schedule(merchant, delay_s)

    def _refreshes(
        self, merchant: Merchant[FrameT], change: Change, history: str
    ) -> Iterable[Refresh]:
        if change.entries is None:
            merchant.version += 1
            reason: Reason | None = "resync" if change.is_resync else None
            yield Refresh(merchant.version, merchant.newest, reason=reason)
        for entry in change.entries or ():
            merchant.version += 1
            notification = entry.notification
            yield Refresh(
                merchant.version,
                EventId(entry.id, history),
                notification.topic,
                notification.data,
                notification.by,
            )

    def _resync_delay_s(self) -> float:
        """Return the delay of a resync; a delay of 0 or less is none."""
        now = self._clock.time()
        self._resync_slot = max(now, self._resync_slot + _RESYNC_STEP_S)
        delay_s = self._resync_slot - now - _RESYNCS_AT_ONCE * _RESYNC_STEP_S
        # More merchants than there are steps: the rest resync at random times of the spread.
        return delay_s if delay_s < _RESYNC_SPREAD_S else self._chance.uniform(0, _RESYNC_SPREAD_S)

    def _schedule(self, merchant: Merchant[FrameT], delay_s: float = 0.0) -> None:
        if merchant.fan_out is not None:
            return  # a fan-out is under way, and schedules the next one as it finishes
        now = self._clock.time()
        due = max(merchant.next_fan_out_at, now + delay_s)
        if merchant.timer is not None:
            if merchant.timer.when() <= due:
                return  # the fan-out that is scheduled takes this change with it
            merchant.timer.cancel()  # a resync is scheduled, and this change must not wait for it
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
        if self.on_start is not None and newest.id is not None and newest.reason is None:
            self.on_start(newest.id.entry_id)
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        """Write for one slice, and go on after the event loop has had its turn.

        Merchants that fan out at the same time take turns.

        https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_soon
        """
        self._is_writing = True
        look_at_clock = self._clock.time
        deadline = look_at_clock() + SLICE_S
        while self._active:
            fan_out = self._active.popleft()
            self._write_some(fan_out)
            if fan_out.position < len(fan_out.recipients):
                self._active.append(fan_out)
            else:
                self._finish(fan_out)
            if look_at_clock() >= deadline and self._active:
                self._clock.call_soon(self._write)
                return
        self._is_writing = False

    def _write_some(self, fan_out: FanOut[FrameT]) -> None:
        frame, oldest = fan_out.frame, fan_out.oldest
        stop = fan_out.position + _WRITES_PER_LOOK
        for subscription in fan_out.recipients[fan_out.position : stop]:
            # Offered unless the connection is joining, blocked or ended, or has settled a part of
            # this frame by comparing IDs.
            if not (
                subscription.is_flowing
                and subscription.version < oldest
                and subscription.sink.offer(frame)
            ):
                fan_out.missed += 1
                self._leave_pending(subscription, fan_out.refreshes)
        fan_out.position = stop

    def _leave_pending(
        self, subscription: Subscription[FrameT], refreshes: Sequence[Refresh]
    ) -> None:
        """Leave refreshes pending that a recipient was not handed."""
        if subscription.state is ENDED:
            return  # the connection ended during the fan-out, and nothing is owed to it
        owed = [refresh for refresh in refreshes if refresh.version > subscription.version]
        for refresh in owed:
            self._tally.merged += merge_into(subscription.pending, refresh)
        if subscription.state is not FLOWING:
            # Nothing is offered to a connection before it is admitted, or before it has drained.
            self._tally.skipped += len(owed)
        elif subscription.version < refreshes[0].version:
            # The frame was offered, and the sink refused it.
            self._tally.skipped += len(owed)
            self._block(subscription)
        elif owed:
            # The connection joined between these changes. The frame would deliver again what
            # comparing IDs has settled, so this connection gets a frame of its own.
            self.offer_pending(subscription)
        # Otherwise the connection joined after all of these changes, and is owed none.

    def _finish(self, fan_out: FanOut[FrameT]) -> None:
        merchant = fan_out.merchant
        merchant.fan_out = None
        handed = len(fan_out.recipients) - fan_out.missed
        self._tally.written += handed * len(fan_out.refreshes)
        now = merchant.fanned_out_at = self._clock.time()
        # Fan-outs are never back to back: a long one leaves as much time again to other merchants.
        rest_s = min(now - fan_out.started_at, _LONGEST_REST_S)
        merchant.next_fan_out_at = max(fan_out.started_at + self._refresh_interval_s, now + rest_s)
        # Changes that were published during this fan-out wait for the next one. If no connection is
        # left, the hub has dropped the merchant, and there is no one to write to.
        if merchant.pending and merchant.subscriptions:
            self._schedule(merchant)
