"""How every event stream opens, whichever way it is written: ``ready``, then what is owed.

Knows the hub, and when a client goes live. Does not know how what it is owed is found
(``comparison``), nor how bytes reach the client.
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
from sse_push.event_stream.comparison import Comparison, Owed
from sse_push.event_stream.gaps import Gap
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.wire import Frame, encode_ready
from sse_push.hub import Sink
from sse_push.notification import EventId

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
        self._comparison = Comparison(streams.hub, streams.gaps, self.subscription, last_event_id)
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
        found = self._comparison.at_once()
        if isinstance(found, Owed):
            self._go_live(found)
        else:
            await self._wait(found)
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

    def _go_live(self, owed: Owed) -> None:
        # An ID moves the client forward: ``ready`` has one only if nothing up to it is owed.
        self._newest = None if owed.refreshes else owed.newest
        self._streams.hub.admit(self.subscription, owed.refreshes)

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
        """Go live as soon as Redis has answered."""
        owed = await self._comparison.result(gap)
        if owed is None:
            return
        self._go_live(owed)
        if self._is_late:
            self._streams.hub.drained(self.subscription)

    def _check(self, waiting: asyncio.Task[None]) -> None:
        """End a connection whose joining has failed late: it would get nothing but heartbeats.

        A failure before the first bytes is raised by ``first_bytes``.
        """
        if self._is_late and not waiting.cancelled() and waiting.exception() is not None:
            logger.error("joining failed, ending the stream", exc_info=waiting.exception())
            self._streams.hub.end(self.subscription, EndReason.FAILED)
