"""How often a key may notify, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, Deadline
from tests.integration.limits.room import KEYS
from tests.integration.test_metrics import scrape


@pytest.fixture
async def backend(small: Service) -> AsyncGenerator[Publisher]:
    """A backend whose key has not been used."""
    made = Publisher(small.url, KEYS.pop())
    yield made
    await made.close()


async def test_a_key_over_its_rate_is_accepted_again_after_retry_after(
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
    await asyncio.sleep(retry_after_s)  # as the answer asks

    assert statuses == [200] * 4
    assert answer.status_code == 429
    assert answer.json() == {
        "error": "rate_limited",
        "detail": "expected at most 2 notifications and revocations per second, "
        "and 4 at once, got more",
    }
    assert retry_after_s == 2  # at most 1.5 s, rounded up
    assert stored == "4"
    key = "sse_push_errors_total{rate_limited}"
    assert after[key] - before[key] == 1
    assert (await backend.post(json=[{"merchant_id": merchant}] * 3)).status_code == 200


async def test_an_array_counts_by_its_items_and_a_large_array_delays_the_next_request(
    backend: Publisher, merchant: str
) -> None:
    large = await backend.post(json=[{"merchant_id": merchant}] * 8)
    refused = await backend.post(json={"merchant_id": merchant})

    assert large.status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")


async def test_a_revocation_counts_as_a_notification_does(
    redis: Redis, backend: Publisher, merchant: str
) -> None:
    async def revoke() -> httpx2.Response:
        return await backend.client.post("/revoke", json={"merchant_id": merchant})

    statuses = [(await backend.post(json={"merchant_id": merchant})).status_code for _ in range(2)]
    statuses += [(await revoke()).status_code for _ in range(2)]
    answers = [await revoke(), await backend.post(json={"merchant_id": merchant})]
    stored = redis.cli("XRANGE", "sse_push:revocations", "-", "+").splitlines().count(merchant)

    assert statuses == [200] * 4
    assert [answer.status_code for answer in answers] == [429, 429]
    assert stored == 2


async def test_a_backend_without_a_key_is_refused_and_uses_up_no_rate(
    small: Service, backend: Publisher, merchant: str
) -> None:
    stranger = Publisher(small.url, "a-key-that-nobody-knows-0123456789")
    statuses = {(await stranger.post(json={"merchant_id": merchant})).status_code for _ in "12345"}
    await stranger.close()

    assert statuses == {401}
    assert (await backend.post(json=[{"merchant_id": merchant}] * 4)).status_code == 200


async def test_two_workers_share_the_rate_of_a_key(redis: Redis, tmp_path: Path) -> None:
    service = Service.start(
        tmp_path, redis.url, "--workers", "2", notify_rate_per_s=0.02, notify_burst=6, drain_s=0.5
    )
    taken = 0
    try:
        deadline = Deadline(5 * SECOND)
        while taken < 6 and not deadline.is_over():
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
