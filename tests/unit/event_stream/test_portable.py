from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sse_starlette.sse import AppStatus

from sse_push.errors import EndReason
from sse_push.event_stream import keep_streams_at_shutdown
from sse_push.event_stream.portable import PortableStream
from sse_push.event_stream.shared import HEADERS
from sse_push.event_stream.wire import HEARTBEAT
from tests.harness.ids import at
from tests.harness.waiting import LATE_S, SECOND, until
from tests.unit.event_stream.service import (
    BEAT,
    CONNECTED_AT_7,
    READY,
    READY_AT_7,
    REFRESH_8,
    Serve,
    Server,
    Service,
    goodbye,
    revoke,
    turns,
)


def watchers() -> set[asyncio.Task[Any]]:
    """Return sse-starlette's own tasks, one per event loop."""
    tasks = asyncio.all_tasks()
    return {task for task in tasks if "_shutdown_watcher" in repr(task.get_coro())}


async def test_a_portable_stream_begins_as_any_other(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    server = Server(service)
    await turns()
    service.armed(at(7))
    await turns()

    assert isinstance(server.stream, PortableStream)
    assert server.messages[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"content-type", b"text/event-stream; charset=utf-8"),
        ],
    }
    assert server.received == READY + CONNECTED_AT_7
    assert server.stream.ping_interval == 0  # the library's own pings are comments
    await server.leave()


async def test_a_portable_stream_writes_the_frames_of_the_hub(service: Service) -> None:
    server = Server(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()

    service.change(8)
    await turns()
    service.clock.advance(15)
    await turns()

    assert server.received == READY + REFRESH_8 + BEAT
    await server.leave()


async def test_a_portable_stream_waits_for_a_late_redis_without_holding_ready_back(
    service: Service,
) -> None:
    server = Server(service)
    await turns()

    assert server.received == READY

    service.armed(at(7))
    await turns()

    assert server.received == READY + CONNECTED_AT_7
    await server.leave()


async def test_a_portable_stream_that_is_behind_gets_the_newest(service: Service) -> None:
    server = Server(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()
    server.takes.clear()

    for number in (8, 9, 10):
        service.change(number)
        await turns()
        service.clock.advance(1)
    server.takes.set()
    await turns()

    assert server.received == READY + REFRESH_8 + REFRESH_8.replace(b"8-0", b"10-0")
    await server.leave()


async def test_a_portable_stream_holds_one_frame_at_most(service: Service) -> None:
    server = Server(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()

    assert server.stream.offer(HEARTBEAT) is True
    assert server.stream.offer(HEARTBEAT) is False

    await turns()

    assert server.received == READY + BEAT
    await server.leave()


async def test_a_portable_stream_ends_with_a_goodbye(service: Service) -> None:
    server = Server(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()
    service.change(8)

    service.end(EndReason.SERVER_STOPPING)
    await server.done()

    assert server.received == READY + REFRESH_8 + goodbye("server_stopping")
    assert server.is_complete
    assert len(service.hub) == 0


async def test_a_portable_stream_ends_while_redis_is_late(service: Service) -> None:
    server = Server(service)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    await server.done()

    assert server.received == READY + goodbye("connection_age")
    assert server.is_complete


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
    server = Server(service, str(at(4)))
    await turns()
    service.armed(at(7))
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
    server = Server(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()
    server.takes.clear()

    service.change(8)
    await server.done()

    assert server.received == READY
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
    assert server.received == b""
    assert server.is_complete
    assert len(service.hub) == 0


def test_sse_starlette_does_not_end_portable_streams_at_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AppStatus, "enable_automatic_graceful_drain", True)

    keep_streams_at_shutdown()

    assert AppStatus.enable_automatic_graceful_drain is False


async def test_a_portable_stream_that_takes_no_bytes_is_given_up_when_its_token_expires(
    timely: Service,
) -> None:
    expires_at = time.time() + 1
    server = Server(timely, str(at(7)), expires_at=expires_at)
    await until(lambda: len(server.messages) == 2, "ready")
    server.takes.clear()
    timely.change(8)

    async with asyncio.timeout(5 * SECOND):
        await server.task
    gave_up_at = time.time()
    server.takes.set()
    await turns()

    assert 0 <= gave_up_at - expires_at < SECOND
    assert server.received == READY_AT_7
    assert len(timely.hub) == 1


async def test_a_token_that_expires_first_cuts_off_a_revoked_client(
    timely: Service,
) -> None:
    expires_at = time.time() + 0.6 * SECOND
    server = Server(timely, str(at(7)), expires_at=expires_at)
    await until(lambda: len(server.messages) == 2, "ready")
    server.takes.clear()
    await until(lambda: time.time() > expires_at - 0.2 * SECOND, "the last moment")

    revoke(timely)
    async with asyncio.timeout(5 * SECOND):
        await server.task

    assert time.time() - expires_at < 0.2 * SECOND + LATE_S


async def test_a_client_that_is_being_given_up_can_be_revoked(timely: Service) -> None:
    server = Server(timely, str(at(7)))
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
