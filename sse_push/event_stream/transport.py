"""The fast way to write an event stream: straight to the transport of a connection.

Knows transports, flow control, and what it needs of the server's side of a request. Does not know
which server that is, nor what is written.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Literal, NotRequired, Protocol, TypedDict

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sse_push.errors import EndReason
from sse_push.event_stream.listening import Listening
from sse_push.event_stream.opening import Opening
from sse_push.event_stream.shared import HEADERS, EventStreams, cut_time
from sse_push.event_stream.wire import MEDIA_TYPE, Frame

logger = logging.getLogger(__name__)

_RAW_HEADERS = [
    (name.lower().encode(), value.encode())
    for name, value in {**HEADERS, "Content-Type": MEDIA_TYPE, "Connection": "close"}.items()
]


class _Flow(Protocol):
    """The flow control of a connection."""

    write_paused: bool


class _Transport(Protocol):
    """The part of ``asyncio.Transport`` that is used here."""

    def write(self, data: bytes, /) -> None:
        """Write without waiting."""

    def abort(self) -> None:
        """Close the connection at once; the bytes in its buffer are lost."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Pause the flow while more than ``high`` bytes are in the buffer."""

    def get_extra_info(self, name: str) -> socket.socket | None:
        """Return the ``socket``, if there is one."""


class _Body(TypedDict):
    """https://asgi.readthedocs.io/en/latest/specs/www.html#response-body-send-event."""

    type: Literal["http.response.body"]
    body: bytes
    more_body: NotRequired[bool]


class Cycle(Protocol):
    """The server's side of a request: the part of uvicorn's request cycle that is used here."""

    disconnected: bool

    @property
    def flow(self) -> _Flow:
        """The flow control of the connection."""

    @property
    def transport(self) -> _Transport:
        """The transport of the connection."""

    async def send(self, message: _Body, /) -> None:
        """Write a part of the response; wait while the flow is paused."""


class State(Enum):
    """How far the response of a ``TransportStream`` is."""

    # Enum's own hash is a Python function, which doubles the cost of a change of state.
    __hash__ = object.__hash__

    OPENING = auto()
    """The head and the first bytes are being sent."""
    OPEN = auto()
    """Frames are written straight to the transport."""
    DRAINING = auto()
    """The client takes no bytes: a task waits until it does."""
    ENDING = auto()
    """The head and the first bytes are being sent, and the goodbye follows them."""
    FINISHING = auto()
    """A task sends the goodbye and the end of the response, or has sent them."""
    CUT = auto()
    """The connection is aborted."""


# Names of this module: an enum's member costs a second lookup, once per frame and connection.
OPENING, OPEN, DRAINING, ENDING, FINISHING, CUT = State

TRANSITIONS: dict[State, set[State]] = {
    OPENING: {OPEN, ENDING, CUT},
    OPEN: {DRAINING, FINISHING, CUT},
    DRAINING: {OPEN, FINISHING, CUT},
    ENDING: {FINISHING},
    FINISHING: {CUT},
    CUT: set(),
}
"""The states that may follow each state."""


class TransportStream(Response):
    """The fast way: the hub writes to the transport, and wakes no task for it.

    The response has ``Connection: close``, so that no other response follows on its connection. The
    transport is written to only while flow control is open and no ``send`` of this response is
    waiting, so that no bytes overtake others.

    =========  ===========================================  ==========
    state      event                                        next state
    =========  ===========================================  ==========
    OPENING    the first bytes are sent                     OPEN
    OPENING    ``end``                                      ENDING
    OPEN       ``offer`` while flow control is closed       DRAINING
    DRAINING   the client takes bytes again                 OPEN
    OPEN       ``end``                                      FINISHING
    DRAINING   ``end``                                      FINISHING
    ENDING     the first bytes are sent                     FINISHING
    FINISHING  the client does not take the goodbye         CUT
    not ended  ``end`` of a stalled client                  CUT
    any        a task of this response fails                CUT
    =========  ===========================================  ==========

    When the client disconnects, which it may in any state, ``__call__`` returns.
    """

    status_code = 200
    background = None

    def __init__(self, streams: EventStreams, listening: Listening, cycle: Cycle) -> None:
        self.raw_headers = _RAW_HEADERS
        self.state = OPENING
        self._streams = streams
        self._listening = listening
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._opening: Opening | None = None
        self._cut_at = math.inf
        """When the connection is cut off at the latest, by the event loop's clock."""
        self._task: asyncio.Task[None] | None = None
        """Waits in ``send`` while ``DRAINING`` or ``FINISHING``."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client disconnects, or until ``end`` has completed the response."""
        opening = self._opening = Opening(self._streams, self._listening, self)
        self._cut_at = opening.subscription.expires_at
        try:
            self._bound_buffers()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(await opening.first_bytes())
            self._opened()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            await opening.close()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            # The subscription refers to this response: a cycle for the garbage collector.
            self._opening = None

    def offer(self, frame: Frame) -> bool:
        """Write a frame if the client takes bytes; the hub calls this for each delivery."""
        if self.state is not OPEN:
            return False
        if self._cycle.disconnected:
            return True  # a client that is gone misses nothing; ``__call__`` is about to return
        if self._flow.write_paused:
            self._become(DRAINING)
            self._start(self._drain(), "drain")
            return False
        self._write(frame.chunk)
        return True

    def end(self, reason: EndReason) -> None:
        """Complete the response with a goodbye, or cut off a client that takes no bytes."""
        self._cut_at = cut_time(reason, self._cut_at)
        if reason is EndReason.STALLED:
            # The client has taken no bytes for ``send_timeout_s``: it would not take a goodbye.
            logger.debug("client takes no bytes merchant_id=%s", self._listening)
            self._cut()
        elif self.state is OPENING:
            # The server's ``send`` still has the first bytes; the goodbye follows them.
            self._become(ENDING)
            if reason in (EndReason.TOKEN_EXPIRED, EndReason.REVOKED):
                # A client without a grant must not get the first bytes at any later time.
                loop = asyncio.get_running_loop()
                loop.call_at(self._cut_at, self._cycle.transport.abort)
        elif self.state is not CUT:
            # No ``send`` waits, or only that of a drain, whose place the goodbye takes.
            self._finish(reason)

    def _become(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state.name} does not become {state.name}"
        self.state = state

    def _opened(self) -> None:
        assert self._opening is not None, "opened while subscribed"
        if self.state is ENDING:
            self._finish(self._opening.subscription.end_reason)
        elif self.state is not CUT:
            self._become(OPEN)
            self._opening.drained()

    def _finish(self, reason: EndReason) -> None:
        self._become(FINISHING)
        self._start(self._send_goodbye(reason), "finish")

    def _cut(self) -> None:
        if self.state is not CUT:
            self._become(CUT)
            self._cycle.transport.abort()

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(work, name=f"{name} {self._listening}")
        self._task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        """Cut off a client whose task has failed: nothing would be written to it again."""
        if not task.cancelled() and task.exception() is not None:
            logger.error("writing failed, cutting the stream", exc_info=task.exception())
            if self._opening is not None:
                self._opening.subscription.end_reason = EndReason.FAILED
            self._cut()

    async def _send(self, body: bytes, *, more_body: bool = True) -> None:
        # The server's own ``send``, which waits while the client takes no bytes.
        await self._cycle.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def _drain(self) -> None:
        await self._send(b"")
        self._opened()

    async def _send_goodbye(self, reason: EndReason) -> None:
        loop = asyncio.get_running_loop()
        deadline = min(loop.time() + self._streams.send_timeout_s, self._cut_at)
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(self._streams.goodbye(reason), more_body=False)
        except TimeoutError:
            self._cut()
            return
        # The transport closes once its buffer is empty; a client that does not read keeps it open.
        loop.call_at(deadline, self._cycle.transport.abort)

    def _bound_buffers(self) -> None:
        transport = self._cycle.transport
        # What the kernel does not take must wait in the hub, where newer refreshes replace older.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            # Unlike TCP's, a Unix socket's buffer size is not inherited from the listening socket.
            size_bytes = self._streams.send_buffer_bytes
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)
