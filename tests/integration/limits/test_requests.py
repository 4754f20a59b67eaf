"""Requests that are too large or too slow, over real sockets; by hand: ``test_protocol.py``."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.processes import open_fds
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import open_stream
from tests.harness.waiting import SECOND, until
from tests.integration.limits.room import REQUEST_TIMEOUT_S, refused
from tests.integration.test_metrics import scrape

# -- the size of a head


async def answer_to(service: Service, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send pieces as fast as the service reads, and return the answer, up to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(10 * SECOND):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.transport.abort()
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), headers, body


HEAD = b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: test\r\n"
TOO_LARGE = {
    "error": "headers_too_large",
    "detail": "request line and headers: expected at most 16384 bytes, got more",
}


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n"],
        [HEAD + b"X: x\r\n" * 4000 + b"\r\n"],
        [HEAD, *[b"X: x\r\n"] * 10_000],
        [HEAD + b"X: ", *[b"x" * 65_536] * 320],
        [b"GET /events?merchant_id=42&x=" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n"],
        [b"POST /notify HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nX: ", b"x" * 20_000],
    ],
    ids=["long line", "many lines", "no end of lines", "20 MB", "url", "notify"],
)
async def test_a_client_whose_head_is_too_large_can_read_the_refusal(
    small: Service, pieces: list[bytes]
) -> None:
    before = await scrape(small)
    status, headers, body = await answer_to(small, *pieces)
    after = await scrape(small)

    assert (status, json.loads(body)) == (431, TOO_LARGE)
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    key = "sse_push_errors_total{headers_too_large}"
    assert after[key] - before[key] == 1


@pytest.mark.parametrize(
    "too_large",
    [
        HEAD + b"X: x\r\n" * 10_000 + b"\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"X: x\r\n" * 10_000
        + b"\r\n",
    ],
    ids=["head", "trailers"],
)
async def test_a_request_too_large_is_refused_behind_the_answer_to_another(
    small: Service, too_large: bytes
) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
    status, _, rest = await answer_to(small, first + too_large)
    head, _, body = rest.removeprefix(b'{"alive":true}').partition(b"\r\n\r\n")

    assert status == 200
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body) == TOO_LARGE


async def test_a_head_below_the_limit_is_served(empty: Service, merchant: str) -> None:
    reason = await refused(empty, merchant, X="x" * 8000, Y="y" * 8000)

    assert reason is None


async def test_a_head_that_is_no_http_is_refused_in_json(small: Service) -> None:
    status, headers, body = await answer_to(small, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")

    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body) == {
        "error": "malformed",
        "detail": "expected HTTP/1.1, got something else",
    }


# -- the time of a request


@dataclass
class Slow:
    """A client that sends a byte now and then, until it is cut off."""

    first: bytes
    then: bytes = b""
    interval_s: float = REQUEST_TIMEOUT_S / 20
    got: bytes = b""
    took_s: float = 0.0

    async def run(self, port: int) -> None:
        began_at = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(self.first)
        reading = asyncio.create_task(reader.read())
        try:
            while self.then and not reading.done():
                writer.write(self.then)
                await asyncio.wait([reading], timeout=self.interval_s)
            self.got = await reading
        finally:
            self.took_s = time.monotonic() - began_at
            reading.cancel()
            writer.transport.abort()


POST = f"POST /notify HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\n".encode()
SLOW_HEAD = (HEAD + b"X: ", b"x")
SLOW_BODY = (POST + b"Content-Length: 1000\r\n\r\n", b" ")
SLOW_CHUNKS = (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")


async def test_a_request_that_trickles_or_stops_is_refused_in_time(small: Service) -> None:
    before = await scrape(small)
    slow = [Slow(*kind) for kind in (SLOW_HEAD, SLOW_BODY, SLOW_CHUNKS, (HEAD, b""), (b"", b""))]
    async with asyncio.timeout(10 * SECOND):
        await asyncio.gather(*(each.run(small.port) for each in slow))
    after = await scrape(small)

    for each in slow[:-1]:
        head, _, body = each.got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"] == "request_timeout"
    assert slow[-1].got == b""  # there was no request to answer
    for each in slow:
        assert REQUEST_TIMEOUT_S * 0.9 < each.took_s < REQUEST_TIMEOUT_S + 2 * SECOND
    counted = {
        key: after[key] - count
        for key, count in before.items()
        if key.startswith("sse_push_errors_total") and after[key] != count
    }
    assert counted == {"sse_push_errors_total{request_timeout}": 5}


async def test_an_idle_connection_and_an_event_stream_outlive_the_time_of_a_request(
    empty: Service, merchant: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", empty.port)
    request = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
    try:
        async with open_stream(empty.url, merchant) as stream:
            writer.write(request)
            first = await reader.readuntil(b'{"alive":true}')
            for _ in range(2):
                await Slow(HEAD).run(empty.port)
            writer.write(request)
            second = await reader.readuntil(b'{"alive":true}')
            beats = len(stream.of("heartbeat"))
            await stream.next("heartbeat", beats + 1)
    finally:
        writer.transport.abort()

    assert {first[:13], second[:13]} == {b"HTTP/1.1 200 "}
    assert stream.headers["connection"] == "close"  # the fast way


async def test_other_clients_are_served_at_once_while_slow_clients_hang(
    redis: Redis, tmp_path: Path
) -> None:
    timeout_s = 4 * SECOND
    service = Service.start(tmp_path, redis.url, request_timeout_s=timeout_s, drain_s=0.5)
    before = open_fds(service.worker)
    kinds = [SLOW_HEAD, SLOW_BODY, SLOW_CHUNKS, (b"", b"")]
    slow = [Slow(*kinds[number % 4], interval_s=timeout_s / 8) for number in range(200)]
    hanging = [asyncio.create_task(each.run(service.port)) for each in slow]
    waits = []
    try:
        # The last request to /readyz may still have been open when the files were counted before.
        await until(lambda: open_fds(service.worker) >= before + 195, "the slow", timeout_s)
        async with AsyncExitStack() as stack:
            for number in range(100):
                began_at = time.monotonic()
                stream = await stack.enter_async_context(open_stream(service.url, f"m{number}"))
                await stream.next("ready")
                waits.append(time.monotonic() - began_at)
            await asyncio.wait(hanging, timeout=10 * SECOND)
            assert all(task.done() for task in hanging)
        await until(lambda: open_fds(service.worker) <= before + 5, "their files again")
    finally:
        for task in hanging:
            task.cancel()
        assert service.stop() == 0
    service.assert_no_errors()

    assert max(waits) < 3 * SECOND
    assert {each.got.partition(b"\r\n")[0] for each in slow} == {
        b"HTTP/1.1 408 Request Timeout",
        b"",
    }
    assert max(each.took_s for each in slow) < timeout_s + 3 * SECOND
