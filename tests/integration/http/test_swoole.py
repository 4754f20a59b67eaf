"""``swoole_compat``: the call of the old Swoole server, from a backend that is not changed yet."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.in_process import serving_here
from tests.harness.redis import Redis
from tests.harness.stream import open_stream
from tests.harness.waiting import SECOND
from tests.integration.http.stored import NAME, appends, entries

COMPAT: dict[str, Any] = {"swoole_compat": "on", "host": "127.0.0.1"}


@pytest.fixture
async def backend(redis: Redis, tmp_path: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    """An old backend, which sends no header that it need not."""
    settings = {**COMPAT, "notify_rate_per_s": 0.001, "notify_burst": 2}
    async with serving_here(redis.url, tmp_path, **settings) as url, client_of(url) as client:
        yield client


def client_of(url: str) -> plain_http.AsyncClient:
    return plain_http.AsyncClient(base_url=url, timeout=5 * SECOND)


async def test_the_old_call_notifies_and_is_answered_as_it_was(
    redis: Redis, backend: httpx2.AsyncClient, merchant: str
) -> None:
    async with open_stream(str(backend.base_url), merchant) as stream:
        await stream.next("refresh")
        answer = await backend.get(f"/?merchantId={merchant}&t=1732651200")
        refresh = await stream.next("refresh", 2)
    metrics = (await backend.get("/metrics")).text

    assert (answer.status_code, answer.text) == (200, "success")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert f'"merchant_id":"{merchant}"' in refresh.data
    assert entries(redis, merchant) == 1
    assert "\nsse_push_swoole_requests_total 1.0\n" in metrics
    assert '\nsse_push_notifications_total{outcome="stored"} 1.0\n' in metrics


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
async def test_no_other_method_notifies(
    redis: Redis, backend: httpx2.AsyncClient, merchant: str, method: str
) -> None:
    answer = await backend.request(method, f"/?merchantId={merchant}")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert entries(redis, merchant) == 0


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("", f"merchantId: expected {NAME}, or an integer; got none"),
        ("merchantId=", f"merchantId: expected {NAME}, or an integer; got '' (string)"),
        ("merchantId=4%202", f"merchantId: expected {NAME}, or an integer; got '4 2' (string)"),
        ("merchantId=1&merchantId=2", "merchantId: expected once in the query, got 2 times"),
        (
            "merchantId[]=42",
            "expected merchantId, got merchantId[]: did you mean merchantId?",
        ),
        ("merchant_id=42", "expected merchantId, got merchant_id: did you mean merchantId?"),
    ],
)
async def test_a_call_without_one_merchant_is_400_and_not_a_success(
    redis: Redis, backend: httpx2.AsyncClient, query: str, detail: str
) -> None:
    before = appends(redis)

    answer = await backend.get(f"/?{query}")

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403, "page_not_backend"),
        ({"Referer": "https://evil.test/"}, 403, "page_not_backend"),
        ({"Host": "evil.test:8000"}, 421, "host_not_allowed"),
        ({"X-Forwarded-For": "127.0.0.1"}, 403, "proxy_not_backend"),
    ],
)
async def test_a_browser_and_a_proxy_on_the_machine_do_not_notify(
    redis: Redis,
    backend: httpx2.AsyncClient,
    merchant: str,
    headers: dict[str, str],
    status: int,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await backend.get(f"/?merchantId={merchant}", headers=headers)

    assert answer.status_code == status
    assert f"refused reason={reason} status={status} path=/ who=" in caplog.text
    assert entries(redis, merchant) == 0


async def test_the_old_call_has_a_rate_as_a_key_has(
    backend: httpx2.AsyncClient, merchant: str
) -> None:
    answers = [await backend.get(f"/?merchantId={merchant}") for _ in range(3)]

    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[-1].headers["retry-after"].isdigit()


async def test_an_address_that_is_not_trusted_does_not_notify(
    redis: Redis, tmp_path: Path, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {**COMPAT, "trusted_backends": "10.1.0.0/16"}
    async with serving_here(redis.url, tmp_path, **settings) as url, client_of(url) as client:
        answer = await client.get(f"/?merchantId={merchant}")

    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert "reason=backend_not_trusted status=403 path=/ who=address 127.0.0.1 " in caplog.text
    assert " setting=trusted_backends " in caplog.text
    assert entries(redis, merchant) == 0


async def test_the_old_call_is_another_path_unless_it_is_switched_on_and_all_are_logged(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_here(redis.url, tmp_path) as url, client_of(url) as client:
        statuses = [(await client.get("/?merchantId=42")).status_code for _ in range(4)]
        at_first = caplog.text.count("reason=not_found")

    counts = re.findall(r"reason=not_found status=404 path=/ .* count=(\d)", caplog.text)
    assert (statuses, at_first, counts) == ([404] * 4, 1, ["1", "3"])


async def test_a_call_that_redis_does_not_store_is_503_and_not_a_success(tmp_path: Path) -> None:
    nowhere = "redis://127.0.0.1:1"
    settings = {**COMPAT, "notify_timeout_s": 0.1}
    async with serving_here(nowhere, tmp_path, **settings) as url, client_of(url) as client:
        answer = await client.get("/?merchantId=42")

    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
