"""The event stream of one connection: its beginning, its end, and the way of its bytes.

Knows the two ways to write one: to any ASGI server by sse-starlette's response, and straight to
the transport under uvicorn. Does not know Redis, the form of an event, nor who may listen.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import secrets
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Literal, NotRequired, Protocol, TypedDict

from sse_starlette.sse import AppStatus, EventSourceResponse, SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sse_push.access.grant import Grant
from sse_push.errors import EndReason, InvalidEntryId, Occasion
from sse_push.event_stream.wire import MEDIA_TYPE, Frame, encode_goodbye, encode_ready
from sse_push.hub import Hub, Refresh, State, Subscription
from sse_push.notification import Entry, EntryId
from sse_push.runtime.uvicorn import take_over

logger = logging.getLogger(__name__)

HEADERS = {
    # no-transform: a proxy that compresses holds events back.
    "Cache-Control": "no-store, no-transform",
    # https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    "X-Accel-Buffering": "no",
}

SOFT_ANSWER_HEADER = "X-Sse-Push-Soft-Answer"
"""Marks a 200 that serves nothing, for monitoring; nginx sets it on its own as well."""


# -- where a client stands


def owed(
    last_event_id: str | None, newest: EntryId | None, version: int
) -> tuple[Refresh, ...] | EntryId:
    """Compare a last event ID with the newest ID that was read.

    Returns what is owed: nothing, or one refresh; or, if the client's ID is older, that ID, since
    only the stream can say what came after it. ``None`` and the empty text both mean that there
    is no last event ID: the page may have been rendered before the last change.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
    """
    if not last_event_id:
        return (Refresh(version, newest, reason="connected"),)
    try:
        seen = EntryId.parse(last_event_id)
    except InvalidEntryId:
        return (missed(newest, version),)
    if newest is not None and seen == newest:
        return ()
    if newest is not None and seen < newest:
        return seen
    return (missed(newest, version),)  # the stream is gone, or its history is another one


def missed(newest: EntryId | None, version: int) -> Refresh:
    """Return the refresh that is owed to a client of whose gap nothing is known."""
    return Refresh(version, newest, reason="missed")


def missed_topics(entries: Iterable[Entry], version: int) -> tuple[Refresh, ...]:
    """Return what is owed for entries that a client has missed, all of them known."""
    return tuple(
        Refresh(version, entry.id, told.topic, told.data, told.by, "missed")
        for entry in entries
        for told in (entry.notification,)
    )


class Archive(Protocol):
    """Where to look up what came between two IDs."""

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``; None if they are not all known."""


# -- one connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """What all event streams of a process share."""

    hub: Hub[Frame]
    archive: Archive
    heartbeat_s: float
    retry_ms: int
    soft_retry_min_ms: int
    soft_retry_max_ms: int
    send_timeout_s: float
    send_buffer_bytes: int
    arm_timeout_s: float = 0.5
    soft_answers: Counter[EndReason] = field(
        default_factory=lambda: Counter(dict.fromkeys(EndReason.on(Occasion.SOFT_ANSWER), 0))
    )
    """How many were given so far, by reason."""

    def jittered_retry_ms(self) -> int:
        """Return a reconnection time, half to one and a half of ``retry_ms``."""
        return round(self.retry_ms * random.uniform(0.5, 1.5))  # noqa: S311 (spreads load)

    def soft_answer(self, reason: EndReason) -> Response:
        """Answer a client that cannot be served now, so that an EventSource comes back later.

        It keeps its last event ID; after any status but 200 it would never come back.
        """
        self.soft_answers[reason] += 1
        logger.debug("not served reason=%s", reason.value)
        retry_ms = random.randint(self.soft_retry_min_ms, self.soft_retry_max_ms)  # noqa: S311
        return Response(
            encode_goodbye(reason.value, retry_ms),
            headers={**HEADERS, SOFT_ANSWER_HEADER: "1"},
            media_type=MEDIA_TYPE,
        )

    def open(
        self, scope: Scope, grant: Grant, last_event_id: str | None
    ) -> TransportStream | PortableStream:
        """Return the response that streams to this client, by the fastest way there is."""
        cycle = take_over(scope)
        if cycle is None:
            return PortableStream(self, grant, last_event_id)
        return TransportStream(self, grant, last_event_id, cycle)


_REVOKED_GRACE_S = 0.5
"""What a client whose grant is revoked has not taken after this, it does not get."""

_PROCESS_ID = secrets.token_hex(4)
_connection_numbers = itertools.count(1)


class _Beginning:
    """How every stream begins, whichever way it is written: ready, then what is owed."""

    def __init__(
        self, streaming: Streaming, subscription: Subscription[Frame], last_event_id: str | None
    ) -> None:
        self._streaming = streaming
        self._subscription = subscription
        self._last_event_id = last_event_id
        self._newest: EntryId | None = None
        """The newest ID, if nothing is owed up to it."""
        self._is_late = False
        self._late: asyncio.Task[None] | None = None

    async def first_bytes(self) -> bytes:
        """Return what to write at once: proxies flush on it.

        If Redis has not answered in time, it is only ``ready``, without ID; what is owed follows
        through the sink when Redis has answered.
        """
        streaming, subscription = self._streaming, self._subscription
        if not self._settle_at_once():
            name = f"join {subscription.merchant.id}"
            self._late = asyncio.create_task(self._settle(), name=name)
            await asyncio.wait([self._late], timeout=streaming.arm_timeout_s)
            self._is_late = not self._late.done()
            self._late.add_done_callback(self._check)
            if not self._is_late:
                self._late.result()
        frame = streaming.hub.first_frame(subscription)
        ready = encode_ready(
            subscription.merchant.id,
            retry_ms=streaming.jittered_retry_ms(),
            heartbeat_s=streaming.heartbeat_s,
            connection_id=f"{_PROCESS_ID}-{next(_connection_numbers)}",
            newest=self._newest,
        )
        return ready if frame is None else ready + frame.body

    async def close(self) -> None:
        """Stop waiting for Redis."""
        if self._late is not None:
            self._late.cancel()
            await asyncio.wait([self._late])

    def _check(self, late: asyncio.Task[None]) -> None:
        """End a stream that would be deaf: its joining has failed, so it would never go live."""
        if self._is_late and not late.cancelled() and late.exception() is not None:
            logger.error("joining failed, ending the stream", exc_info=late.exception())
            self._streaming.hub.end(self._subscription, EndReason.FAILED)

    def _settle_at_once(self) -> bool:
        """Compare, and go live, if that can be done without waiting for Redis."""
        if not self._subscription.merchant.is_armed:
            return False
        newest = self._streaming.hub.settle(self._subscription)
        result = owed(self._last_event_id, newest, self._subscription.version)
        if isinstance(result, EntryId):
            return False
        self._admit(newest, result)
        return True

    async def _settle(self) -> None:
        """Wait for Redis, compare, and go live."""
        hub, subscription = self._streaming.hub, self._subscription
        armed = asyncio.Event()
        hub.when_armed(subscription, armed.set)
        await armed.wait()
        if subscription.state is State.ENDED:
            return
        newest = hub.settle(subscription)
        version = subscription.version
        result = owed(self._last_event_id, newest, version)
        if isinstance(result, EntryId):
            assert newest is not None, "an ID is older than another only if there is one"
            merchant_id = subscription.merchant.id
            entries = await self._streaming.archive.between(merchant_id, result, newest)
            result = missed_topics(entries, version) if entries else (missed(newest, version),)
        self._admit(newest, result)
        if self._is_late:
            hub.drained(subscription)

    def _admit(self, newest: EntryId | None, refreshes: tuple[Refresh, ...]) -> None:
        self._newest = None if refreshes else newest
        self._streaming.hub.admit(self._subscription, refreshes)


_RAW_HEADERS = [
    (name.lower().encode(), value.encode())
    for name, value in {**HEADERS, "Content-Type": MEDIA_TYPE, "Connection": "close"}.items()
]


class _Flow(Protocol):
    """Whether the transport accepts bytes."""

    write_paused: bool


class _Transport(Protocol):
    """The part of ``asyncio.Transport`` that is used here."""

    def write(self, data: bytes, /) -> None:
        """Write without waiting."""

    def abort(self) -> None:
        """Close the connection at once; what is in the buffer is lost."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Pause the flow when more bytes than this wait in the buffer."""

    def get_extra_info(self, name: str) -> socket.socket | None:
        """Return the ``socket``, if there is one."""


class _Body(TypedDict):
    """An ASGI message."""

    type: Literal["http.response.body"]
    body: bytes
    more_body: NotRequired[bool]


class Cycle(Protocol):
    """The part of uvicorn's ``RequestResponseCycle`` that is used here."""

    disconnected: bool

    @property
    def flow(self) -> _Flow:
        """The flow control of the connection."""

    @property
    def transport(self) -> _Transport:
        """The transport of the connection."""

    async def send(self, message: _Body, /) -> None:
        """Write a part of the response; wait while the flow is paused."""


class TransportStream(Response):
    """The fast way: the hub writes straight to uvicorn's transport, and wakes no task for it.

    The response says ``Connection: close``, so that its socket never carries another one; and the
    transport is written to only while uvicorn's flow control is open and no ``send`` of ours is
    waiting, so that nothing overtakes anything.
    """

    status_code = 200
    background = None

    def __init__(
        self,
        streaming: Streaming,
        grant: Grant,
        last_event_id: str | None,
        cycle: Cycle,
    ) -> None:
        self.raw_headers = _RAW_HEADERS
        self._streaming = streaming
        self._grant = grant
        self._last_event_id = last_event_id
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._subscription: Subscription[Frame] | None = None
        self._cut_at = math.inf
        """What the client has not taken until then, by the event loop's clock, it does not get."""
        self._end_reason: EndReason | None = None
        self._is_open = False
        """The first bytes are out, and nothing of ours waits in ``send``."""
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client leaves or ``end`` is called."""
        hub = self._streaming.hub
        self._subscription = hub.subscribe(self._grant, self)
        self._cut_at = self._subscription.expires_at
        beginning = _Beginning(self._streaming, self._subscription, self._last_event_id)
        try:
            self._bound_buffers()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(await beginning.first_bytes())
            self._opened()
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            hub.unsubscribe(self._subscription)
            await beginning.close()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._subscription = None  # it holds us: together they would wait for the collector

    def offer(self, frame: Frame) -> bool:
        """Write one chunk; the hub's way in, called for each delivery."""
        if not self._is_open:
            return False
        if self._cycle.disconnected:
            return True  # nobody is there to miss it; our task is about to be told
        if self._flow.write_paused:
            self._is_open = False
            self._start(self._drain(), "drain")
            return False
        self._write(frame.chunk)
        return True

    def end(self, reason: EndReason) -> None:
        """Complete the response with a goodbye, or cut off a client that takes no bytes."""
        self._end_reason = reason
        loop = asyncio.get_running_loop()
        if reason is EndReason.REVOKED:
            self._cut_at = min(self._cut_at, loop.time() + _REVOKED_GRACE_S)
        if reason is EndReason.STALLED:
            logger.debug("client takes no bytes merchant_id=%s", self._grant.merchant_id)
            self._cycle.transport.abort()
        elif self._is_open or self._task is not None:
            self._is_open = False
            self._start(self._finish(reason), "finish")
        elif reason in (EndReason.TOKEN_EXPIRED, EndReason.REVOKED):
            # The first bytes are being written, and _opened comes next, or it is too late for it.
            loop.call_at(self._cut_at, self._cycle.transport.abort)
        # else: _opened comes next

    def _opened(self) -> None:
        if self._end_reason is not None:
            self._start(self._finish(self._end_reason), "finish")
            return
        self._is_open = True
        assert self._subscription is not None, "opened after it was subscribed"
        self._streaming.hub.drained(self._subscription)

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(work, name=f"{name} {self._grant.merchant_id}")
        self._task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        """Cut off a stream whose writing has failed: it would never be written to again."""
        if not task.cancelled() and task.exception() is not None:
            logger.error("writing failed, cutting the stream", exc_info=task.exception())
            if self._subscription is not None:
                self._subscription.end_reason = EndReason.FAILED
            self._cycle.transport.abort()

    async def _send(self, body: bytes, *, more_body: bool = True) -> None:
        # The server's own send: it waits while the client takes no bytes.
        await self._cycle.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def _drain(self) -> None:
        await self._send(b"")
        self._opened()

    async def _finish(self, reason: EndReason) -> None:
        goodbye = encode_goodbye(reason.value, self._streaming.jittered_retry_ms())
        loop = asyncio.get_running_loop()
        deadline = min(loop.time() + self._streaming.send_timeout_s, self._cut_at)
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(goodbye, more_body=False)
        except TimeoutError:
            self._cycle.transport.abort()
            return
        # The transport closes once its buffer is empty, which needs a client that reads.
        loop.call_at(deadline, self._cycle.transport.abort)

    def _bound_buffers(self) -> None:
        transport = self._cycle.transport
        # What the kernel does not take belongs into the slot, where newer replaces older.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            # Unlike TCP's, a Unix socket's buffer size is not inherited from the listening one.
            size_bytes = self._streaming.send_buffer_bytes
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)


class PortableStream(EventSourceResponse):
    """The portable way: sse-starlette's response over a generator, for any ASGI server.

    All generators of a process share one tail and one hub: each waits for its subscription's slot,
    none for Redis.
    """

    def __init__(self, streaming: Streaming, grant: Grant, last_event_id: str | None) -> None:
        super().__init__(
            self._events(),
            headers=HEADERS,
            sep="\n",
            ping=0,  # the hub's heartbeats come through the slot like everything else
            send_timeout=streaming.send_timeout_s,
        )
        # Our drain ends each stream with a goodbye; the library would cancel them all at once.
        AppStatus.disable_automatic_graceful_drain()
        self._streaming = streaming
        self._grant = grant
        self._last_event_id = last_event_id
        self._subscription: Subscription[Frame] | None = None
        self._cut: asyncio.Timeout | None = None
        self._end_reason: EndReason | None = None
        self._frame: Frame | None = None
        self._is_waiting = False
        self._changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client leaves or ``end`` is called."""
        hub = self._streaming.hub
        # Here and not in the generator, which never starts if the client leaves at once.
        self._subscription = hub.subscribe(self._grant, self)
        expires_at = self._subscription.expires_at
        # What the client has not taken when its token expires, it does not get.
        self._cut = asyncio.timeout_at(None if expires_at == math.inf else expires_at)
        try:
            async with self._cut:
                await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.debug("client takes no bytes merchant_id=%s", self._grant.merchant_id)
            hub.end(self._subscription, EndReason.STALLED)
        except TimeoutError:
            logger.debug("token expired merchant_id=%s", self._grant.merchant_id)
        finally:
            hub.unsubscribe(self._subscription)
            self._subscription = None  # it holds us: together they would wait for the collector

    def offer(self, frame: Frame) -> bool:
        """Hand one frame to the generator, if it is waiting for one."""
        if not self._is_waiting or self._frame is not None:
            return False
        self._frame = frame
        self._changed.set()
        return True

    def end(self, reason: EndReason) -> None:
        """Let the generator say goodbye and return."""
        self._end_reason = reason
        self._changed.set()
        if reason is EndReason.REVOKED and self._cut is not None and not self._cut.expired():
            cut_at = asyncio.get_running_loop().time() + _REVOKED_GRACE_S
            at = self._cut.when()
            self._cut.reschedule(cut_at if at is None else min(at, cut_at))

    async def _events(self) -> AsyncGenerator[bytes]:
        assert self._subscription is not None, "iterated after it was called"
        beginning = _Beginning(self._streaming, self._subscription, self._last_event_id)
        try:
            yield await beginning.first_bytes()
            while (frame := await self._next(self._subscription)) is not None:
                yield frame.body
        finally:
            await beginning.close()
        if self._end_reason is not None:
            yield encode_goodbye(self._end_reason.value, self._streaming.jittered_retry_ms())

    async def _next(self, subscription: Subscription[Frame]) -> Frame | None:
        self._is_waiting = True
        self._streaming.hub.drained(subscription)  # which may offer at once
        while self._frame is None and self._end_reason is None:
            self._changed.clear()
            await self._changed.wait()
        self._is_waiting = False
        frame, self._frame = self._frame, None
        return frame
