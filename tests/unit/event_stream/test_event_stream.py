from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import re
import socket
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import Any, cast

import pytest
import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason, Unauthorized
from sse_push.event_stream.transport import (
    HEADERS,
    SOFT_ANSWER_HEADER,
    PortableStream,
    Streaming,
    TransportStream,
    missed,
    missed_topics,
    owed,
)
from sse_push.event_stream.wire import HEARTBEAT, Frame, encode_expiring, encode_refreshes
from sse_push.hub import Hub, Reason, Refresh, Subscription
from sse_push.notification import Change, Entry, EntryId, Notification
from sse_push.runtime.timer_wheel import Clock
from sse_push.runtime.uvicorn import SEND_SCOPE_KEY
from tests.harness.chunks import Dechunker
from tests.harness.clock import PACE, ManualClock, WatchList
from tests.harness.waiting import LATE_S, SECOND, until
from tests.simulation.simulation import ModelCycle

READY = (
    b'retry: 0\nevent: ready\ndata: {"merchant_id":"42","heartbeat_s":15,"connection_id":"?"}\n\n'
)
READY_AT_7 = READY.replace(b"event", b"id: 7-0\nevent", 1)
CONNECTED = b'event: refresh\ndata: {"merchant_id":"42","reason":"connected"}\n\n'
CONNECTED_AT_7 = b"id: 7-0\n" + CONNECTED
MISSED_AT_7 = b'id: 7-0\nevent: refresh\ndata: {"merchant_id":"42","reason":"missed"}\n\n'
REFRESH_8 = b'id: 8-0\nevent: refresh\ndata: {"merchant_id":"42","topic":"seats"}\n\n'
BEAT = b"event: heartbeat\ndata: {}\n\n"


def entry(number: int, topic: str | None = None, **fields: str) -> Entry:
    notification = Notification("42", topic, fields.get("data"), fields.get("by"))
    return Entry(EntryId(number, 0), notification)


def goodbye(reason: str) -> bytes:
    return b'retry: 0\nevent: goodbye\ndata: {"reason":"%b"}\n\n' % reason.encode()


def masked(body: bytes) -> bytes:
    """Hide what differs from connection to connection."""
    return re.sub(rb'"connection_id":"[0-9a-f]{8}-[0-9]+"', b'"connection_id":"?"', body)


async def turns(count: int = 20) -> None:
    """Let all that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- a service without Redis and sockets


class Shelf:
    """An archive that answers when it is told to."""

    def __init__(self) -> None:
        self.entries: tuple[Entry, ...] | None = None
        self.asked: list[tuple[str, EntryId, EntryId]] = []
        self.error: Exception | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        self.asked.append((merchant_id, start, end))
        await self.is_open.wait()
        if self.error is not None:
            raise self.error
        return self.entries


class Service:
    """What the streams of a process share, with a clock and a Redis that are moved by hand."""

    def __init__(
        self,
        *,
        retry_ms: int = 0,
        send_timeout_s: float = 15,
        arm_timeout_s: float = 0,
        clock: Clock | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.source = WatchList()
        self.shelf = Shelf()
        self.tasks: list[asyncio.Task[None]] = []
        self.hub: Hub[Frame] = Hub(
            encode=encode_refreshes,
            encode_expiring=encode_expiring,
            heartbeat=HEARTBEAT,
            pace=PACE,
            revocations=Revocations(3600, 5),
            clock=clock or self.clock,
        )
        self.hub.source = self.source
        self.streaming = Streaming(
            hub=self.hub,
            archive=self.shelf,
            heartbeat_s=15,
            retry_ms=retry_ms,
            soft_retry_min_ms=5000,
            soft_retry_max_ms=5003,
            send_timeout_s=send_timeout_s,
            send_buffer_bytes=16_384,
            arm_timeout_s=arm_timeout_s,
        )

    @property
    def subscriptions(self) -> list[Subscription[Frame]]:
        return [
            subscription
            for merchant in self.hub._merchants.values()
            for subscription in merchant.subscriptions
        ]

    def armed(self, newest: EntryId | None) -> None:
        self.hub.armed("42", newest)

    def change(self, number: int, topic: str | None = "seats") -> None:
        changed = entry(number, topic)
        self.hub.publish(Change("42", changed.id, (changed,)))

    def end(self, reason: EndReason) -> None:
        for subscription in self.subscriptions:
            self.hub.end(subscription, reason)

    def begin(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Answer one request, as a server does."""
        self.tasks.append(asyncio.create_task(call))
        return self.tasks[-1]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Cycle(ModelCycle):
    """A cycle of uvicorn's that also keeps the head, and messages that come before the end."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.head: Mapping[str, Any] = {}
        self.aborted = asyncio.Event()
        self.incoming: deque[dict[str, Any]] = deque()

    async def send(self, message: Mapping[str, Any]) -> None:
        await super().send(message)
        if message["type"] == "http.response.start":
            self.head = message

    async def receive(self) -> dict[str, Any]:
        return self.incoming.popleft() if self.incoming else await super().receive()

    def pause(self) -> None:
        """Let the kernel take no more; ``deliver`` makes it take bytes again."""
        self.flow.write_paused = True
        self.flow.is_writable.clear()

    def abort(self) -> None:
        self.aborted.set()
        super().abort()


class Socket:
    """What can be set of a socket."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.family = family
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self.options.append((level, name, value))


class CycleOfSocket(Cycle):
    """A cycle whose transport has a socket."""

    def __init__(self, sock: Socket) -> None:
        super().__init__(10**6)
        self.sock = sock

    def get_extra_info(self, name: str) -> Any:
        return self.sock if name == "socket" else None


class Browser:
    """A client of the fast way: what its socket would have brought so far."""

    def __init__(
        self,
        service: Service,
        last_event_id: str | None = None,
        cycle: Cycle | None = None,
        expires_at: float | None = None,
    ) -> None:
        self.cycle = cycle or Cycle(10**6)
        self.stream = TransportStream(
            service.streaming,
            Grant("42", expires_at),
            last_event_id,
            self.cycle,
        )
        call = self.stream({}, cast("Any", self.cycle.receive), cast("Any", self.cycle.send))
        self.task = service.begin(call)
        self._dechunker = Dechunker()
        self._heard = b""

    @property
    def heard(self) -> bytes:
        self._heard += self._dechunker.feed(self.cycle.deliver(10**6))
        return masked(self._heard)

    async def done(self) -> None:
        async with asyncio.timeout(5 * SECOND):
            await self.task


Serve = Callable[..., Service]


@pytest.fixture
async def serve() -> AsyncGenerator[Serve]:
    """Give out services, and close them; no stream's own task may have failed unheard."""
    services: list[Service] = []
    tasks: list[asyncio.Task[Any]] = []

    def start(**options: Any) -> Service:
        services.append(Service(**options))
        return services[-1]

    def keep(
        loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(call, loop=loop, **options))
        return tasks[-1]

    asyncio.get_running_loop().set_task_factory(cast("Any", keep))
    yield start
    for service in services:
        await service.close()
    own = [task for task in tasks if task.get_name().endswith(" 42") and task.done()]
    meant = {service.shelf.error for service in services} | {None}
    assert [each for each in own if not each.cancelled() and each.exception() not in meant] == []


@pytest.fixture
def service(serve: Serve) -> Service:
    return serve()


# -- what is owed


@pytest.mark.parametrize(
    ("last_event_id", "newest", "reason"),
    [
        (None, None, "connected"),
        ("", None, "connected"),
        (None, EntryId(7, 0), "connected"),
        ("", EntryId(7, 0), "connected"),
        ("7-0", EntryId(7, 0), None),
        ("07-00", EntryId(7, 0), None),
        ("7-0", None, "missed"),
        ("0-0", None, "missed"),
        ("7-1", EntryId(7, 0), "missed"),
        ("10-0", EntryId(9, 0), "missed"),
        ("0-0", EntryId(7, 0), "missed"),
        ("nonsense", EntryId(7, 0), "missed"),
        ("7-0\n", EntryId(7, 0), "missed"),
        (f"{2**64 - 1}-{2**64 - 1}", EntryId(7, 0), "missed"),
        (f"{2**64}-0", EntryId(7, 0), "missed"),
        ("\ud800", EntryId(7, 0), "missed"),
    ],
)
def test_what_a_client_is_owed(
    last_event_id: str | None, newest: EntryId | None, reason: Reason | None
) -> None:
    expected = () if reason is None else (Refresh(3, newest, reason=reason),)

    assert owed(last_event_id, newest, 3) == expected


@pytest.mark.parametrize("text", ["6-9", "0-1", "7-0"])
def test_of_an_older_id_only_the_stream_can_say_what_came_since(text: str) -> None:
    assert owed(text, EntryId(7, 1), 3) == EntryId.parse(text)


def test_what_was_missed_is_said_topic_by_topic_if_it_is_known() -> None:
    entries = [entry(1, "a", data="1", by="x"), entry(2)]

    assert missed_topics(entries, 3) == (
        Refresh(3, EntryId(1, 0), "a", "1", "x", "missed"),
        Refresh(3, EntryId(2, 0), reason="missed"),
    )
    assert missed(EntryId(2, 0), 3) == Refresh(3, EntryId(2, 0), reason="missed")


# -- what all streams share


async def test_reconnection_times_are_spread_by_half(serve: Serve) -> None:
    streaming = serve(retry_ms=2000).streaming

    times = {streaming.jittered_retry_ms() for _ in range(1000)}

    assert min(times) >= 1000
    assert max(times) <= 3000
    assert len(times) > 300


async def test_a_late_redis_is_waited_for_half_a_second() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(Streaming)}

    assert fields["arm_timeout_s"] == 0.5


async def test_whoever_cannot_be_served_is_told_to_come_back_later(service: Service) -> None:
    answers = [service.streaming.soft_answer(EndReason.SERVER_STOPPING) for _ in range(200)]

    retries = {bytes(answer.body).partition(b"\n")[0] for answer in answers}
    assert retries == {b"retry: 5000", b"retry: 5001", b"retry: 5002", b"retry: 5003"}
    assert answers[0].status_code == 200
    assert bytes(answers[0].body).partition(b"\n")[2] == (
        b'event: goodbye\ndata: {"reason":"server_stopping"}\n\n'
    )
    assert answers[0].headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answers[0].headers["cache-control"] == "no-store, no-transform"
    assert answers[0].headers["x-accel-buffering"] == "no"
    assert answers[0].headers[SOFT_ANSWER_HEADER] == "1"
    assert +service.streaming.soft_answers == {EndReason.SERVER_STOPPING: 200}


# -- the way is chosen by the scope


class OwnTransport(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = asyncio.Event()
        self.limits: tuple[int | None, int | None] | None = None
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_closed.is_set()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def close(self) -> None:
        self.is_closed.set()

    def abort(self) -> None:
        self.is_closed.set()


class CycleOfAnotherKind(RequestResponseCycle):
    """One whose inside may be another."""


async def no_app(_scope: object, _receive: object, _send: object) -> None:
    """Stand where nothing is called."""


def uvicorn_protocol(transport: OwnTransport) -> HttpToolsProtocol:
    config = uvicorn.Config(cast("Any", no_app), http="httptools", ws="none", log_config=None)
    protocol = HttpToolsProtocol(config, ServerState(), {})
    protocol.connection_made(transport)
    return protocol


def uvicorn_cycle(
    kind: type[RequestResponseCycle] = RequestResponseCycle, http_version: str = "1.1"
) -> tuple[RequestResponseCycle, Scope]:
    transport = OwnTransport()
    transport.protocol = uvicorn_protocol(transport)
    scope: Any = {"type": "http", "method": "GET", "http_version": http_version}
    cycle = kind(
        scope=scope,
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    scope[SEND_SCOPE_KEY] = cycle.send
    return cycle, scope


async def test_under_uvicorn_a_stream_is_written_to_the_transport(service: Service) -> None:
    _, scope = uvicorn_cycle()

    assert type(service.streaming.open(scope, Grant("42"), None)) is TransportStream
    assert SEND_SCOPE_KEY not in scope  # the cycle holds the scope


async def another_send(_message: Message) -> None:
    raise NotImplementedError


async def test_a_stream_is_written_the_portable_way_to_whatever_is_not_known(
    service: Service,
) -> None:
    _, old_http = uvicorn_cycle(http_version="1.0")
    _, another_kind = uvicorn_cycle(CycleOfAnotherKind)
    another_server = {"http_version": "1.1", SEND_SCOPE_KEY: another_send}
    wrapped_by_nobody = {"http_version": "1.1"}

    for scope in (old_http, another_kind, another_server, wrapped_by_nobody):
        assert type(service.streaming.open(scope, Grant("42"), None)) is PortableStream


async def test_what_the_hub_writes_is_framed_as_what_uvicorn_writes(service: Service) -> None:
    cycle, scope = uvicorn_cycle()
    transport = cast("OwnTransport", cycle.transport)
    stream = service.streaming.open(scope, Grant("42"), None)

    task = service.begin(stream(scope, cast("Any", cycle.receive), cast("Any", cycle.send)))
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    service.change(8)
    service.end(EndReason.CONNECTION_AGE)
    async with asyncio.timeout(5 * SECOND):
        await task

    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head == (
        b"HTTP/1.1 200 OK\r\n"
        b"cache-control: no-store, no-transform\r\n"
        b"x-accel-buffering: no\r\n"
        b"content-type: text/event-stream\r\n"
        b"connection: close\r\n"
        b"transfer-encoding: chunked"
    )
    ready, rest = body.split(b"\r\n", 2)[1], body.split(b"\r\n", 2)[2]
    assert masked(ready) == READY
    assert rest == (
        Frame.of(CONNECTED_AT_7).chunk
        + Frame.of(REFRESH_8).chunk
        + Frame.of(goodbye("connection_age")).chunk
        + b"0\r\n\r\n"
    )
    assert transport.is_closed.is_set()
    assert transport.limits == (0, None)  # what the kernel does not take belongs into the slot


# -- the fast way: its beginning


async def test_a_stream_begins_with_ready_and_what_is_owed_in_one_write(service: Service) -> None:
    Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    browser = Browser(service)
    await turns()

    size, _, _ = bytes(browser.cycle.wire).partition(b"\r\n")

    assert int(size, 16) == len(browser.cycle.wire) - len(size) - 4
    assert browser.heard == READY + CONNECTED_AT_7
    assert browser.cycle.head == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"content-type", b"text/event-stream"),
            (b"connection", b"close"),
        ],
    }


async def test_every_connection_has_its_own_id(service: Service) -> None:
    browsers = [Browser(service) for _ in range(3)]
    await turns()

    ids = {re.findall(rb'"connection_id":"([^"]+)"', each.cycle.wire)[0] for each in browsers}

    assert len(ids) == 3
    assert len({each.partition(b"-")[0] for each in ids}) == 1


async def test_a_client_for_whom_nothing_has_to_be_asked_is_written_to_at_once(
    service: Service,
) -> None:
    Browser(service)
    await turns()
    service.armed(EntryId(7, 0))

    browser = Browser(service, "7-0")
    await turns(1)

    assert browser.heard == READY_AT_7

    browser.cycle.lose()
    await browser.done()


async def test_a_client_that_missed_nothing_is_told_only_where_it_stands(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    assert browser.heard == READY_AT_7


async def test_a_stream_that_does_not_exist_has_no_id(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service)
    await turns()
    service.armed(None)
    await turns()

    assert browser.heard == READY + CONNECTED


async def test_a_late_redis_holds_nothing_back_but_the_refresh(service: Service) -> None:
    browser = Browser(service)
    await turns()

    assert browser.heard == READY

    service.armed(EntryId(7, 0))
    await turns()

    assert browser.heard == READY + CONNECTED_AT_7

    service.change(8)

    assert browser.heard == READY + CONNECTED_AT_7 + REFRESH_8


async def test_a_late_redis_may_show_that_nothing_is_owed(service: Service) -> None:
    browser = Browser(service, "7-0")
    await turns()

    service.armed(EntryId(7, 0))
    await turns()
    service.change(8)

    assert browser.heard == READY + REFRESH_8


async def test_a_client_that_was_away_is_told_the_topics_that_it_missed(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = (
        entry(5, "seats", data="1", by="tab-1"),
        entry(6, "orders", data="2"),
        entry(7, "seats", data="3", by="tab-1"),
    )
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    assert service.shelf.asked == [("42", EntryId(4, 0), EntryId(7, 0))]
    assert browser.heard == READY + (
        b'id: 6-0\nevent: refresh\ndata: {"merchant_id":"42","topic":"orders","data":2,'
        b'"reason":"missed"}\n\n'
        b'id: 7-0\nevent: refresh\ndata: {"merchant_id":"42","topic":"seats","by":"tab-1",'
        b'"reason":"missed"}\n\n'
    )


@pytest.mark.parametrize("entries", [None, ()])
async def test_a_client_that_was_away_for_too_long_is_told_no_topic(
    serve: Serve, entries: tuple[Entry, ...] | None
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = entries
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    assert browser.heard == READY + MISSED_AT_7


async def test_a_stream_that_takes_long_to_answer_holds_nothing_back_but_the_refresh(
    service: Service,
) -> None:
    Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    service.shelf.is_open.clear()
    browser = Browser(service, "4-0")
    await turns()

    assert browser.heard == READY

    service.change(8)
    service.shelf.is_open.set()
    await turns()

    merged = b'id: 8-0\nevent: refresh\ndata: {"merchant_id":"42","reason":"missed"}\n\n'
    assert browser.heard == READY + merged


async def test_nothing_is_told_before_what_was_missed(serve: Serve) -> None:
    service = serve(arm_timeout_s=0.01)
    Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    service.shelf.is_open.clear()
    browser = Browser(service, "4-0")
    await turns()

    service.change(8)
    await until(lambda: browser.heard != b"", "ready")

    assert browser.heard == READY

    service.shelf.is_open.set()
    await turns()

    assert browser.heard.startswith(READY + b"id: 8-0\nevent: refresh\n")


async def test_what_changes_while_the_stream_is_asked_comes_after_what_was_missed(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = (entry(7, "orders"),)
    service.shelf.is_open.clear()
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    service.change(8)
    service.shelf.is_open.set()
    await turns()

    assert browser.heard == READY + (
        b'id: 7-0\nevent: refresh\ndata: {"merchant_id":"42","topic":"orders",'
        b'"reason":"missed"}\n\n' + REFRESH_8
    )


async def test_a_stream_that_ends_while_it_is_asked_says_what_it_knows_and_goodbye(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.is_open.clear()
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    service.shelf.is_open.set()
    await browser.done()

    assert browser.heard == READY + MISSED_AT_7 + goodbye("server_stopping")
    assert browser.cycle.is_complete


async def test_a_stream_that_ends_before_redis_has_answered_says_goodbye(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service, "4-0")
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    await browser.done()

    assert browser.heard == READY + goodbye("server_stopping")
    assert browser.cycle.is_complete
    assert service.shelf.asked == []


async def test_a_stream_whose_joining_fails_late_is_ended_and_its_browser_comes_back(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """It would hear heartbeats, and nothing else, until its age ends it."""
    service.shelf.error = RuntimeError("a bug")
    browser = Browser(service, "4-0")
    await turns()

    service.armed(EntryId(7, 0))
    await browser.done()

    assert browser.heard == READY + goodbye("failed")
    assert browser.cycle.is_complete
    assert [record.getMessage() for record in caplog.records] == [
        "joining failed, ending the stream"
    ]


async def test_a_stream_whose_joining_fails_at_once_fails_as_any_request(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    service.shelf.error = RuntimeError("a bug")
    browser = Browser(service, "4-0")

    with pytest.raises(RuntimeError, match="a bug"):
        await browser.done()
    service.tasks.remove(browser.task)

    assert len(service.subscriptions) == 1


async def test_a_stream_whose_writing_fails_is_cut(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    service.shelf.error = RuntimeError("a bug")

    async def fail() -> None:
        assert service.shelf.error is not None
        raise service.shelf.error

    browser.stream._start(fail(), "drain")
    await browser.done()

    assert service.hub.tally.closed[EndReason.FAILED] == 1
    browser.stream._start(fail(), "finish")  # when there is nothing left to be counted
    await turns()
    assert service.hub.tally.closed[EndReason.FAILED] == 1
    assert browser.cycle.aborted.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        "writing failed, cutting the stream"
    ] * 2


async def test_a_stream_that_ends_while_redis_is_late_says_goodbye(service: Service) -> None:
    browser = Browser(service)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert browser.heard == READY + goodbye("connection_age")
    assert browser.cycle.is_complete


async def test_a_client_that_leaves_while_redis_is_late_leaves_nothing_behind(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service)
    await turns()

    browser.cycle.lose()
    await browser.done()

    assert len(service.hub) == 0
    assert service.source.calls == [("watch", "42"), ("unwatch", "42")]
    assert asyncio.all_tasks() == before


async def test_a_client_that_leaves_while_the_stream_is_asked_leaves_nothing_behind(
    service: Service,
) -> None:
    service.shelf.is_open.clear()
    before = asyncio.all_tasks()
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    browser.cycle.lose()
    await browser.done()

    assert service.shelf.asked != []
    assert len(service.hub) == 0
    assert asyncio.all_tasks() == before


async def test_a_stream_that_is_canceled_leaves_nothing_behind(service: Service) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service)
    await turns()

    browser.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await browser.task

    assert len(service.hub) == 0
    assert asyncio.all_tasks() == before


async def test_a_stream_that_is_canceled_while_it_is_blocked_leaves_nothing_behind(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    browser.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await browser.task

    assert asyncio.all_tasks() == before


async def test_what_a_client_sends_does_not_end_its_stream(service: Service) -> None:
    cycle = Cycle(10**6)
    cycle.incoming.extend([{"type": "http.request", "body": b"", "more_body": False}] * 3)
    browser = Browser(service, cycle=cycle)
    await turns()

    assert not cycle.incoming
    assert len(service.hub) == 1
    assert browser.heard == READY


# -- the fast way: going on


async def test_each_change_is_one_chunk_on_the_transport(service: Service) -> None:
    browser = Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    browser.cycle.wire.clear()

    service.change(8)

    assert bytes(browser.cycle.wire) == (
        b'43\r\nid: 8-0\nevent: refresh\ndata: {"merchant_id":"42","topic":"seats"}\n\n\r\n'
    )


async def test_a_heartbeat_is_written_while_nothing_happens(service: Service) -> None:
    browser = Browser(service)
    await turns()

    service.clock.advance(15)

    assert browser.heard == READY + BEAT


async def test_heartbeats_do_not_wait_for_what_was_waited_for(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = ()
    browser = Browser(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    service.clock.advance(15)

    assert browser.heard == READY + MISSED_AT_7 + BEAT


async def test_a_client_that_takes_no_bytes_gets_the_newest_when_it_does(
    service: Service,
) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(EntryId(7, 0))  # the flow is closed by the first bytes
    for number in (8, 9, 10):
        service.change(number)
        service.clock.advance(1)
    await turns()

    assert browser.heard == READY  # and with that it drains

    await turns()

    assert browser.heard == READY + (
        b'id: 10-0\nevent: refresh\ndata: {"merchant_id":"42","reason":"connected"}\n\n'
    )


async def test_nothing_is_written_while_the_flow_is_closed(service: Service) -> None:
    browser = Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    browser.cycle.pause()

    service.change(8)
    service.clock.advance(1)
    service.change(9)
    await turns()

    assert browser.heard == READY + CONNECTED_AT_7  # and with that it drains

    await turns()

    assert browser.heard == READY + CONNECTED_AT_7 + REFRESH_8.replace(b"8-0", b"9-0")


async def test_nothing_is_written_before_the_drain_has_ended(service: Service) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    is_refused_by_the_flow = not browser.stream.offer(HEARTBEAT)
    await turns()

    ready = browser.heard  # and with that the flow is open
    is_refused_until_the_drain_ends = not browser.stream.offer(HEARTBEAT)
    await turns()
    is_taken = browser.stream.offer(HEARTBEAT)

    assert is_refused_by_the_flow
    assert is_refused_until_the_drain_ends
    assert is_taken
    assert browser.heard == ready + BEAT


async def test_nothing_is_written_before_the_first_bytes(service: Service) -> None:
    browser = Browser(service)

    assert browser.stream.offer(HEARTBEAT) is False
    assert bytes(browser.cycle.wire) == b""


async def test_nothing_is_written_to_a_client_that_has_gone(service: Service) -> None:
    browser = Browser(service)
    await turns()
    heard = browser.heard

    browser.cycle.lose()

    assert browser.stream.offer(HEARTBEAT) is True
    assert browser.heard == heard


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (socket.AF_INET, []),  # inherited from the listening socket
        (socket.AF_UNIX, [(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)]),
    ],
)
async def test_a_unix_socket_is_given_its_buffer_size(
    service: Service, family: socket.AddressFamily, options: list[tuple[int, int, int]]
) -> None:
    sock = Socket(family)

    browser = Browser(service, cycle=CycleOfSocket(sock))
    await turns()

    assert sock.options == options
    assert browser.heard == READY


# -- the fast way: its end


async def test_a_stream_ends_with_a_goodbye_and_its_last_chunk(service: Service) -> None:
    browser = Browser(service)
    await turns()
    browser.cycle.wire.clear()

    service.end(EndReason.CONNECTION_AGE)
    is_closed = not browser.stream.offer(HEARTBEAT)
    await turns()

    assert is_closed
    assert bytes(browser.cycle.wire) == (Frame.of(goodbye("connection_age")).chunk + b"0\r\n\r\n")
    assert len(service.hub) == 0
    await browser.done()


async def test_a_client_that_does_not_close_is_cut_off_after_its_goodbye(serve: Serve) -> None:
    service = serve(send_timeout_s=0)
    browser = Browser(service)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    async with asyncio.timeout(5 * SECOND):
        await browser.cycle.aborted.wait()

    assert browser.cycle.is_complete
    await browser.done()


@pytest.mark.parametrize("is_blocked", [True, False])
async def test_a_goodbye_that_is_not_taken_is_given_up(serve: Serve, *, is_blocked: bool) -> None:
    service = serve(send_timeout_s=0)
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    if is_blocked:
        service.armed(EntryId(7, 0))
        await turns()

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert browser.cycle.aborted.is_set()
    assert not browser.cycle.is_complete


async def test_a_stream_that_ends_while_it_is_blocked_says_goodbye_when_it_drains(
    service: Service,
) -> None:
    browser = Browser(service)
    await turns()
    browser.cycle.pause()
    service.armed(EntryId(7, 0))
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    await turns()

    assert browser.heard == READY  # and with that it drains

    await browser.done()

    assert browser.heard == READY + goodbye("server_stopping")


async def test_a_stream_that_ends_while_its_first_bytes_are_written_says_goodbye_after_them(
    service: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    browser = Browser(service, cycle=cycle)
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    await turns()

    assert bytes(cycle.wire) == b""

    cycle.deliver(0)
    await browser.done()

    assert browser.heard == READY + goodbye("server_stopping")
    assert browser.stream.offer(HEARTBEAT) is False


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off(service: Service) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    for _ in range(16):
        service.clock.advance(1)
        await turns()
    await browser.done()

    assert service.hub.tally.closed[EndReason.STALLED] == 1
    assert browser.cycle.aborted.is_set()
    assert not browser.cycle.is_complete
    assert masked(bytes(browser.cycle.wire)).count(b"event:") == 1
    assert len(service.hub) == 0


@pytest.fixture
def without_collector() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
async def test_a_stream_that_ended_leaves_nothing_to_the_collector(service: Service) -> None:
    browser = Browser(service)
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    stream = weakref.ref(browser.stream)

    browser.cycle.lose()
    await browser.done()
    del browser

    assert stream() is None


# -- the portable way


class Server:
    """An ASGI server of another make, and the client behind it."""

    def __init__(
        self,
        service: Service,
        last_event_id: str | None = None,
        *,
        method: str = "GET",
        expires_at: float | None = None,
    ) -> None:
        self.scope: Scope = {"type": "http", "method": method, "http_version": "1.1"}
        self.messages: list[Message] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_gone = asyncio.Event()
        self.stream = service.streaming.open(self.scope, Grant("42", expires_at), last_event_id)
        self.task = service.begin(self.stream(self.scope, self.receive, self.send))

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.messages.append(message)

    async def receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    @property
    def heard(self) -> bytes:
        return masked(b"".join(message["body"] for message in self.messages[1:]))

    @property
    def is_complete(self) -> bool:
        return self.messages[-1].get("more_body") is False

    async def done(self) -> None:
        async with asyncio.timeout(5 * SECOND):
            await self.task

    async def leave(self) -> None:
        self.is_gone.set()
        await self.done()


async def test_a_portable_stream_begins_as_any_other(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    server = Server(service)
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    assert isinstance(server.stream, PortableStream)
    assert server.messages[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"connection", b"keep-alive"),
            (b"content-type", b"text/event-stream; charset=utf-8"),
        ],
    }
    assert server.heard == READY + CONNECTED_AT_7
    assert server.stream.ping_interval == 0  # the library's own pings are comments
    await server.leave()


async def test_a_portable_stream_passes_on_what_the_hub_writes(service: Service) -> None:
    server = Server(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    service.change(8)
    await turns()
    service.clock.advance(15)
    await turns()

    assert server.heard == READY + REFRESH_8 + BEAT
    await server.leave()


async def test_a_portable_stream_waits_for_a_late_redis_without_holding_ready_back(
    service: Service,
) -> None:
    server = Server(service)
    await turns()

    assert server.heard == READY

    service.armed(EntryId(7, 0))
    await turns()

    assert server.heard == READY + CONNECTED_AT_7
    await server.leave()


async def test_a_portable_stream_that_is_behind_gets_the_newest(service: Service) -> None:
    server = Server(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    server.takes.clear()

    for number in (8, 9, 10):
        service.change(number)
        await turns()
        service.clock.advance(1)
    server.takes.set()
    await turns()

    assert server.heard == READY + REFRESH_8 + REFRESH_8.replace(b"8-0", b"10-0")
    await server.leave()


async def test_a_portable_stream_holds_one_frame_at_most(service: Service) -> None:
    server = Server(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    assert server.stream.offer(HEARTBEAT) is True
    assert server.stream.offer(HEARTBEAT) is False

    await turns()

    assert server.heard == READY + BEAT
    await server.leave()


async def test_a_portable_stream_ends_with_a_goodbye(service: Service) -> None:
    server = Server(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    service.change(8)

    service.end(EndReason.SERVER_STOPPING)
    await server.done()

    assert server.heard == READY + REFRESH_8 + goodbye("server_stopping")
    assert server.is_complete
    assert len(service.hub) == 0


async def test_a_portable_stream_ends_while_redis_is_late(service: Service) -> None:
    server = Server(service)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    await server.done()

    assert server.heard == READY + goodbye("connection_age")
    assert server.is_complete


def watchers() -> set[asyncio.Task[Any]]:
    """Return sse-starlette's own tasks, one per event loop."""
    tasks = asyncio.all_tasks()
    return {task for task in tasks if "_shutdown_watcher" in repr(task.get_coro())}


async def test_a_portable_stream_whose_client_leaves_leaves_nothing_behind(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    server = Server(service)
    await turns()

    await server.leave()
    await turns()

    assert len(service.hub) == 0
    assert asyncio.all_tasks() <= {*before, *watchers()}
    assert not server.is_complete


async def test_a_portable_stream_whose_client_leaves_while_the_stream_is_asked(
    service: Service,
) -> None:
    service.shelf.is_open.clear()
    before = asyncio.all_tasks()
    server = Server(service, "4-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()

    await server.leave()
    await turns()

    assert service.shelf.asked != []
    assert len(service.hub) == 0
    assert asyncio.all_tasks() <= {*before, *watchers()}


async def test_a_portable_stream_whose_client_leaves_before_it_begins_is_not_begun(
    service: Service,
) -> None:
    server = Server(service)
    server.takes.clear()
    await turns()

    assert len(service.hub) == 1
    assert server.stream.offer(HEARTBEAT) is False

    await server.leave()

    assert len(service.hub) == 0
    assert server.messages == []


async def test_a_portable_stream_whose_client_takes_nothing_is_given_up(serve: Serve) -> None:
    service = serve(send_timeout_s=0.01)
    server = Server(service, "7-0")
    await turns()
    service.armed(EntryId(7, 0))
    await turns()
    server.takes.clear()

    service.change(8)
    await server.done()

    assert server.heard == READY
    assert not server.is_complete
    assert len(service.hub) == 0
    assert service.hub.tally.closed[EndReason.STALLED] == 1


async def test_head_opens_no_portable_stream(service: Service) -> None:
    server = Server(service, method="HEAD")
    await server.done()

    assert [message["type"] for message in server.messages] == [
        "http.response.start",
        "http.response.body",
    ]
    headers = {name.decode(): value.decode() for name, value in server.messages[0]["headers"]}
    assert {name: headers[name.lower()] for name in HEADERS} == HEADERS
    assert server.heard == b""
    assert server.is_complete
    assert len(service.hub) == 0


async def test_the_library_leaves_the_end_of_a_portable_stream_to_us(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppStatus, "enable_automatic_graceful_drain", True)

    service.streaming.open({"http_version": "1.1"}, Grant("42"), None)

    assert AppStatus.enable_automatic_graceful_drain is False


# -- tokens that expire, by the loop's own clock


class Neighbor:
    """Somebody else, so that the merchant stays."""

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, _reason: EndReason) -> None:
        """Take it."""


@pytest.fixture
async def timely(serve: Serve) -> Service:
    """A service whose Redis has answered, and whose clock is the real one."""
    service = serve(clock=asyncio.get_running_loop())
    service.hub.subscribe(Grant("42"), Neighbor())
    service.armed(EntryId(7, 0))
    return service


WHOLE = READY_AT_7 + b'event: expiring\ndata: {"expires_in_s":1}\n\n' + goodbye("token_expired")
"""All that comes in a second; at half of it, and a bit before."""


async def test_a_stream_is_told_of_its_tokens_end_and_says_goodbye_in_time(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    browser = Browser(timely, "7-0", expires_at=expires_at)

    await until(lambda: browser.cycle.is_complete, "the end")

    assert time.time() <= expires_at + LATE_S
    assert browser.heard == WHOLE
    timely.change(8)
    await browser.done()
    assert browser.heard == WHOLE


async def test_a_portable_stream_is_told_of_its_tokens_end_and_says_goodbye_in_time(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    server = Server(timely, "7-0", expires_at=expires_at)

    async with asyncio.timeout(5 * SECOND):
        await server.task

    assert time.time() <= expires_at + LATE_S
    assert server.heard == WHOLE
    assert server.is_complete


async def test_a_stream_that_takes_no_bytes_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    browser = Browser(timely, "7-0", expires_at=expires_at)
    await turns()
    browser.cycle.pause()
    timely.change(8)

    async with asyncio.timeout(5 * SECOND):
        await browser.cycle.aborted.wait()

    assert 0 <= time.time() - expires_at < SECOND
    assert browser.heard == READY_AT_7
    assert not browser.cycle.is_complete


async def test_a_goodbye_that_stays_in_the_buffer_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    browser = Browser(timely, "7-0", expires_at=expires_at)

    async with asyncio.timeout(5 * SECOND):
        await browser.cycle.aborted.wait()

    assert browser.cycle.is_complete
    assert 0 <= time.time() - expires_at < SECOND


async def test_a_stream_whose_first_bytes_are_not_taken_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    expires_at = time.time() + 0.5
    browser = Browser(timely, "7-0", cycle, expires_at)

    async with asyncio.timeout(5 * SECOND):
        await cycle.aborted.wait()

    assert 0 <= time.time() - expires_at < SECOND
    assert browser.heard == b""


async def test_a_portable_stream_that_takes_no_bytes_is_given_up_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    server = Server(timely, "7-0", expires_at=expires_at)
    await until(lambda: len(server.messages) == 2, "ready")
    server.takes.clear()
    timely.change(8)

    async with asyncio.timeout(5 * SECOND):
        await server.task
    gave_up_at = time.time()
    server.takes.set()
    await turns()

    assert 0 <= gave_up_at - expires_at < SECOND
    assert server.heard == READY_AT_7
    assert len(timely.hub) == 1


@pytest.mark.usefixtures("without_collector")
async def test_a_stream_with_a_token_leaves_nothing_to_the_collector(timely: Service) -> None:
    browser = Browser(timely, "7-0", expires_at=time.time() + 30)
    await turns()
    stream = weakref.ref(browser.stream)

    browser.cycle.lose()
    await browser.done()
    del browser

    assert stream() is None


# -- streams that are revoked, by the loop's own clock


@pytest.fixture(params=["fast", "portable"])
def begin(request: pytest.FixtureRequest) -> Callable[..., Browser | Server]:
    """Begin a stream in each of the two ways."""
    return Browser if request.param == "fast" else Server


def revoke(service: Service) -> None:
    service.hub.revoke(Revocation("42"), time.time())


async def test_a_revoked_stream_says_goodbye_and_nothing_after(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(timely, "7-0", expires_at=time.time() + 30)
    await until(lambda: client.heard == READY_AT_7, "ready")

    revoke(timely)
    timely.hub.subscribe(Grant("42"), Neighbor())
    timely.armed(EntryId(7, 0))
    timely.change(8)
    async with asyncio.timeout(5 * SECOND):
        await until(lambda: client.heard.endswith(goodbye("revoked")), "the goodbye")
        timely.change(9)
        await turns()

    assert client.heard == READY_AT_7 + goodbye("revoked")
    assert len(timely.hub) == 1


async def test_a_revoked_stream_without_a_token_may_come_back(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(timely, "7-0")
    await until(lambda: client.heard == READY_AT_7, "ready")

    revoke(timely)
    await until(lambda: client.heard == READY_AT_7 + goodbye("revoked"), "the goodbye")
    again = begin(timely, "7-0")
    await until(lambda: again.heard.startswith(b"retry: 0\n"), "the next one")


async def test_what_is_revoked_opens_no_stream(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    revoke(timely)
    client = begin(timely, "7-0", expires_at=time.time() + 30)

    with pytest.raises(Unauthorized, match="expected a token that was not revoked"):
        await client.task

    assert client.cycle.head == {} if isinstance(client, Browser) else client.messages == []
    timely.tasks.remove(client.task)


@pytest.mark.parametrize("expires_in_s", [None, 30])
async def test_a_client_that_takes_no_bytes_is_cut_off_soon_after_it_was_revoked(
    timely: Service, begin: Callable[..., Browser | Server], expires_in_s: float | None
) -> None:
    expires_at = None if expires_in_s is None else time.time() + expires_in_s
    client = begin(timely, "7-0", expires_at=expires_at)
    await until(lambda: client.heard == READY_AT_7, "ready")
    if isinstance(client, Browser):
        client.cycle.pause()
    else:
        client.takes.clear()
    timely.change(8)

    revoke(timely)
    revoked_at = time.time()
    async with asyncio.timeout(5 * SECOND):
        await (client.cycle.aborted.wait() if isinstance(client, Browser) else client.task)

    assert time.time() - revoked_at < 0.5 + SECOND
    assert client.heard == READY_AT_7


async def test_a_client_whose_first_bytes_are_not_taken_is_cut_off_soon_after_it_was_revoked(
    timely: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    browser = Browser(timely, "7-0", cycle)
    await turns()

    revoke(timely)
    revoked_at = time.time()
    async with asyncio.timeout(5 * SECOND):
        await cycle.aborted.wait()

    assert time.time() - revoked_at < 0.5 + SECOND
    assert browser.heard == b""


async def test_a_stream_that_is_revoked_while_redis_is_late_says_nothing_but_goodbye(
    service: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(service, "7-0")
    await until(lambda: client.heard == READY, "ready")

    revoke(service)
    await until(lambda: client.heard != READY, "the goodbye")

    assert client.heard == READY + goodbye("revoked")


async def test_its_token_may_expire_before_a_client_that_takes_nothing_is_cut_off(
    timely: Service,
) -> None:
    expires_at = time.time() + 0.6 * SECOND
    server = Server(timely, "7-0", expires_at=expires_at)
    await until(lambda: len(server.messages) == 2, "ready")
    server.takes.clear()
    await until(lambda: time.time() > expires_at - 0.2 * SECOND, "the last moment")

    revoke(timely)
    async with asyncio.timeout(5 * SECOND):
        await server.task

    assert time.time() - expires_at < 0.2 * SECOND + LATE_S


async def test_a_stream_that_is_being_given_up_is_revoked_without_harm(timely: Service) -> None:
    server = Server(timely, "7-0")
    await until(lambda: len(server.messages) == 2, "ready")
    assert isinstance(server.stream, PortableStream)
    cut = server.stream._cut
    assert cut is not None
    cut.reschedule(asyncio.get_running_loop().time())
    while not cut.expired():  # noqa: ASYNC110 (it lasts for one turn of the loop)
        await asyncio.sleep(0)
    assert len(timely.hub) == 2

    revoke(timely)
    async with asyncio.timeout(5 * SECOND):
        await server.task
