"""Each limit over real sockets: reached, refused as documented, and given back."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.harness.processes import open_fds
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher, Stream, open_stream
from tests.harness.waiting import SECOND, until
from tests.integration.test_metrics import scrape

MAX = 12
MAX_PER_MERCHANT = 6
MAX_PER_ADDRESS = 3
KEYS = [f"key-{number}-of-the-tests-0123456789" for number in range(4)]
PROXY = "127.0.0.7"

REQUEST_TIMEOUT_S = SECOND


@pytest.fixture(scope="module")
def small(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service with little room, and one proxy that it trusts."""
    with serving(
        tmp_path_factory.mktemp("small"),
        redis.url,
        *("--notify-keys", ",".join([KEY, *KEYS])),
        max_connections=MAX,
        max_connections_per_merchant=MAX_PER_MERCHANT,
        max_connections_per_address=MAX_PER_ADDRESS,
        trusted_proxies=PROXY,
        request_timeout_s=REQUEST_TIMEOUT_S,
        notify_rate_per_s=2,
        notify_burst=4,
        heartbeat_s=SECOND,
        drain_s=0.5,
    ) as started:
        yield started


@pytest.fixture
async def empty(small: Service) -> AsyncGenerator[Service]:
    """The same, when the streams of the test before have ended."""
    await until_empty(small)
    yield small
    await until_empty(small)


async def until_empty(service: Service) -> None:
    deadline = time.monotonic() + 5 * SECOND
    while (told := await scrape(service))["sse_push_connections_open"]:
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(
    service: Service, *whose: tuple[str, str], headers: dict[str, str] | None = None
) -> AsyncGenerator[list[Stream]]:
    """Open a stream for each merchant and address."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_stream(service.url, merchant, source=source, headers=headers)
            )
            for merchant, source in whose
        ]


async def refusal(stream: Stream) -> str | None:
    """Return why there was no room, from a soft answer as the wire has it; None: there was."""
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    if "x-sse-push-soft-answer" not in stream.headers:
        await stream.next("ready")
        return None
    body = await stream.reader.readexactly(int(stream.headers["content-length"]))
    said = re.fullmatch(
        rb'retry: ([0-9]+)\nevent: goodbye\ndata: \{"reason":"([a-z_]+)"\}\n\n', body
    )
    assert said is not None, body
    assert 5000 <= int(said[1]) <= 30_000
    return said[2].decode()


async def refused(
    service: Service, merchant: str, source: str = "127.0.0.1", **headers: str
) -> str | None:
    """Try to open one stream, and give it back."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with open_stream(service.url, merchant, source=source, headers=given) as stream:
        return await refusal(stream)


async def eventually(ask: Callable[[], Awaitable[str | None]], expected: str | None) -> None:
    """Ask again and again: a place is given back when the service has heard of the end."""
    deadline = time.monotonic() + 5 * SECOND
    while (got := await ask()) != expected:
        assert time.monotonic() < deadline, got
        await asyncio.sleep(0.01)


def sources(count: int) -> list[str]:
    """Return so many addresses, each as often as one may come."""
    return [f"127.0.1.{1 + number // MAX_PER_ADDRESS}" for number in range(count)]


# -- room


async def test_a_merchant_that_is_full_is_refused_and_others_are_not(
    empty: Service, merchant: str
) -> None:
    before = await scrape(empty)
    full = [(merchant, source) for source in sources(MAX_PER_MERCHANT)]
    async with opened(empty, *full) as streams:
        assert {await refusal(stream) for stream in streams} == {None}
        assert await refused(empty, merchant) == "merchant_full"
        assert await refused(empty, f"{merchant}-other") is None
        await streams[0].close()
        await eventually(lambda: refused(empty, merchant), None)
    after = await scrape(empty)

    key = "sse_push_soft_answers_total{merchant_full}"
    assert after[key] - before[key] >= 1
    assert after["sse_push_connections_limit"] == MAX


async def test_a_process_that_is_full_refuses_everybody_until_somebody_leaves(
    empty: Service, merchant: str
) -> None:
    full = [(f"{merchant}-{at}", source) for at, source in enumerate(sources(MAX))]
    async with opened(empty, *full) as streams:
        assert {await refusal(stream) for stream in streams} == {None}
        assert await refused(empty, merchant) == "full"
        await streams[-1].close()
        await eventually(lambda: refused(empty, merchant), None)

    assert "no room for a connection" in empty.log


async def test_an_address_has_its_own_limit_whatever_it_says_of_itself(
    empty: Service, merchant: str
) -> None:
    one, other = "127.0.2.1", "127.0.2.2"
    async with opened(empty, *[(merchant, one)] * MAX_PER_ADDRESS) as streams:
        assert {await refusal(stream) for stream in streams} == {None}
        assert await refused(empty, f"{merchant}-other", one) == "too_many_connections"
        for spoofed in ("203.0.113.5", f"203.0.113.5, {other}", PROXY):
            said = await refused(empty, merchant, one, X_Forwarded_For=spoofed)
            assert said == "too_many_connections"
        assert await refused(empty, merchant, other) is None
        await streams[0].close()
        await eventually(lambda: refused(empty, merchant, one), None)


async def test_whoever_names_another_s_address_does_not_use_up_its_places(
    empty: Service, merchant: str
) -> None:
    victim = "127.0.3.1"
    whose = [(merchant, "127.0.3.2")] * MAX_PER_ADDRESS
    async with opened(empty, *whose, headers={"X-Forwarded-For": victim}):
        assert await refused(empty, merchant, victim) is None


async def test_behind_a_trusted_proxy_the_last_address_that_it_gives_counts(
    empty: Service, merchant: str
) -> None:
    said = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}
    async with opened(empty, *[(merchant, PROXY)] * MAX_PER_ADDRESS, headers=said):

        async def by_proxy(forwarded_for: str) -> str | None:
            return await refused(empty, merchant, PROXY, X_Forwarded_For=forwarded_for)

        assert await by_proxy("198.51.100.1") == "too_many_connections"
        assert await by_proxy("203.0.113.77, 198.51.100.1") == "too_many_connections"
        assert await by_proxy("198.51.100.1, 198.51.100.2") is None
        assert await by_proxy("203.0.113.9") is None
        assert await refused(empty, merchant, "127.0.0.1") is None


async def test_an_ipv6_client_cannot_come_from_another_address_of_its_network(
    empty: Service, merchant: str
) -> None:
    said = {"X-Forwarded-For": "2001:db8:1:2::1"}
    async with opened(empty, *[(merchant, PROXY)] * MAX_PER_ADDRESS, headers=said):

        async def by_proxy(forwarded_for: str) -> str | None:
            return await refused(empty, merchant, PROXY, X_Forwarded_For=forwarded_for)

        assert await by_proxy("2001:db8:1:2:ffff::7") == "too_many_connections"
        assert await by_proxy("2001:db8:1:3::1") is None


async def test_a_proxy_that_says_no_address_is_not_limited_by_it(
    empty: Service, merchant: str
) -> None:
    whose = [(merchant, PROXY)] * (MAX_PER_ADDRESS + 1)
    async with opened(empty, *whose) as silent:
        assert {await refusal(stream) for stream in silent} == {None}


async def test_over_a_unix_socket_the_proxy_s_word_is_all_there_is(
    redis: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "sse.sock"
    service = Service.start(tmp_path, redis.url, uds=path, max_connections_per_address=1)

    async def ask(*headers: str) -> tuple[str, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(path)
        lines = ["GET /events?merchant_id=42 HTTP/1.1", "Host: test", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return (await reader.readuntil(b"\n\n")).decode(), writer

    try:
        got = [
            await ask(*([] if client is None else [f"X-Forwarded-For: {client}"]))
            for client in (None, None, "192.0.2.1", "192.0.2.1", "192.0.2.2")
        ]
        is_refused = ["too_many_connections" in text for text, _ in got]
        for _, writer in got:
            writer.transport.abort()
    finally:
        assert service.stop() == 0

    assert is_refused == [False, False, False, True, False]


async def test_a_client_that_takes_no_event_stream_is_told_by_a_status(
    empty: Service, merchant: str
) -> None:
    whose = [(merchant, "127.0.0.1")] * MAX_PER_ADDRESS
    async with opened(empty, *whose), httpx.AsyncClient(base_url=empty.url) as client:
        answer = await client.get(
            "/events", params={"merchant_id": merchant}, headers={"Accept": "application/json"}
        )

    assert answer.status_code == 503
    assert answer.json() == {"error": "unavailable", "detail": "too_many_connections"}
    assert int(answer.headers["retry-after"]) > 0


async def test_only_a_stream_takes_a_place(empty: Service, merchant: str) -> None:
    async with httpx.AsyncClient(base_url=empty.url) as client:
        for _ in range(2 * MAX):
            await client.head("/events", params={"merchant_id": merchant})
            await client.get("/events", params={"merchant_id": "%"})
            await client.get("/healthz")

    assert await admitted(empty, merchant) == MAX


async def admitted(service: Service, merchant: str) -> int:
    """Return for how many streams there is room, of one each merchant and few addresses."""
    whose = [(f"{merchant}-{at}", source) for at, source in enumerate(sources(MAX + 5))]
    async with opened(service, *whose) as streams:
        got = [await refusal(stream) for stream in streams]
    await until_empty(service)
    assert set(got[got.count(None) :]) == {"full"}
    return got.count(None)


async def test_all_who_come_at_once_are_let_in_up_to_the_limit_and_no_further(
    empty: Service, merchant: str
) -> None:
    async with AsyncExitStack() as stack:

        async def come(number: int) -> str | None:
            source = f"127.0.4.{1 + number % 200}"
            made = open_stream(empty.url, f"{merchant}-{number % 40}", source=source)
            return await refusal(await stack.enter_async_context(made))

        got = await asyncio.gather(*map(come, range(100)))

    assert got.count(None) == MAX
    assert got.count("full") == 100 - MAX


async def test_however_streams_end_each_place_comes_back_and_none_twice(
    empty: Service, merchant: str
) -> None:
    """Canceled before a byte, cut, closed, refused: at random, and then all places are there."""
    chance = random.Random(1)

    async def come_and_go() -> None:
        for _ in range(20):
            source = f"127.0.5.{chance.randrange(1, 6)}"
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", empty.port, local_addr=(source, 0)
            )
            query = f"merchant_id={merchant}-{chance.randrange(3)}"
            request = f"GET /events?{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
            how = chance.choice(["at once", "half", "first byte", "ready", "wait"])
            writer.write(request[: 20 if how == "half" else None])
            if how in {"first byte", "ready", "wait"}:
                await reader.readuntil({"first byte": b"H", "ready": b"\n\n"}.get(how, b"\r\n"))
            if how == "wait":
                await asyncio.sleep(chance.uniform(0, 0.05))
            if chance.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()

    await asyncio.gather(*(come_and_go() for _ in range(20)))
    await until_empty(empty)

    assert await admitted(empty, merchant) == MAX


async def test_a_stream_that_takes_no_bytes_gives_its_place_back(
    redis: Redis, tmp_path: Path
) -> None:
    service = Service.start(
        tmp_path,
        redis.url,
        max_connections=1,
        send_timeout_s=0.5 * SECOND,
        send_buffer_bytes=4096,
        refresh_interval_ms=1,
    )
    publisher = Publisher(service.url)
    try:
        async with open_stream(service.url, "sleeper") as sleeper:
            await sleeper.next("refresh")
            assert await refused(service, "42") == "full"
            sleeper.writer.transport.pause_reading()  # type: ignore[attr-defined]
            items = [{"merchant_id": "sleeper", "data": "x" * 8000}]
            deadline = time.monotonic() + 10 * SECOND
            while await refused(service, "42") is not None:
                assert time.monotonic() < deadline, "expected the sleeper to be ended"
                await publisher.post(json=items)
        told = await scrape(service)
    finally:
        await publisher.close()
        assert service.stop() == 0
    service.assert_no_errors()

    assert told["sse_push_connections_closed_total{stalled}"] == 1


def test_a_service_with_few_files_says_so_and_serves_what_it_can(
    redis: Redis, tmp_path: Path
) -> None:
    few_files = ("sh", "-c", 'ulimit -n 300 && exec "$@"', "sh")

    with serving(tmp_path, redis.url, through=few_files) as service:
        told = asyncio.run(scrape(service))

    assert told["sse_push_connections_limit"] == 300 - 256
    assert "too few open files" in service.log
    assert "max_connections=15000 serving=44 needed=15256 allowed=300" in service.log


# -- the size of a head


async def answer_to(service: Service, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send pieces as fast as they are taken, and return the answer, after which it is closed."""
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
async def test_a_head_that_is_too_large_is_refused_and_its_client_reads_so(
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


async def test_a_head_below_the_limit_is_served(empty: Service, merchant: str) -> None:
    said = await refused(empty, merchant, X="x" * 8000, Y="y" * 8000)

    assert said is None


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


async def test_what_trickles_or_stops_is_refused_in_time(small: Service) -> None:
    before = await scrape(small)
    slow = [Slow(*kind) for kind in (SLOW_HEAD, SLOW_BODY, SLOW_CHUNKS, (HEAD, b""), (b"", b""))]
    async with asyncio.timeout(10 * SECOND):
        await asyncio.gather(*(each.run(small.port) for each in slow))
    after = await scrape(small)

    for each in slow[:-1]:
        head, _, body = each.got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"] == "request_timeout"
    assert slow[-1].got == b""  # there was no request to be answered
    for each in slow:
        assert REQUEST_TIMEOUT_S * 0.9 < each.took_s < REQUEST_TIMEOUT_S + 2 * SECOND
    counted = {
        key: after[key] - count
        for key, count in before.items()
        if key.startswith("sse_push_errors_total") and after[key] != count
    }
    assert counted == {"sse_push_errors_total{request_timeout}": 5}


async def test_a_kept_alive_connection_and_a_stream_outlive_the_time_of_a_request(
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


async def test_while_slow_clients_hang_others_are_served_at_once(
    redis: Redis, tmp_path: Path
) -> None:
    timeout_s = 4 * SECOND
    service = Service.start(tmp_path, redis.url, request_timeout_s=timeout_s, drain_s=0.5)
    before = open_fds(service.process.pid)
    kinds = [SLOW_HEAD, SLOW_BODY, SLOW_CHUNKS, (b"", b"")]
    slow = [Slow(*kinds[number % 4], interval_s=timeout_s / 8) for number in range(200)]
    hanging = [asyncio.create_task(each.run(service.port)) for each in slow]
    waits = []
    try:
        # The last question whether it is ready may still have been open when it was counted before.
        await until(lambda: open_fds(service.process.pid) >= before + 195, "the slow", timeout_s)
        async with AsyncExitStack() as stack:
            for number in range(100):
                began_at = time.monotonic()
                stream = await stack.enter_async_context(open_stream(service.url, f"m{number}"))
                await stream.next("ready")
                waits.append(time.monotonic() - began_at)
            await asyncio.wait(hanging, timeout=10 * SECOND)
            assert all(task.done() for task in hanging)
        await until(lambda: open_fds(service.process.pid) <= before + 5, "their files again")
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


# -- notifications per second


@pytest.fixture
async def backend(small: Service) -> AsyncGenerator[Publisher]:
    """A backend with a key that nobody has used."""
    made = Publisher(small.url, KEYS.pop())
    yield made
    await made.close()


async def test_a_key_that_is_too_fast_is_told_when_to_come_back_and_then_taken(
    small: Service, redis: Redis, backend: Publisher, merchant: str
) -> None:
    before = await scrape(small)
    statuses = [(await backend.post(json={"merchant_id": merchant})).status_code for _ in range(4)]
    answer = await backend.post(json=[{"merchant_id": merchant}] * 3)
    stored = redis.cli("XLEN", f"sse_push:{{{merchant}}}")
    after = await scrape(small)
    retry_after_s = int(answer.headers["retry-after"])
    other = Publisher(small.url)
    assert await other.notify(merchant)
    await other.close()
    await asyncio.sleep(retry_after_s)  # as it was told

    assert statuses == [200] * 4
    assert answer.status_code == 429
    assert answer.json() == {
        "error": "rate_limited",
        "detail": "expected at most 2 notifications per second, and 4 at once, got more",
    }
    assert retry_after_s == 2  # at most 1.5 s, rounded up
    assert stored == "4"
    key = "sse_push_errors_total{rate_limited}"
    assert after[key] - before[key] == 1
    assert (await backend.post(json=[{"merchant_id": merchant}] * 3)).status_code == 200


async def test_an_array_counts_by_its_items_and_a_large_one_is_paid_off_after(
    backend: Publisher, merchant: str
) -> None:
    large = await backend.post(json=[{"merchant_id": merchant}] * 8)
    refused = await backend.post(json={"merchant_id": merchant})

    assert large.status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")


async def test_whoever_has_no_key_is_told_that_and_uses_up_nothing(
    small: Service, backend: Publisher, merchant: str
) -> None:
    stranger = Publisher(small.url, "a-key-that-nobody-knows-0123456789")
    statuses = {(await stranger.post(json={"merchant_id": merchant})).status_code for _ in "12345"}
    await stranger.close()

    assert statuses == {401}
    assert (await backend.post(json=[{"merchant_id": merchant}] * 4)).status_code == 200


async def test_two_workers_together_keep_to_the_rate(redis: Redis, tmp_path: Path) -> None:
    service = Service.start(
        tmp_path, redis.url, "--workers", "2", notify_rate_per_s=0.02, notify_burst=6, drain_s=0.5
    )
    taken = 0
    try:
        deadline = time.monotonic() + 5 * SECOND
        while time.monotonic() < deadline and taken < 6:
            publisher = Publisher(service.url)
            taken += (await publisher.post(json={"merchant_id": "42"})).status_code == 200
            await publisher.close()
        for _ in range(20):
            publisher = Publisher(service.url)
            taken += (await publisher.post(json={"merchant_id": "42"})).status_code == 200
            await publisher.close()
    finally:
        assert service.stop() == 0

    assert taken == 6
