"""The limits of connections over real sockets: reached, refused as documented, and given back."""

from __future__ import annotations

import asyncio
import random
import re
import select
import socket
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.harness import plain_http
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, Deadline, wait_for
from tests.harness.wire import Wire
from tests.integration.http.requests import listen
from tests.integration.limits.room import (
    MAX,
    MAX_PER_ADDRESS,
    MAX_PER_MERCHANT,
    PROXY,
    eventually,
    opened,
    refusal,
    refused,
    sources,
    until_empty,
)
from tests.integration.test_metrics import scrape


async def admitted(service: Service, merchant: str) -> int:
    """Return how many connections are admitted, each of its own merchant."""
    whose = [(f"{merchant}-{at}", source) for at, source in enumerate(sources(MAX + 5))]
    async with opened(service, *whose) as streams:
        got = [await refusal(stream) for stream in streams]
    await until_empty(service)
    assert set(got[got.count(None) :]) == {"full"}
    return got.count(None)


async def test_clients_of_a_merchant_that_is_full_are_refused_and_those_of_others_are_not(
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


async def test_a_connection_to_several_merchants_has_a_place_at_each_and_one_in_the_process(
    empty: Service, merchant: str
) -> None:
    """Six of them fill two merchants, and half of the process; one full merchant is enough."""
    merchants = f"{merchant}-a", f"{merchant}-b"
    query = "&".join(f"merchant_id={each}" for each in merchants)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(open_stream(empty.url, query=query, source=source))
            for source in sources(MAX_PER_MERCHANT)
        ]
        assert {await refusal(stream) for stream in streams} == {None}
        for each in merchants:
            assert await refused(empty, each) == "merchant_full"
        assert (await scrape(empty))["sse_push_connections_open"] == MAX_PER_MERCHANT
        assert (await scrape(empty))["sse_push_merchants_live"] == len(merchants)
        several = f"merchant_id={merchant}-c&merchant_id={merchants[1]}"
        async with open_stream(empty.url, query=several, source="127.0.0.99") as stream:
            assert await refusal(stream) == "merchant_full"
        await streams[0].close()
        for each in merchants:
            await eventually(partial(refused, empty, each), None)


async def test_a_process_that_is_full_refuses_all_clients_until_one_leaves(
    empty: Service, merchant: str
) -> None:
    full = [(f"{merchant}-{at}", source) for at, source in enumerate(sources(MAX))]
    async with opened(empty, *full) as streams:
        assert {await refusal(stream) for stream in streams} == {None}
        assert await refused(empty, merchant) == "full"
        await streams[-1].close()
        await eventually(lambda: refused(empty, merchant), None)

    assert re.search("message=refused reason=full .* setting=max_connections ", empty.log)


async def test_an_address_has_its_own_limit_whatever_its_headers_say(
    empty: Service, merchant: str
) -> None:
    one, other = "127.0.2.1", "127.0.2.2"
    async with opened(empty, *[(merchant, one)] * MAX_PER_ADDRESS) as streams:
        assert {await refusal(stream) for stream in streams} == {None}
        assert await refused(empty, f"{merchant}-other", one) == "too_many_connections"
        for spoofed in ("203.0.113.5", f"203.0.113.5, {other}", PROXY):
            reason = await refused(empty, merchant, one, X_Forwarded_For=spoofed)
            assert reason == "too_many_connections"
        assert await refused(empty, merchant, other) is None
        await streams[0].close()
        await eventually(lambda: refused(empty, merchant, one), None)


async def test_a_client_that_names_another_address_takes_no_place_of_it(
    empty: Service, merchant: str
) -> None:
    victim = "127.0.3.1"
    whose = [(merchant, "127.0.3.2")] * MAX_PER_ADDRESS
    async with opened(empty, *whose, headers={"X-Forwarded-For": victim}):
        assert await refused(empty, merchant, victim) is None


async def test_the_last_address_that_a_trusted_proxy_gives_counts(
    empty: Service, merchant: str
) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}
    async with opened(empty, *[(merchant, PROXY)] * MAX_PER_ADDRESS, headers=forwarded):

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
    forwarded = {"X-Forwarded-For": "2001:db8:1:2::1"}
    async with opened(empty, *[(merchant, PROXY)] * MAX_PER_ADDRESS, headers=forwarded):

        async def by_proxy(forwarded_for: str) -> str | None:
            return await refused(empty, merchant, PROXY, X_Forwarded_For=forwarded_for)

        assert await by_proxy("2001:db8:1:2:ffff::7") == "too_many_connections"
        assert await by_proxy("2001:db8:1:3::1") is None


async def test_a_proxy_that_gives_no_address_is_not_limited_by_its_own(
    empty: Service, merchant: str
) -> None:
    whose = [(merchant, PROXY)] * (MAX_PER_ADDRESS + 1)
    async with opened(empty, *whose) as silent:
        assert {await refusal(stream) for stream in silent} == {None}


@pytest.fixture(scope="module")
def unix_socket(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A service that listens there, and soon cuts clients that take no bytes."""
    folder = tmp_path_factory.mktemp("unix")
    path = folder / "sse.sock"
    timeout_s = 0.5 * SECOND
    with serving(
        folder, redis.url, uds=path, max_connections_per_address=1, send_timeout_s=timeout_s
    ):
        yield path


async def test_a_client_of_a_unix_socket_has_only_the_address_that_the_proxy_gives(
    unix_socket: Path,
) -> None:
    async def ask(*headers: str) -> tuple[str, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(unix_socket)
        lines = ["GET /events?merchant_id=42 HTTP/1.1", "Host: test", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return (await reader.readuntil(b"\n\n")).decode(), writer

    got = [
        await ask(*([] if client is None else [f"X-Forwarded-For: {client}"]))
        for client in (None, None, "192.0.2.1", "192.0.2.1", "192.0.2.2")
    ]
    is_refused = ["too_many_connections" in text for text, _ in got]
    for _, writer in got:
        writer.transport.abort()

    assert is_refused == [False, False, False, True, False]


ASKED = b"GET /openapi.json HTTP/1.1\r\nHost: test\r\n%b\r\n"
UNREAD = {
    "answers": ASKED % b"" * 60,
    "answers, of which the last ends the connection": ASKED % b"" * 59
    + ASKED % b"Connection: close\r\n",
    "answers and an event stream": ASKED % b"" * 59 + listen("merchant_id=42"),
}


def test_a_client_of_a_unix_socket_that_does_not_read_is_cut(unix_socket: Path) -> None:
    """TCP has ``tcp_user_timeout_ms`` as well; here nothing but the service could end it."""
    poll = select.poll()
    with ExitStack() as stack:
        for request in UNREAD.values():
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(unix_socket))
            client.sendall(request)
            poll.register(client, select.POLLHUP)
        at_first = poll.poll(100)

        wait_for(lambda: len(poll.poll(0)) == len(UNREAD), "their end", 3 * SECOND)

    assert at_first == [], "all wait for bytes to be taken"


async def test_a_client_that_accepts_no_event_stream_is_refused_by_a_status(
    empty: Service, merchant: str
) -> None:
    whose = [(merchant, "127.0.0.1")] * MAX_PER_ADDRESS
    async with opened(empty, *whose), plain_http.AsyncClient(base_url=empty.url) as client:
        answer = await client.get(
            "/events", params={"merchant_id": merchant}, headers={"Accept": "application/json"}
        )

    assert answer.status_code == 503
    assert answer.json() == {"error": "unavailable", "detail": "too_many_connections"}
    assert int(answer.headers["retry-after"]) > 0


async def test_only_an_event_stream_takes_a_place(empty: Service, merchant: str) -> None:
    async with plain_http.AsyncClient(base_url=empty.url) as client:
        for _ in range(2 * MAX):
            await client.head("/events", params={"merchant_id": merchant})
            await client.get("/events", params={"merchant_id": "%"})
            await client.get("/healthz")

    assert await admitted(empty, merchant) == MAX


async def test_clients_that_connect_at_once_are_admitted_up_to_the_limit(
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


async def test_a_place_is_given_back_once_however_its_connection_ends(
    empty: Service, merchant: str
) -> None:
    """At random: canceled before a byte, cut off, closed, refused. All places are free then."""
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


async def test_a_client_that_takes_no_bytes_loses_its_place(redis: Redis, tmp_path: Path) -> None:
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
            deadline = Deadline(10 * SECOND)
            while await refused(service, "42") is not None:
                assert not deadline.is_over(), "expected the sleeper to be ended"
                await publisher.post(json=items)
        scraped = await scrape(service)
    finally:
        await publisher.close()
        assert service.stop() == 0
    service.assert_no_errors()

    assert scraped["sse_push_connections_closed_total{stalled}"] == 1


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"


def test_a_service_with_few_files_serves_fewer_browsers_and_those_before_clients_that_rest(
    redis: Redis, tmp_path: Path
) -> None:
    few_files = ("sh", "-c", 'ulimit -n 300 && exec "$@"', "sh")

    with serving(tmp_path, redis.url, through=few_files) as service, ExitStack() as stack:
        scraped = asyncio.run(scrape(service))
        resting = [stack.enter_context(Wire(service.port, HEALTHZ)) for _ in range(320)]
        streams = [
            stack.enter_context(Wire(service.port, listen(f"merchant_id={number}")))
            for number in range(44)
        ]
        answers = [each.answer() for each in streams]
        assert [resting[number].answer() is None for number in (0, 100, -1)] == [False] * 3
        is_cut = [resting[number].is_closed() for number in (0, 100)]
        resting[-1].send(HEALTHZ)
        last = resting[-1].answer()

    assert scraped["sse_push_connections_limit"] == 300 - 256
    assert "too few open files" in service.log
    assert "max_connections=15000 serving=44 needed=15256 allowed=300" in service.log
    assert [each.status for each in answers if each is not None] == [200] * 44
    assert is_cut == [True, True]
    assert last is not None
    assert service.log.count("resting connections cut") == 1
