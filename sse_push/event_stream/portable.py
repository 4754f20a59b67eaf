"""The portable way to write an event stream: sse-starlette's response, for any ASGI server.

Knows sse-starlette. Does not know the server, nor its transport.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator

from sse_starlette.sse import AppStatus, EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from sse_push.errors import EndReason
from sse_push.event_stream.listening import Listening
from sse_push.event_stream.opening import Opening
from sse_push.event_stream.shared import HEADERS, EventStreams, cut_time
from sse_push.event_stream.wire import Frame

logger = logging.getLogger(__name__)


def keep_streams_at_shutdown() -> None:
    """Let the hub end the portable event streams of this process, each with a goodbye.

    sse-starlette would cancel all of them as soon as the server begins to stop. Call this once,
    when the process starts.
    """
    AppStatus.disable_automatic_graceful_drain()


class PortableStream(EventSourceResponse):
    """The portable way: a generator waits for frames, and sse-starlette sends them.

    The generator holds at most one frame. Refreshes of frames that it refuses are pending in the
    hub.
    """

    def __init__(self, streams: EventStreams, listening: Listening) -> None:
        super().__init__(
            self._events(),
            headers=HEADERS,
            sep="\n",
            ping=0,  # the hub offers its heartbeats like any other frame
            send_timeout=streams.send_timeout_s,
        )
        del self.headers["connection"]  # the server decides, and HTTP/2 has no such header
        self._streams = streams
        self._listening = listening
        self._opening: Opening | None = None
        self._cut: asyncio.Timeout | None = None
        self._end_reason: EndReason | None = None
        self._frame: Frame | None = None
        self._is_waiting = False
        """The generator waits for a frame, or for the end."""
        self._changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client disconnects, or until ``end`` has completed the response."""
        # Opened here: the generator never starts if the client disconnects at once.
        opening = self._opening = Opening(self._streams, self._listening, self)
        expires_at = opening.subscription.expires_at
        self._cut = asyncio.timeout_at(None if expires_at == math.inf else expires_at)
        try:
            async with self._cut:
                await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.debug("client takes no bytes merchant_id=%s", self._listening)
            self._streams.hub.end(opening.subscription, EndReason.STALLED)
        except TimeoutError:
            logger.debug("token expired merchant_id=%s", self._listening)
        finally:
            await opening.close()
            # The subscription refers to this response: a cycle for the garbage collector.
            self._opening = None

    def offer(self, frame: Frame) -> bool:
        """Hand one frame to the generator, if it is waiting for a frame."""
        if not self._is_waiting or self._frame is not None:
            return False
        self._frame = frame
        self._changed.set()
        return True

    def end(self, reason: EndReason) -> None:
        """Let the generator yield a goodbye and return."""
        self._end_reason = reason
        self._changed.set()
        assert self._cut is not None, "ended after it was called"
        if reason is EndReason.REVOKED and not self._cut.expired():
            at = self._cut.when()
            self._cut.reschedule(cut_time(reason, math.inf if at is None else at))

    async def _events(self) -> AsyncGenerator[bytes]:
        opening = self._opening
        assert opening is not None, "iterated after it was called"
        yield await opening.first_bytes()
        while (frame := await self._next(opening)) is not None:
            yield frame.body
        assert self._end_reason is not None, "without a frame, it has ended"
        yield self._streams.goodbye(self._end_reason)

    async def _next(self, opening: Opening) -> Frame | None:
        self._is_waiting = True
        opening.drained()  # which may offer a frame at once
        while self._frame is None and self._end_reason is None:
            self._changed.clear()
            await self._changed.wait()
        self._is_waiting = False
        frame, self._frame = self._frame, None
        return frame
