"""Event streams through nginx: bytes, heartbeats, resumption, reloads."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sse_push.access.tokens import TOKEN_BYTES
from sse_push.notification import EntryId, EventId
from sse_push.settings import Settings
from tests.harness.nginx import (
    OPEN,
    OUTSIDER,
    Nginx,
    Recorder,
    replacing,
)
from tests.harness.service import Service
from tests.harness.stream import Publisher, has_ended, open_stream, publishing, read_to
from tests.harness.waiting import SECOND, until

pytestmark = pytest.mark.nginx


async def test_the_first_bytes_come_at_once(nginx: Nginx, merchant: str) -> None:
    measured_ms = [await first_event_ms(nginx.port, f"{merchant}-{n}") for n in range(20)]

    sys.stdout.write(
        f"\nfirst event of a stream through nginx: median {statistics.median(measured_ms):.1f} ms,"
        f" worst of {len(measured_ms)} {max(measured_ms):.1f} ms\n"
    )
    assert statistics.median(measured_ms) < 100 * SECOND


async def first_event_ms(port: int, merchant_id: str) -> float:
    """Return the time from connecting to the end of the first event."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET /events?merchant_id={merchant_id} HTTP/1.1\r\nHost: test\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        async with asyncio.timeout(5 * SECOND):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"event: ready\n")
            await reader.readuntil(b"\n\n")
    finally:
        writer.transport.abort()
    return (time.perf_counter() - began) * 1000


async def test_events_pass_as_the_service_wrote_them(
    nginx: Nginx, service: Service, backend: Publisher, merchant: str
) -> None:
    await backend.notify(merchant)
    async with (
        open_stream(nginx.url, merchant) as stream,
        open_stream(service.url, merchant) as direct,
    ):
        await stream.next("refresh")
        await direct.next("refresh")
        before, before_direct = len(stream.body), len(direct.body)

        accepted = await backend.notify(merchant, topic="seats", data={"text": "线\n"}, by="tab-1")
        await stream.next("refresh", 2)
        await direct.next("refresh", 2)

    block = (
        f"id: {accepted}\n"
        "event: refresh\n"
        f'data: {{"merchant_id":"{merchant}","topic":"seats","data":{{"text":"线\\n"}},'
        '"by":"tab-1"}\n'
        "\n"
    ).encode()
    assert stream.body[before:].startswith(block)
    assert direct.body[before_direct:].startswith(block)
    assert stream.status == 200
    assert stream.headers["content-type"] == direct.headers["content-type"]
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"


async def test_events_come_one_by_one_to_a_client_that_takes_gzip(
    nginx: Nginx, backend: Publisher, merchant: str
) -> None:
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    async with open_stream(nginx.url, merchant, headers=headers) as stream:
        await stream.next("refresh")

        for count in range(2, 7):
            accepted = await backend.notify(merchant)
            assert (await stream.next("refresh", count)).id == accepted

    assert "content-encoding" not in stream.headers


async def test_heartbeats_pass(nginx: Nginx, merchant: str) -> None:
    async with open_stream(nginx.url, merchant) as stream:
        await stream.next("heartbeat", 2)


async def test_a_client_resumes(nginx: Nginx, backend: Publisher, merchant: str) -> None:
    seen = await backend.notify(merchant)
    newest = await backend.notify(merchant, topic="seats")

    async with (
        open_stream(nginx.url, merchant, newest) as nothing_missed,
        open_stream(nginx.url, merchant, seen) as one_missed,
    ):
        await nothing_missed.next("heartbeat")
        await one_missed.next("heartbeat")

    assert nothing_missed.refreshes == []
    assert nothing_missed.of("ready")[0].id == newest
    assert [(event.id, json.loads(event.data)) for event in one_missed.refreshes] == [
        (newest, {"merchant_id": merchant, "topic": "seats", "reason": "missed"})
    ]


@pytest.mark.parametrize("query", ["", "merchant_id=a/b", "merchant_id=1&grant=1&grant=1"])
async def test_a_400_passes_as_it_is(nginx: Nginx, service: Service, query: str) -> None:
    async with nginx.client() as client:
        answer = await client.get(f"/events?{query}", headers={"Accept": "text/event-stream"})
        direct = await client.get(f"{service.url}/events?{query}")

    assert answer.status_code == 400
    assert answer.content == direct.content
    assert answer.json()["error"] == "malformed"


async def test_the_longest_url_of_a_stream_fits_into_what_nginx_reads(nginx: Nginx) -> None:
    """As many merchants as one connection may have, with the longest names, all with positions."""
    most = Settings.model_fields["max_merchants_per_connection"].default
    merchants = [f"{number:02}".ljust(64, "m") for number in range(most)]
    positions = [f"{each}%40{2**41}-999.0a1b2c3d" for each in merchants]
    query = "&".join(
        [
            *(f"merchant_id={each}" for each in merchants),
            *(f"last_event_id={each}" for each in positions),
            f"token={'t' * TOKEN_BYTES}",
        ]
    )
    async with open_stream(nginx.url, query=query) as stream:
        ready = json.loads((await stream.next("ready")).data)
    async with nginx.client() as client:
        longer = await client.get(f"/events?{query}&last_event_id={'x' * 1536}")

    assert [*ready["merchants"]] == merchants
    assert 7000 < len(query) < 7400
    assert (longer.status_code, longer.json()) == (
        414,
        {"error": "too_large", "detail": "expected a request line of at most 8 KiB"},
    )


async def test_a_stream_is_only_read(nginx: Nginx) -> None:
    async with nginx.client() as client:
        answer = await client.post("/events?merchant_id=42")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.json()["error"] == "method_not_allowed"


async def test_a_stream_is_open_to_an_outsider(nginx: Nginx, merchant: str) -> None:
    async with (
        nginx.client(OUTSIDER) as client,
        client.stream("GET", f"/events?merchant_id={merchant}") as answer,
    ):
        assert answer.status_code == 200
        async with asyncio.timeout(5 * SECOND):
            assert (await anext(answer.aiter_raw())).startswith(b"retry: ")


# -- silence


STREAM = {"Accept": "text/event-stream"}

SILENCE_S = 3 * SECOND
"""The shipped 75 s divided by 25, as the heartbeat of ``real`` is."""
SHORT = {"proxy_read_timeout 75s": f"proxy_read_timeout {SILENCE_S * 1000:.0f}ms"}


async def test_a_stream_that_is_silent_but_for_heartbeats_stays_open(
    real: Service, tmp_path: Path, merchant: str
) -> None:
    """For longer than twice the time after which nginx ends a silent one, with HTTP/1.1 and 2."""
    shorter = SHORT | {"keepalive_timeout 75s": f"keepalive_timeout {SILENCE_S * 1000:.0f}ms"}
    upstream = f"127.0.0.1:{real.port}"

    async def listen(nginx: Nginx, *, http2: bool) -> tuple[str, float, str]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(nginx.client(http2=http2))
            began = asyncio.get_running_loop().time()
            answer = await stack.enter_async_context(
                client.stream("GET", f"/events?merchant_id={merchant}", headers=STREAM)
            )
            reader = answer.aiter_text()
            await read_to(reader, "event: refresh")
            got = ""
            while got.count("event: heartbeat") < 12:
                got += await read_to(reader, "event: heartbeat")
            return answer.http_version, asyncio.get_running_loop().time() - began, got

    with Nginx.start(tmp_path / "nginx", upstream, tls=True, adapt=replacing(shorter)) as nginx:
        both = await asyncio.gather(*(listen(nginx, http2=each) for each in (False, True)))

    assert [version for version, _, _ in both] == ["HTTP/1.1", "HTTP/2"]
    assert min(lived_s for _, lived_s, _ in both) > 2 * SILENCE_S
    assert not any("goodbye" in got for _, _, got in both)


async def test_a_silent_service_is_given_up(recorded: tuple[Recorder, str], tmp_path: Path) -> None:
    recorder, upstream = recorded
    recorder.answer = OPEN
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(SHORT)) as nginx:
        async with open_stream(nginx.url) as stream:
            await until(lambda: stream._task is not None and stream._task.done(), "its end")

    assert not stream.is_complete


# -- the promise


async def test_every_browser_ends_with_the_newest_id(
    workers: Service, tmp_path: Path, merchant: str
) -> None:
    browsers = [f"{merchant}-{number % 25}" for number in range(100)]
    newest: defaultdict[str, EventId] = defaultdict(lambda: EventId(EntryId(0, 0), ""))

    async def notify(backend: Publisher) -> None:
        chosen = random.choice(browsers)
        accepted = await backend.notify(chosen, topic=random.choice(["seats", "orders"]))
        newest[chosen] = max(newest[chosen], EventId.parse(accepted))

    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{workers.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream))
        backend = await stack.enter_async_context(publishing(nginx.internal_url))
        opening = (stack.enter_async_context(open_stream(nginx.url, name)) for name in browsers)
        streams = dict(enumerate(await asyncio.gather(*opening)))

        def are_current() -> bool:
            return all(
                streams[number].parser.last_event_id == str(newest[name])
                for number, name in enumerate(browsers)
                if name in newest
            )

        for _ in range(30):
            await asyncio.gather(*(notify(backend) for _ in range(10)))
        began = time.perf_counter()
        await until(are_current, "the newest ID everywhere")
        took_ms = (time.perf_counter() - began) * 1000

        assert not any(has_ended(stream) for stream in streams.values())

    processes = set()
    for number, stream in streams.items():
        ids = [EventId.parse(event.id) for event in stream.refreshes if event.id]
        told = {json.loads(event.data)["merchant_id"] for event in stream.refreshes}
        assert ids == sorted(set(ids))
        assert told == {browsers[number]}
        (ready,) = stream.of("ready")
        processes.add(json.loads(ready.data)["connection_id"].partition("-")[0])
    sys.stdout.write(
        f"\n100 browsers on {len(processes)} workers were current {took_ms:.0f} ms after the last"
        f" of 300 answers\n"
    )
    assert nginx.error_log == ""


async def test_a_poll_passes_as_the_service_answers_it_and_a_service_that_is_down_is_503(
    nginx: Nginx, deserted: Nginx, backend: Publisher, merchant: str
) -> None:
    url, headers = f"/events?merchant_id={merchant}", {"Accept": "application/json"}
    position = await backend.notify(merchant)
    async with nginx.client() as client, deserted.client() as of_nobody:
        owed = await client.get(url, headers=headers)
        current = await client.get(url, headers={**headers, "Last-Event-ID": position})
        down = await of_nobody.get(url, headers=headers)

    assert owed.json()["merchants"][merchant]["id"] == position
    assert current.json()["merchants"] == {}
    assert 5 <= int(current.headers["retry-after"]) <= 15
    assert current.headers["cache-control"] == "no-store"
    assert (down.status_code, down.headers["content-type"]) == (503, "application/json")
    assert int(down.headers["retry-after"]) > 0
