"""A token that expires while its event stream is open."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path

import httpx2
import pytest

from tests.harness.access import refused
from tests.harness.in_process import serving_here
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.tokens import (
    SECRET,
    token_of,
)
from tests.harness.waiting import LATE_S, SECOND, until

EXPIRED = "expected a token that has not expired"


async def test_a_stream_gets_an_expiring_event_and_ends_before_its_token(
    guarded: Service, client: httpx2.AsyncClient, merchant: str
) -> None:
    publisher = Publisher(guarded.url)
    await publisher.notify(merchant)
    expires_at = int(time.time() + 2 + SECOND)
    token = token_of(merchant, exp=expires_at)

    async with open_stream(guarded.url, query=f"token={token}") as stream:
        await stream.next("refresh")
        await publisher.notify(merchant, topic="before")
        await stream.next("refresh", 2)
        expiring = await stream.next("expiring", seconds=10 * SECOND)
        announced_before_s = expires_at - time.time()
        goodbye = await stream.next("goodbye")
        await stream.wait_complete()
        ended_before_s = expires_at - time.time()
        await until(lambda: time.time() > expires_at, "the expiry")
        await publisher.notify(merchant, topic="after")
        again = await client.get(f"/events?token={token}")
    await publisher.close()

    assert b'event: expiring\ndata: {"expires_in_s":1}\n\n' in stream.body
    assert re.search(
        rb'\n\nretry: \d+\nevent: goodbye\ndata: {"reason":"token_expired"}\n\n$', stream.body
    )
    assert expiring.id == goodbye.id  # neither is a change
    assert 0.7 - LATE_S <= announced_before_s <= 1.5
    assert -LATE_S <= ended_before_s <= 0.5
    assert [b"before" in stream.body, b"after" in stream.body] == [True, False]
    assert refused(again) == (401, "unauthorized", EXPIRED)


async def test_a_very_short_token_ends_its_stream_with_a_goodbye(
    guarded: Service, merchant: str
) -> None:
    expires_at = time.time() + 0.3 * SECOND

    async with open_stream(
        guarded.url, query=f"token={token_of(merchant, exp=expires_at)}"
    ) as stream:
        await stream.next("goodbye")
        await stream.wait_complete()
        is_in_time = time.time() <= expires_at + LATE_S

    assert is_in_time
    assert stream.events[0].type == "ready"


async def test_a_client_that_takes_no_bytes_is_cut_off_when_its_token_expires(
    guarded: Service, merchant: str
) -> None:
    """Its goodbye is not written: all bytes that it reads later were written before the end."""
    publisher = Publisher(guarded.url)
    expires_at = int(time.time() + 2 + SECOND)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)  # noqa: FBT003 (the standard library's)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", guarded.port))
    request = f"GET /events?token={token_of(merchant, exp=expires_at)} HTTP/1.1\r\nHost: t\r\n\r\n"
    await loop.sock_sendall(sock, request.encode())
    while time.time() < expires_at - 0.5:
        await publisher.notify(merchant, data="x" * 8000)
    await publisher.close()
    await until(lambda: time.time() > expires_at + 0.1 * SECOND, "the expiry")

    received = b""
    async with asyncio.timeout(5 * SECOND):
        try:
            while chunk := await loop.sock_recv(sock, 65_536):
                received += chunk
        except ConnectionResetError:
            pass
    sock.close()

    assert received.startswith(b"HTTP/1.1 200")
    assert b"goodbye" not in received
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_stream_of_the_portable_way_ends_before_its_token(
    redis: Redis, tmp_path: Path, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Under a server other than httptools, a stream is written the portable way."""
    token_keys = {"subscribe_auth": "token", "token_keys": SECRET, "token_expiring_s": 1}
    async with serving_here(redis.url, tmp_path, http="h11", **token_keys) as url:
        expires_at = int(time.time() + 2 + SECOND)
        token = token_of(merchant, exp=expires_at, aud=..., iss=...)
        async with open_stream(url, query=f"token={token}") as stream:
            await stream.next("refresh")
            await stream.next("expiring", seconds=10 * SECOND)
            await stream.next("goodbye")
            await stream.wait_complete()
            ended_before_s = expires_at - time.time()

    assert -LATE_S <= ended_before_s <= 0.5
    assert b'event: expiring\ndata: {"expires_in_s":1}\n\n' in stream.body
    assert stream.body.endswith(b'data: {"reason":"token_expired"}\n\n')
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
