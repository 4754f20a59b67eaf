"""How every event stream opens, whichever way it is written: ``ready``, then what is owed.

Knows the hub, the archive, and what a client is owed. Does not know how bytes reach the client.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import secrets

from sse_push.access.grant import Grant
from sse_push.errors import EndReason
from sse_push.event_stream.gaps import Gap
from sse_push.event_stream.resume import owed
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.wire import Frame, encode_ready
from sse_push.hub import Refresh, Sink, State
from sse_push.notification import EntryId, EventId

logger = logging.getLogger(__name__)

_connection_numbers = itertools.count(1)


@functools.cache
def _process_name(_pid: int) -> str:
    """Return what distinguishes a process from any other, now and later, on any machine."""
    return secrets.token_hex(4)


class _NamingSink:
    """The way to a client whose IDs name their merchant."""

    __slots__ = ("_merchant_id", "_sink")

    def __init__(self, merchant_id: str, sink: Sink[Frame]) -> None:
        self._merchant_id = merchant_id
        self._sink = sink

    def offer(self, frame: Frame) -> bool:
        return self._sink.offer(frame.named(self._merchant_id))

    def end(self, reason: EndReason) -> None:
        self._sink.end(reason)


class Opening:
    """A connection's place in the hub, and the first bytes of its event stream.

    The place is taken before Redis is asked: a change that is published meanwhile is not lost.

    Raises:
        Unauthorized: the grant was revoked.
    """

    def __init__(
        self,
        streams: EventStreams,
        grant: Grant,
        sink: Sink[Frame],
        last_event_id: str | None,
        *,
        is_named: bool,
    ) -> None:
        """Take the place; ``is_named``: the IDs that the client gets name their merchant."""
        self._is_named = is_named
        if is_named:
            sink = _NamingSink(grant.merchant_id, sink)
        self.subscription = streams.hub.subscribe(grant, sink)
        self._streams = streams
        self._last_event_id = last_event_id
        self._newest: EventId | None = None
        """The newest ID, if the client is owed nothing up to it."""
        self._waiting: asyncio.Task[None] | None = None
        """Waits for Redis."""
        self._is_late = False
        """The first bytes are written before Redis has answered."""

    async def first_bytes(self) -> bytes:
        """Return the first bytes to write, within ``arm_timeout_s``: proxies flush on them.

        If Redis has not answered by then, they are a ``ready`` without ID; what is owed is offered
        to the sink when Redis has answered.
        """
        streams, subscription = self._streams, self.subscription
        is_armed = subscription.merchant.is_armed
        gap = self._compare() if is_armed else None
        if gap is not None or not is_armed:
            await self._wait(gap)
        frame = streams.hub.first_frame(subscription)
        merchant_id = subscription.merchant.id
        ready = encode_ready(
            merchant_id,
            retry_ms=streams.jittered_retry_ms(),
            heartbeat_s=streams.heartbeat_s,
            connection_id=f"{_process_name(os.getpid())}-{next(_connection_numbers)}",
            newest=self._newest,
            is_named=self._is_named,
        )
        if frame is None:
            return ready
        return ready + (frame.named(merchant_id) if self._is_named else frame).body

    async def close(self) -> None:
        """Give up the place, and stop waiting for Redis."""
        self._streams.hub.unsubscribe(self.subscription)
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait([self._waiting])

    def _compare(self) -> Gap | None:
        """Compare the last event ID with the newest ID that was read.

        Goes live with what is owed; or returns the gap that the archive must fill before that.
        """
        newest = self._streams.hub.settle(self.subscription)
        result = owed(self._last_event_id, newest, self.subscription.version)
        if isinstance(result, EntryId):
            assert newest is not None, "an ID can only be older than another ID"
            return Gap(result, newest)
        self._go_live(newest, result)
        return None

    def _go_live(self, newest: EventId | None, refreshes: tuple[Refresh, ...]) -> None:
        # An ID moves the client forward: ``ready`` has one only if nothing up to it is owed.
        self._newest = None if refreshes else newest
        self._streams.hub.admit(self.subscription, refreshes)

    async def _wait(self, gap: Gap | None) -> None:
        """Wait for Redis for at most ``arm_timeout_s``; after that the task waits alone."""
        name = f"join {self.subscription.merchant.id}"
        self._waiting = asyncio.create_task(self._join(gap), name=name)
        await asyncio.wait([self._waiting], timeout=self._streams.arm_timeout_s)
        self._is_late = not self._waiting.done()
        self._waiting.add_done_callback(self._check)
        if not self._is_late:
            self._waiting.result()

    async def _join(self, gap: Gap | None) -> None:
        """Go live as soon as Redis has answered.

        Without a gap, the merchant's stream has not been read yet: reading it may show one.
        """
        hub, subscription = self._streams.hub, self.subscription
        if gap is None:
            armed = asyncio.Event()
            hub.when_armed(subscription, armed.set)
            await armed.wait()
            if subscription.state is State.ENDED:
                return
            gap = self._compare()
        if gap is not None:
            # Changes from now on are pending until the answer: they follow what was missed.
            merchant = subscription.merchant
            version = subscription.version
            refreshes = await self._streams.gaps.refreshes(merchant, merchant.id, version, gap)
            # Without entries in the gap that say something, the client has missed nothing.
            self._go_live(gap.end, refreshes)
        if self._is_late:
            hub.drained(subscription)

    def _check(self, waiting: asyncio.Task[None]) -> None:
        """End a connection whose joining has failed late: it would get nothing but heartbeats.

        A failure before the first bytes is raised by ``first_bytes``.
        """
        if self._is_late and not waiting.cancelled() and waiting.exception() is not None:
            logger.error("joining failed, ending the stream", exc_info=waiting.exception())
            self._streams.hub.end(self.subscription, EndReason.FAILED)
