"""The lifespan of the service: what it answers while it drains."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from sse_push.http.app import ROUTES
from sse_push.http.openapi import describe
from tests.harness import plain_http
from tests.harness.in_process import serving_here
from tests.harness.redis import Redis
from tests.harness.stream import open_stream
from tests.harness.waiting import SECOND
from tests.integration.http.stored import entries


async def test_a_draining_service_gives_soft_answers_and_accepts_notifications(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    async with (
        serving_here(redis.url, tmp_path, allowed_origins="https://app.test") as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
        open_stream(url, merchant) as stream,
    ):
        await stream.next("refresh")
        signal.raise_signal(signal.SIGTERM)
        await stream.next("goodbye")
        await stream.wait_complete()

        soft = await client.get(
            f"/events?merchant_id={merchant}", headers={"Origin": "https://app.test"}
        )
        hard = await client.get("/events?merchant_id=42", headers={"Accept": "application/json"})
        head = await client.head("/events?merchant_id=42")
        told = await client.post("/notify", json={"merchant_id": merchant})
        ready = await client.get("/readyz")
        alive = await client.get("/healthz")

    first, *rest = soft.text.split("\n")
    assert soft.status_code == 200
    assert soft.headers["content-type"].startswith("text/event-stream")
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert soft.headers["access-control-allow-origin"] == "https://app.test"
    assert soft.headers["vary"] == hard.headers["vary"] == "Origin"
    assert soft.headers["cache-control"] == "no-store, no-transform"
    assert 5000 <= int(first.removeprefix("retry: ")) <= 30_000
    assert rest == ["event: goodbye", 'data: {"reason":"server_stopping"}', "", ""]
    assert (hard.status_code, 5 <= int(hard.headers["retry-after"]) <= 15) == (503, True)
    assert hard.json() == {"error": "unavailable", "detail": "server_stopping"}
    assert head.status_code == 200
    assert told.status_code == 200
    assert entries(redis, merchant) == 1
    assert (ready.status_code, ready.json()["ready"], ready.json()["draining"]) == (
        503,
        False,
        True,
    )
    assert alive.status_code == 200


async def test_a_service_that_ends_without_a_signal_logs_no_drain(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sse_push.http.app")

    async with serving_here(redis.url, tmp_path):
        pass

    assert caplog.messages == []


async def test_a_drain_is_logged_with_its_connections_and_its_time(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture, merchant: str
) -> None:
    caplog.set_level("INFO", "sse_push.http.app")

    async with serving_here(redis.url, tmp_path) as url, open_stream(url, merchant) as stream:
        await stream.next("refresh")
        signal.raise_signal(signal.SIGTERM)
        await stream.wait_complete()

    begun, ended = caplog.messages
    assert begun == "draining connections=1"
    assert re.fullmatch(r"drained took_s=[0-9.]+ connections_left=0", ended)


@pytest.mark.parametrize("notify_max_items", [7, 1000])
async def test_the_description_is_that_of_this_process(
    redis: Redis, tmp_path: Path, notify_max_items: int
) -> None:
    async with (
        serving_here(redis.url, tmp_path, notify_max_items=notify_max_items) as url,
        plain_http.AsyncClient(base_url=url) as client,
    ):
        answer = await client.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(
        json.dumps(describe(ROUTES, notify_max_items=notify_max_items))
    )


async def test_an_open_service_on_this_machine_answers_no_page_of_a_stranger(
    redis: Redis, tmp_path: Path
) -> None:
    """Its name leads to this machine, so that the browser takes the answer for that site's own."""
    stranger = {"Host": "evil.test:8000", "Origin": "http://evil.test:8000"}
    async with (
        serving_here(redis.url, tmp_path) as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
    ):
        refused = await client.get("/events?merchant_id=42", headers=stranger)
        others = [await client.get(path, headers=stranger) for path in ("/metrics", "/none")]
        head = await client.head("/events?merchant_id=42", headers=stranger)
        local = await client.head("/events?merchant_id=42", headers={"Host": "localhost:8000"})
        metrics = await client.get("/metrics")

    assert refused.json() == {
        "error": "host_not_allowed",
        "detail": "expected a host of allowed_hosts (SSE_PUSH_ALLOWED_HOSTS), got 'evil.test:8000'",
    }
    assert {answer.status_code for answer in (refused, *others, head)} == {421}
    assert local.status_code == 200
    assert 'sse_push_errors_total{error="host_not_allowed"} 4.0' in metrics.text
