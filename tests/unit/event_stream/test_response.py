from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from starlette.types import Message

from sse_push.access.grant import Grant
from sse_push.errors import EndReason, Unauthorized
from sse_push.event_stream import open_event_stream
from sse_push.event_stream.portable import PortableStream
from sse_push.event_stream.transport import TransportStream
from sse_push.runtime.uvicorn import SEND_SCOPE_KEY
from tests.harness.ids import at
from tests.harness.waiting import LATE_S, SECOND, until
from tests.unit.event_stream.service import (
    MISSED_AT_7,
    READY,
    READY_AT_7,
    REFRESH_8,
    Browser,
    Neighbor,
    Server,
    Service,
    goodbye,
    listening_to,
    revoke,
    turns,
)
from tests.unit.runtime.uvicorn.cycle import CycleOfAnotherKind, uvicorn_cycle


async def another_send(_message: Message) -> None:
    raise NotImplementedError


LISTENING = listening_to({"42": None}, is_named=False)

UNTIL_IT_EXPIRES = (
    READY_AT_7 + b'event: expiring\ndata: {"expires_in_s":1}\n\n' + goodbye("token_expired")
)
"""The events of a second: at its start, at half of it, and shortly before its end."""


async def test_an_event_stream_under_uvicorn_is_written_to_the_transport(service: Service) -> None:
    _, scope = uvicorn_cycle()

    assert type(open_event_stream(service.streams, scope, LISTENING)) is TransportStream
    assert SEND_SCOPE_KEY not in scope  # the cycle holds the scope


async def test_an_event_stream_under_an_unknown_server_is_written_the_portable_way(
    service: Service,
) -> None:
    _, old_http = uvicorn_cycle(http_version="1.0")
    _, another_kind = uvicorn_cycle(CycleOfAnotherKind)
    another_server = {"http_version": "1.1", SEND_SCOPE_KEY: another_send}
    wrapped_by_nobody = {"http_version": "1.1"}

    for scope in (old_http, another_kind, another_server, wrapped_by_nobody):
        assert type(open_event_stream(service.streams, scope, LISTENING)) is PortableStream


async def test_a_client_gets_expiring_and_a_goodbye_before_its_token_expires(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    while True:
        expires_at, seen_at, worst_s = time.time() + 1, time.monotonic(), 0.0
        client = begin(timely, str(at(7)), expires_at=expires_at)
        while not client.is_complete and time.time() <= expires_at + LATE_S:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            seen_at, worst_s = now, max(worst_s, now - seen_at)
        if worst_s < 0.1:  # a loop that stood still is late with the goodbye, which has 0.2 s
            break

    assert client.is_complete
    assert client.received == UNTIL_IT_EXPIRES
    timely.change(8)
    await client.done()
    assert client.received == UNTIL_IT_EXPIRES


async def test_a_revoked_client_gets_a_goodbye_and_nothing_after(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(timely, str(at(7)), expires_at=time.time() + 30)
    await until(lambda: client.received == READY_AT_7, "ready")

    revoke(timely)
    timely.hub.subscribe(Grant("42"), Neighbor())
    timely.armed(at(7))
    timely.change(8)
    async with asyncio.timeout(5 * SECOND):
        await until(lambda: client.received.endswith(goodbye("revoked")), "the goodbye")
        timely.change(9)
        await turns()

    assert client.received == READY_AT_7 + goodbye("revoked")
    assert len(timely.hub) == 1


async def test_a_revoked_client_without_a_token_may_reconnect(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(timely, str(at(7)))
    await until(lambda: client.received == READY_AT_7, "ready")

    revoke(timely)
    await until(lambda: client.received == READY_AT_7 + goodbye("revoked"), "the goodbye")
    again = begin(timely, str(at(7)))
    await until(lambda: again.received.startswith(b"retry: 0\n"), "the next one")


async def test_a_client_that_was_revoked_before_gets_no_event_stream(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    revoke(timely)
    client = begin(timely, str(at(7)), expires_at=time.time() + 30)

    with pytest.raises(Unauthorized, match="expected a token that was not revoked"):
        await client.task

    assert client.cycle.head == {} if isinstance(client, Browser) else client.messages == []
    timely.tasks.remove(client.task)


@pytest.mark.parametrize("expires_in_s", [None, 30])
async def test_a_client_that_takes_no_bytes_is_cut_off_soon_after_it_was_revoked(
    timely: Service, begin: Callable[..., Browser | Server], expires_in_s: float | None
) -> None:
    expires_at = None if expires_in_s is None else time.time() + expires_in_s
    client = begin(timely, str(at(7)), expires_at=expires_at)
    await until(lambda: client.received == READY_AT_7, "ready")
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
    assert client.received == READY_AT_7


async def test_a_client_that_is_revoked_while_redis_is_late_gets_only_a_goodbye(
    service: Service, begin: Callable[..., Browser | Server]
) -> None:
    client = begin(service, str(at(7)))
    await until(lambda: client.received == READY, "ready")

    revoke(service)
    await until(lambda: client.received != READY, "the goodbye")

    assert client.received == READY + goodbye("revoked")


async def test_a_client_whose_ids_are_named_gets_each_of_them_so_and_its_neighbors_do_not(
    timely: Service, begin: Callable[..., Browser | Server]
) -> None:
    named = begin(timely, str(at(4)), is_named=True)
    plain = begin(timely, str(at(4)))
    await until(lambda: b"missed" in named.received and b"missed" in plain.received, "what is owed")

    timely.change(8)
    await until(lambda: b"seats" in named.received and b"seats" in plain.received, "a refresh")
    current = begin(timely, str(at(8)), is_named=True)
    await until(lambda: current.received != b"", "ready")
    timely.end(EndReason.CONNECTION_AGE)
    await until(lambda: named.is_complete, "the end")

    assert named.received == (
        READY + MISSED_AT_7.replace(b"id: ", b"id: 42@") + REFRESH_8.replace(b"id: ", b"id: 42@")
    ) + goodbye("connection_age")
    assert plain.received.replace(b"id: ", b"id: 42@") == named.received
    assert b"\nid: 42@8-0.0a1b2c3d\nevent: ready\n" in current.received
