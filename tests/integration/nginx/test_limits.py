"""How much one client may take of nginx: streams, requests, time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sse_push.event_stream.wire import encode_goodbye
from tests.harness.http2 import Http2
from tests.harness.nginx import (
    EVENTS,
    OPEN,
    OUTSIDER,
    SHIPPED,
    Nginx,
    Recorder,
    ask,
    fields,
    line,
    replacing,
)
from tests.harness.service import Service
from tests.harness.stream import has_ended, open_stream
from tests.harness.waiting import SECOND, START_S, until, wait_for

pytestmark = pytest.mark.nginx


@pytest.mark.parametrize(
    "limit", ["limit_conn sse_push_address 200", "limit_conn sse_push_worker 8000"]
)
async def test_a_stream_beyond_the_limit_is_answered_softly_until_another_ends(
    recorded: tuple[Recorder, str], tmp_path: Path, limit: str
) -> None:
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {limit: re.sub(r"\d+$", "2", limit), "worker_processes auto": "worker_processes 1"}
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller))
        )
        await stack.enter_async_context(open_stream(nginx.url))
        async with open_stream(nginx.url):
            status, headers, body = await ask(nginx.port, EVENTS % b"text/event-stream")
            told, told_headers, told_body = await ask(nginx.port, EVENTS % b"application/json")
            other = await status_of_stream(nginx, OUTSIDER)
        ended = 2 if other == "open" else 1
        await until(
            lambda: nginx.access_log.count('"limit_conn":"PASSED"') == ended, "the second's end"
        )
        after = await stack.enter_async_context(open_stream(nginx.url))

    retry_ms = re.match(rb"retry: (\d+)\n", body)
    assert retry_ms is not None
    assert body == encode_goodbye("too_many_connections", int(retry_ms[1]))
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert headers["x-sse-push-soft-answer"] == "1"
    assert (told, told_headers["retry-after"]) == (503, "5")
    assert json.loads(told_body) == {
        "error": "unavailable",
        "detail": "expected fewer open connections",
    }
    assert other == ("soft" if "worker" in limit else "open")
    assert (after.status, after.headers["transfer-encoding"]) == (200, "chunked")
    assert '"limit_conn":"REJECTED"' in nginx.access_log
    assert nginx.error_log == ""


async def status_of_stream(nginx: Nginx, source: str) -> str:
    async with nginx.client(source) as client, client.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        return "soft" if "x-sse-push-soft-answer" in answer.headers else "open"


async def test_a_full_worker_answers_instead_of_dropping_connections(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    """The shipped sum, made small: 2 * 24 for streams, and 16 for short requests."""
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {
        "worker_processes auto": "worker_processes 1",
        "worker_connections 16384": "worker_connections 64",
        "limit_conn sse_push_worker 8000": "limit_conn sse_push_worker 24",
    }
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller))
        )
        streams = [await stack.enter_async_context(open_stream(nginx.url)) for _ in range(24)]
        more = [await ask(nginx.port, EVENTS % b"text/event-stream") for _ in range(40)]
        lives = (await ask(nginx.internal_port, line("GET /elsewhere")))[0]

    assert {stream.headers["transfer-encoding"] for stream in streams} == {"chunked"}
    assert all(b"too_many_connections" in body for _, _, body in more)
    assert nginx.error_log == ""
    assert lives == 404


def test_a_worker_of_nginx_may_open_as_many_files_as_configured(
    real: Service, tmp_path: Path
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = re.search(
        r"\nworker_rlimit_nofile (\d+);", (SHIPPED / "snippets/process.conf").read_text()
    )
    assert said is not None

    with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{real.port}") as nginx:
        wait_for(lambda: nginx.workers() != [], "workers")
        limits = [Path(f"/proc/{child}/limits").read_text() for child in nginx.workers()]

    allowed = {match[1] for text in limits if (match := re.search(r"open files +(\d+)", text))}
    assert allowed == {said[1] if os.geteuid() == 0 or most >= int(said[1]) else str(most)}


async def test_a_seat_does_not_outlive_the_worker_that_was_killed_with_it(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    """A count of a killed worker is never taken back, not even by a reload."""
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {
        "worker_processes auto": "worker_processes 1",
        "limit_conn sse_push_address 200": "limit_conn sse_push_address 2",
    }
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller))
        )
        before = [await stack.enter_async_context(open_stream(nginx.url)) for _ in range(2)]
        full = await status_of_stream(nginx, "127.0.0.1")

        await kill_worker(nginx)
        await until(lambda: all(map(has_ended, before)), "the end of the responses")
        after = [await stack.enter_async_context(open_stream(nginx.url)) for _ in range(2)]
        full_again = await status_of_stream(nginx, "127.0.0.1")

    assert full == full_again == "soft"
    assert {stream.headers.get("transfer-encoding") for stream in after} == {"chunked"}


async def kill_worker(nginx: Nginx) -> None:
    """Kill the only worker, and wait for the next one."""
    (killed,) = nginx.workers()
    os.kill(killed, signal.SIGKILL)
    await until(lambda: nginx.workers() not in ([], [killed]), "another worker", START_S)


async def test_every_stream_of_an_http2_connection_counts(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {"limit_conn sse_push_address 200": "limit_conn sse_push_address 2"}
    with Nginx.start(tmp_path / "nginx", upstream, tls=True, adapt=replacing(smaller)) as nginx:
        async with Http2.connect(nginx) as http2:
            numbers = [http2.ask("GET", "/events", ("accept", "text/event-stream")) for _ in "123"]
            await until(lambda: len(http2.statuses) == 3, "three answers")
            await http2.body_to(numbers[2], b"too_many_connections")

    assert set(http2.statuses.values()) == {200}
    assert http2.ended == {numbers[2]}


async def test_an_ipv6_network_is_one_address_for_a_limit(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    """The addresses come from a balancer, which nginx is told to believe, as nginx.conf says."""
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {
        "worker_processes auto": "worker_processes 1",
        "limit_conn sse_push_address 200": "limit_conn sse_push_address 1",
        "server_tokens off;": "server_tokens off; set_real_ip_from 127.0.0.1;"
        " real_ip_header X-Forwarded-For; real_ip_recursive on;",
    }
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller)) as nginx:
        first = {"X-Forwarded-For": "192.0.2.1, 2001:db8:a:b:1::1"}
        async with open_stream(nginx.url, headers=first), nginx.client() as client:
            answers = {}
            for address in ("2001:db8:a:b:ffff::2", "2001:db8:a:c::1", "192.0.2.1"):
                forwarded = {"X-Forwarded-For": f"2001:db8:a:b:1::1, {address}"}
                async with client.stream("GET", "/events", headers=forwarded) as answer:
                    answers[address] = "x-sse-push-soft-answer" in answer.headers

    assert answers == {"2001:db8:a:b:ffff::2": True, "2001:db8:a:c::1": False, "192.0.2.1": False}
    assert [fields(request)["x-forwarded-for"] for request in recorder.requests] == [
        "2001:db8:a:b:1::1",
        "2001:db8:a:c::1",
        "192.0.2.1",
    ]


async def test_a_client_of_events_above_its_rate_is_answered_softly(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    """Whatever the service says: a rate is for those whom it refuses, above all."""
    recorder, upstream = recorded
    recorder.answer = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}"
    smaller = {"rate=50r/s": "rate=1r/m", "burst=1000": "burst=2"}
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller)) as nginx:
        kinds = [b"text/event-stream"] * 4 + [b"application/json"]
        answers = [await ask(nginx.port, EVENTS % kind) for kind in kinds]
        async with nginx.client(OUTSIDER) as client:
            other = await client.get("/events")
        ready = await ask(nginx.internal_port, line("GET /readyz"))
        await until(lambda: nginx.access_log.count("\n") == 7, "the log")

    assert [status for status, _, _ in answers] == [401, 401, 401, 200, 503]
    (_, headers, body), (_, told_headers, told) = answers[3:]
    retry_ms = re.match(rb"retry: (\d+)\n", body)
    assert retry_ms is not None
    assert body == encode_goodbye("rate_limited", int(retry_ms[1]))
    assert headers["content-type"] == "text/event-stream"
    assert headers["x-sse-push-soft-answer"] == "1"
    assert told_headers["retry-after"] == "5"
    assert json.loads(told) == {
        "error": "unavailable",
        "detail": "expected fewer requests per second",
    }
    assert (other.status_code, ready[0], len(recorder.requests)) == (401, 401, 5)
    refused = [line for line in nginx.access_log.splitlines() if '"limit_req":"REJECTED"' in line]
    assert [json.loads(line)["status"] for line in refused] == ["200", "503"]


async def test_a_backend_above_its_rate_gets_429(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = recorded
    smaller = {"rate=2000r/s": "rate=1r/m", "burst=4000": "burst=2", "deny all;": ""}
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller)) as nginx:
        async with nginx.client(internal=True) as client:
            answers = [await client.post("/notify", json={}) for _ in range(4)]
            revoked = await client.post("/revoke", json={})
            ready = await client.get("/readyz")
        async with nginx.client(OUTSIDER, internal=True) as client:
            other = await client.post("/notify", json={})

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].headers["content-type"] == "application/json"
    assert answers[3].json() == {
        "error": "rate_limited",
        "detail": "expected fewer requests per second",
    }
    assert [revoked.status_code, ready.status_code, other.status_code] == [429, 200, 200]
    assert len(recorder.requests) == 5
    refused = [line for line in nginx.access_log.splitlines() if '"limit_req":"REJECTED"' in line]
    assert [json.loads(line)["path"] for line in refused] == ["/notify", "/revoke"]


SLOW = {
    "half a header": b"GET /events HTTP/1.1\r\nHost: x\r\nX-Half: ",
    "half a body": b"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "half a chunk": b"POST /notify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
}


@pytest.mark.parametrize("shape", SLOW)
async def test_a_client_that_is_slow_on_purpose_is_ended_before_it_reaches_the_service(
    recorded: tuple[Recorder, str], tmp_path: Path, shape: str
) -> None:
    """The shipped 10 s divided by 25, on an idle machine; a hundred at once."""
    recorder, upstream = recorded
    limit_ms = round(400 * SECOND)
    shorter = {
        f"client_{part}_timeout 10s": f"client_{part}_timeout {limit_ms}ms"
        for part in ("header", "body")
    }
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, replacing(shorter)))
        port = nginx.internal_port if b"/notify" in SLOW[shape] else nginx.port
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in slow:
            stack.callback(writer.transport.abort)
            writer.write(SLOW[shape])
        async with open_stream(nginx.url, headers={"Connection": "close"}) as quick:
            assert quick.status == 200
        async with asyncio.timeout(5 * SECOND):
            ends = (reader.read() for reader, _ in slow)
            got = await asyncio.gather(*ends, return_exceptions=True)

    answers = [each for each in got if not isinstance(each, ConnectionResetError)]
    assert set(answers) <= {b""}, "cut off without an answer"
    assert len(recorder.requests) == 1, "the quick one"
