"""A service behind nginx that is down, killed, stopped or in trouble, and reloads of nginx."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sse_push.event_stream.wire import encode_goodbye
from tests.harness.http2 import Http2
from tests.harness.nginx import (
    OUTSIDER,
    SHIPPED,
    SITE,
    Nginx,
    Recorder,
    ask,
    line,
    make_certificate,
    replacing,
)
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import has_ended, open_stream, publishing
from tests.harness.waiting import SECOND, START_S, until

pytestmark = pytest.mark.nginx


async def test_an_event_stream_is_answered_softly_while_the_service_is_down(
    deserted: Nginx,
) -> None:
    async with deserted.client() as client:
        answers = [
            await client.get("/events?merchant_id=42", headers={"Accept": "text/event-stream"})
            for _ in range(40)
        ]

    retries_ms = []
    for answer in answers:
        found = re.match(rb"retry: ([0-9]+)\n", answer.content)
        assert found is not None, answer.content
        retries_ms.append(int(found[1]))
        assert answer.content == (
            b"retry: %d\n"
            b"event: goodbye\n"
            b'data: {"reason":"upstream_unavailable"}\n'
            b"\n" % retries_ms[-1]
        )
        assert answer.content == encode_goodbye("upstream_unavailable", retries_ms[-1])
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-sse-push-soft-answer"] == "1"
    assert 5000 <= min(retries_ms) < max(retries_ms) <= 30_000
    assert len(set(retries_ms)) > 5


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("*/*", 200),
        ("text/html, text/event-stream;q=0.9", 200),
        (None, 200),
        ("application/json", 503),
        ("text/html", 503),
    ],
)
async def test_a_client_that_accepts_no_event_stream_gets_503(
    deserted: Nginx, accept: str | None, status: int
) -> None:
    async with deserted.client() as client:
        del client.headers["Accept"]
        headers = {} if accept is None else {"Accept": accept}
        answer = await client.get("/events?merchant_id=42", headers=headers)

    assert answer.status_code == status
    if status == 503:
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "error": "unavailable",
            "detail": "the push service does not answer",
        }


async def test_a_notification_has_an_unknown_outcome_while_the_service_is_down(
    deserted: Nginx,
) -> None:
    async with deserted.client(internal=True) as client:
        answer = await client.post(
            "/notify", json={"merchant_id": "42"}, headers={"Authorization": f"Bearer {KEY}"}
        )

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "error": "unavailable",
        "detail": "the push service does not answer",
        "outcome": "unknown",
    }


async def test_a_killed_service_cuts_its_streams_and_the_next_one_takes_them_back(
    redis: Redis, tmp_path: Path, open_folder: Path, merchant: str
) -> None:
    uds = open_folder / "sse-push.sock"
    async with AsyncExitStack() as stack:
        service = Service.start(tmp_path, redis.url, uds=uds)
        stack.callback(service.stop)
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", f"unix:{uds}"))
        backend = await stack.enter_async_context(publishing(nginx.internal_url))
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        seen = await backend.notify(merchant)
        stream = await stack.enter_async_context(open_stream(nginx.url, merchant))
        await stream.next("refresh")

        service.kill()
        await until(lambda: has_ended(stream), "the end of the response")
        async with nginx.client() as client:
            soft = await client.get(f"/events?merchant_id={merchant}")
        unknown = await backend.post(json={"merchant_id": merchant})
        uds.unlink()
        stack.callback(Service.start(tmp_path, redis.url, uds=uds).stop)
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        newest = await backend.notify(merchant)
        async with open_stream(nginx.url, merchant, seen) as back:
            missed = await back.next("refresh")

    assert not stream.is_complete
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert unknown.status_code == 503
    assert missed.id == newest


async def test_a_service_that_stops_says_goodbye_and_completes_the_response(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    async with AsyncExitStack() as stack:
        service = Service.start(tmp_path, redis.url, drain_s=0.5 * SECOND)
        stack.callback(service.stop)
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream))
        stream = await stack.enter_async_context(open_stream(nginx.url, merchant))
        await stream.next("refresh")

        status = await asyncio.to_thread(service.stop)
        await stream.wait_complete()

    assert status == 0
    assert stream.events[-1].type == "goodbye"
    assert json.loads(stream.events[-1].data) == {"reason": "server_stopping"}
    assert nginx.error_log == ""


async def test_a_page_of_another_origin_that_is_named_may_read_a_soft_answer(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        upstream = f"127.0.0.1:{taken.getsockname()[1]}"
        example = '#"https://shop.example" $http_origin;'
        assert example in (SHIPPED / SITE).read_text(), "the line whose # is taken away"
        opening = "map $http_origin $sse_push_origin {"
        named = {opening: f"{opening}\n{example[1:]}"}
        with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(named)) as nginx:
            answers = [
                await ask(nginx.port, line("GET /events", f"Origin: {origin}"))
                for origin in ("https://shop.example", "https://shop.example.evil.test", "null")
            ]

    allowed = [headers.get("access-control-allow-origin") for _, headers, _ in answers]
    credentials = [headers.get("access-control-allow-credentials") for _, headers, _ in answers]
    assert allowed == ["https://shop.example", None, None]
    assert credentials == ["true", None, None]
    assert {headers["vary"] for _, headers, _ in answers} == {"Origin"}


# -- outages that the service reports


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_outage_that_the_service_reports_is_answered_softly(
    plain: tuple[Recorder, Nginx], status: int
) -> None:
    service, nginx = plain
    service.answer = b"HTTP/1.1 %d Oops\r\nContent-Length: 4\r\n\r\noops" % status
    async with nginx.client() as client:
        soft = await client.get("/events", headers={"Accept": "text/event-stream"})
        told = await client.get("/events", headers={"Accept": "application/json"})

    assert soft.status_code == 200
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert told.status_code == 503


@pytest.mark.parametrize("status", [400, 401, 403, 405, 406, 421])
async def test_a_final_refusal_of_the_service_passes_unchanged(
    plain: tuple[Recorder, Nginx], status: int
) -> None:
    service, nginx = plain
    service.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    async with nginx.client() as client:
        answer = await client.get("/events", headers={"Accept": "text/event-stream"})

    assert (answer.status_code, answer.content) == (status, b"no")


async def test_a_notification_that_was_sent_is_not_sent_again(
    plain: tuple[Recorder, Nginx],
) -> None:
    service, nginx = plain
    async with nginx.client(internal=True) as client:
        accepted = await client.post("/notify", content=b"{}")
        service.answer = b""
        unanswered = await client.post("/notify", content=b"{}")

    assert accepted.status_code == 200
    assert unanswered.status_code == 503
    assert unanswered.json()["outcome"] == "unknown"
    assert len(service.requests) == 2


async def test_monitoring_gets_the_same_form_of_error_while_the_service_is_down(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{taken.getsockname()[1]}") as nginx:
            async with nginx.client(internal=True) as client:
                answer = await client.get("/readyz")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": "unavailable", "detail": "the push service does not answer"}


async def test_the_readiness_of_the_service_passes_unchanged(
    plain: tuple[Recorder, Nginx],
) -> None:
    service, nginx = plain
    said = b'{"ready":false}'
    service.answer = b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    async with nginx.client(internal=True) as client:
        answer = await client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, said)


# -- reloads


async def test_a_reload_keeps_streams_open_and_events_coming(
    service: Service, tmp_path: Path, merchant: str
) -> None:
    with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{service.port}") as nginx:
        async with (
            publishing(service.url) as backend,
            open_stream(nginx.url, merchant) as stream,
        ):
            await stream.next("refresh")
            assert nginx.healthz(OUTSIDER) == 403
            site = nginx.folder / SITE
            site.write_text(site.read_text().replace("deny all;", f"allow {OUTSIDER}; deny all;"))

            nginx.reload()
            await until(lambda: nginx.healthz(OUTSIDER) == 200, "only new workers to accept")
            accepted = [await backend.notify(merchant)]
            await stream.next("refresh", 2)
            nginx.reload()
            accepted.append(await backend.notify(merchant))
            await stream.next("refresh", 3)

            assert [event.id for event in stream.refreshes[1:]] == accepted
            assert not has_ended(stream)


async def test_a_reload_under_tls_keeps_streams_and_new_ones_meet_new_workers(
    real: Service, tmp_path: Path, merchant: str
) -> None:
    """A browser with two tabs would otherwise hold an old worker until its streams are cut."""
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{real.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        backend = await stack.enter_async_context(publishing(real.url))
        over_1 = await stack.enter_async_context(
            open_stream(nginx.url, merchant, trust=nginx.trust())
        )
        over_2 = await stack.enter_async_context(Http2.connect(nginx))
        number = over_2.ask("GET", f"/events?merchant_id={merchant}")
        await over_1.next("refresh")
        await over_2.body_to(number, b"event: refresh")
        for path in (nginx.folder / "tls").iterdir():
            path.unlink()
        make_certificate(nginx.folder)  # a renewal

        nginx.reload()
        await until(lambda: over_2.is_leaving, "GOAWAY")
        accepted = await backend.notify(merchant)
        fresh = await stack.enter_async_context(
            open_stream(nginx.url, merchant, trust=nginx.trust())
        )
        newest = await backend.notify(merchant)

        assert [(await over_1.next("refresh", count)).id for count in (2, 3)] == [accepted, newest]
        await over_2.body_to(number, f"id: {newest}\n".encode())
        await until(lambda: newest in [event.id for event in fresh.refreshes], "the newest ID")
        assert not over_1.is_complete
        assert number not in over_2.ended

    assert nginx.error_log == ""
