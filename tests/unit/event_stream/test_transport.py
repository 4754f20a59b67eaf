from __future__ import annotations

import asyncio
import socket
import time
import weakref
from collections.abc import Mapping
from typing import Any, cast

import pytest

from sse_push.errors import EndReason
from sse_push.event_stream import open_event_stream
from sse_push.event_stream.transport import (
    CUT,
    DRAINING,
    ENDING,
    FINISHING,
    OPEN,
    OPENING,
    TRANSITIONS,
    State,
)
from sse_push.event_stream.wire import HEARTBEAT, Frame
from tests.harness.ids import at
from tests.harness.waiting import SECOND
from tests.unit.event_stream.service import (
    BEAT,
    CONNECTED_AT_7,
    READY,
    READY_AT_7,
    REFRESH_8,
    Browser,
    Cycle,
    Serve,
    Service,
    goodbye,
    listening_to,
    masked,
    revoke,
    turns,
)
from tests.unit.runtime.uvicorn.cycle import OwnTransport, uvicorn_cycle


class Socket:
    """The options of a socket."""

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


async def test_a_frame_of_the_hub_is_a_chunk_like_those_of_uvicorn(service: Service) -> None:
    cycle, scope = uvicorn_cycle()
    transport = cast("OwnTransport", cycle.transport)
    stream = open_event_stream(service.streams, scope, listening_to({"42": None}, is_named=False))

    task = service.begin(stream(scope, cast("Any", cycle.receive), cast("Any", cycle.send)))
    await turns()
    service.armed(at(7))
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
        Frame(CONNECTED_AT_7).chunk
        + Frame(REFRESH_8).chunk
        + Frame(goodbye("connection_age")).chunk
        + b"0\r\n\r\n"
    )
    assert transport.is_closed.is_set()
    assert transport.limits == (0, None)  # what the kernel does not take must wait in the hub


async def test_each_change_is_one_chunk_on_the_transport(service: Service) -> None:
    browser = Browser(service)
    await turns()
    service.armed(at(7))
    await turns()
    browser.cycle.wire.clear()

    service.change(8)

    assert bytes(browser.cycle.wire) == (
        b"4c\r\nid: 8-0.0a1b2c3d\nevent: refresh\n"
        b'data: {"merchant_id":"42","topic":"seats"}\n\n\r\n'
    )


async def test_a_heartbeat_is_written_while_nothing_happens(service: Service) -> None:
    browser = Browser(service)
    await turns()

    service.clock.advance(15)

    assert browser.received == READY + BEAT


async def test_a_client_that_takes_no_bytes_gets_the_newest_when_it_does(
    service: Service,
) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(at(7))  # the flow is closed by the first bytes
    for number in (8, 9, 10):
        service.change(number)
        service.clock.advance(1)
    await turns()

    assert browser.received == READY  # reading them lets it drain

    await turns()

    assert browser.received == READY + (
        b'id: 10-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","reason":"connected"}\n\n'
    )


async def test_a_connection_whose_flow_is_closed_is_not_written_to(service: Service) -> None:
    browser = Browser(service)
    await turns()
    service.armed(at(7))
    await turns()
    browser.cycle.pause()

    service.change(8)
    service.clock.advance(1)
    service.change(9)
    await turns()

    assert browser.received == READY + CONNECTED_AT_7  # reading them lets it drain

    await turns()

    assert browser.received == READY + CONNECTED_AT_7 + REFRESH_8.replace(b"8-0", b"9-0")


async def test_a_connection_that_drains_is_not_written_to(service: Service) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    is_refused_by_the_flow = not browser.stream.offer(HEARTBEAT)
    await turns()

    ready = browser.received  # reading them opens the flow
    is_refused_until_the_drain_ends = not browser.stream.offer(HEARTBEAT)
    await turns()
    is_taken = browser.stream.offer(HEARTBEAT)

    assert is_refused_by_the_flow
    assert is_refused_until_the_drain_ends
    assert is_taken
    assert browser.received == ready + BEAT


async def test_a_connection_that_opens_is_not_written_to_before_its_first_bytes(
    service: Service,
) -> None:
    browser = Browser(service)

    assert browser.stream.offer(HEARTBEAT) is False
    assert bytes(browser.cycle.wire) == b""


async def test_a_client_that_has_gone_is_not_written_to(service: Service) -> None:
    browser = Browser(service)
    await turns()
    before = browser.received

    browser.cycle.lose()

    assert browser.stream.offer(HEARTBEAT) is True
    assert browser.received == before


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
    assert browser.received == READY


async def test_an_event_stream_ends_with_a_goodbye_and_its_last_chunk(service: Service) -> None:
    browser = Browser(service)
    await turns()
    browser.cycle.wire.clear()

    service.end(EndReason.CONNECTION_AGE)
    is_closed = not browser.stream.offer(HEARTBEAT)
    await turns()

    assert is_closed
    assert bytes(browser.cycle.wire) == (Frame(goodbye("connection_age")).chunk + b"0\r\n\r\n")
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
        service.armed(at(7))
        await turns()

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert browser.cycle.aborted.is_set()
    assert not browser.cycle.is_complete


async def test_a_blocked_connection_that_ends_gets_its_goodbye_when_it_drains(
    service: Service,
) -> None:
    browser = Browser(service)
    await turns()
    browser.cycle.pause()
    service.armed(at(7))
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    await turns()

    assert browser.received == READY  # reading them lets it drain

    await browser.done()

    assert browser.received == READY + goodbye("server_stopping")


async def test_a_connection_that_ends_while_it_opens_gets_its_goodbye_after_the_first_bytes(
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

    assert browser.received == READY + goodbye("server_stopping")
    assert browser.stream.offer(HEARTBEAT) is False


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off(service: Service) -> None:
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(at(7))
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


@pytest.mark.usefixtures("without_collector")
async def test_a_connection_that_has_ended_leaves_nothing_to_the_collector(
    service: Service,
) -> None:
    browser = Browser(service)
    await turns()
    service.armed(at(7))
    await turns()
    stream = weakref.ref(browser.stream)

    browser.cycle.lose()
    await browser.done()
    del browser

    assert stream() is None


class FailingCycle(Cycle):
    """A cycle whose ``send`` fails once there is an error."""

    error: Exception | None = None

    async def send(self, message: Mapping[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        await super().send(message)


async def test_a_connection_whose_drain_fails_is_cut_off(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(service, cycle=(cycle := FailingCycle(10**6)))
    await turns()
    service.armed(at(7))
    await turns()
    cycle.error = service.shelf.error = RuntimeError("a bug")
    cycle.pause()

    service.change(8)
    await browser.done()

    assert service.hub.tally.closed[EndReason.FAILED] == 1
    assert cycle.aborted.is_set()
    assert browser.stream.states == [OPENING, OPEN, DRAINING, CUT]
    assert [record.getMessage() for record in caplog.records] == [
        "writing failed, cutting the stream"
    ]


async def test_a_connection_whose_goodbye_fails_is_cut_off(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(service, cycle=(cycle := FailingCycle(10**6)))
    await turns()
    cycle.error = service.shelf.error = RuntimeError("a bug")

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert service.hub.tally.closed[EndReason.CONNECTION_AGE] == 1
    assert cycle.aborted.is_set()
    assert browser.stream.states == [OPENING, OPEN, FINISHING, CUT]
    assert [record.getMessage() for record in caplog.records] == [
        "writing failed, cutting the stream"
    ]


async def test_a_connection_that_was_cut_off_gets_no_goodbye_and_is_cut_off_once(
    service: Service,
) -> None:
    browser = Browser(service)
    await turns()
    service.end(EndReason.STALLED)
    await browser.done()
    before = bytes(browser.cycle.wire)

    async def fail() -> None:
        service.shelf.error = RuntimeError("a bug")
        raise service.shelf.error

    browser.stream._start(fail(), "drain")
    await turns()
    browser.stream.end(EndReason.STALLED)
    browser.stream.end(EndReason.CONNECTION_AGE)
    await turns()

    assert bytes(browser.cycle.wire) == before
    assert browser.stream.states == [OPENING, OPEN, CUT]


async def test_a_connection_that_is_canceled_leaves_nothing_behind(service: Service) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service)
    await turns()

    browser.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await browser.task

    assert len(service.hub) == 0
    assert asyncio.all_tasks() == before


async def test_a_blocked_connection_that_is_canceled_leaves_nothing_behind(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service, cycle=Cycle(capacity=0))
    await turns()
    service.armed(at(7))
    await turns()

    browser.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await browser.task

    assert asyncio.all_tasks() == before


async def test_messages_of_a_client_do_not_end_its_event_stream(service: Service) -> None:
    cycle = Cycle(10**6)
    cycle.incoming.extend([{"type": "http.request", "body": b"", "more_body": False}] * 3)
    browser = Browser(service, cycle=cycle)
    await turns()

    assert not cycle.incoming
    assert len(service.hub) == 1
    assert browser.received == READY


async def test_a_client_that_takes_no_bytes_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    browser = Browser(timely, str(at(7)), expires_at=expires_at)
    await turns()
    browser.cycle.pause()
    timely.change(8)

    async with asyncio.timeout(5 * SECOND):
        await browser.cycle.aborted.wait()

    assert 0 <= time.time() - expires_at < SECOND
    assert browser.received == READY_AT_7
    assert not browser.cycle.is_complete


async def test_a_goodbye_that_stays_in_the_buffer_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    browser = Browser(timely, str(at(7)), expires_at=expires_at)

    async with asyncio.timeout(5 * SECOND):
        await browser.cycle.aborted.wait()

    assert browser.cycle.is_complete
    assert 0 <= time.time() - expires_at < SECOND


async def test_a_client_that_takes_no_first_bytes_is_cut_off_when_its_token_expires(
    timely: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    expires_at = time.time() + 0.5
    browser = Browser(timely, str(at(7)), cycle, expires_at)

    async with asyncio.timeout(5 * SECOND):
        await cycle.aborted.wait()

    assert 0 <= time.time() - expires_at < SECOND
    assert browser.received == b""


async def test_a_client_that_takes_no_first_bytes_is_cut_off_soon_after_it_was_revoked(
    timely: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    browser = Browser(timely, str(at(7)), cycle)
    await turns()

    revoke(timely)
    revoked_at = time.time()
    async with asyncio.timeout(5 * SECOND):
        await cycle.aborted.wait()

    assert time.time() - revoked_at < 0.5 + SECOND
    assert browser.received == b""


@pytest.mark.usefixtures("without_collector")
async def test_a_connection_with_a_token_leaves_nothing_to_the_collector(timely: Service) -> None:
    browser = Browser(timely, str(at(7)), expires_at=time.time() + 30)
    await turns()
    stream = weakref.ref(browser.stream)

    browser.cycle.lose()
    await browser.done()
    del browser

    assert stream() is None


# -- the states


async def test_an_event_stream_opens_drains_and_finishes(service: Service) -> None:
    browser = Browser(service)
    await turns()
    browser.cycle.pause()
    service.armed(at(7))
    await turns()
    browser.cycle.deliver(10**6)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert browser.stream.states == [OPENING, OPEN, DRAINING, OPEN, FINISHING]


async def test_an_event_stream_that_ends_while_it_opens_finishes_after_that(
    service: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    browser = Browser(service, cycle=cycle)
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    states = list(browser.stream.states)
    cycle.deliver(0)
    await browser.done()

    assert states == [OPENING, ENDING]
    assert browser.stream.states == [OPENING, ENDING, FINISHING]


async def test_a_client_that_stalls_while_its_event_stream_opens_is_cut_off(
    service: Service,
) -> None:
    cycle = Cycle(10**6)
    cycle.pause()
    browser = Browser(service, cycle=cycle)
    await turns()

    service.end(EndReason.STALLED)
    await browser.done()

    assert browser.stream.states == [OPENING, CUT]
    assert browser.received == b""


@pytest.mark.parametrize("state", State)
async def test_a_transition_that_is_not_in_the_table_fails(service: Service, state: State) -> None:
    stream = Browser(service).stream

    for following in set(State) - TRANSITIONS[state]:
        stream.state = state
        with pytest.raises(AssertionError, match=f"{state.name} does not become {following.name}"):
            stream._become(following)
    stream.state = OPENING
