"""``/metrics`` of two real workers: the numbers of both, whichever of them answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sse_push.metrics import SERIES
from tests.harness import plain_http
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, Stream, has_ended, open_stream
from tests.harness.waiting import SECOND, Deadline, wait_for
from tests.integration.test_server import processes_of

RESYNCS = "sse_push_resyncs_total{server_changed}"

Told = dict[str, float]


async def scrape(service: Service) -> Told:
    """Scrape once, over a new connection, which any worker may accept."""
    async with plain_http.AsyncClient() as client:
        answer = await client.get(f"{service.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def scraped_when(
    service: Service, is_so: Callable[[Told], bool], seconds: float = 5 * SECOND
) -> Told:
    """Scrape until the samples are as expected: another worker copies its counts once a second."""
    deadline = Deadline(seconds)
    while True:
        samples = await scrape(service)
        if is_so(samples):
            return samples
        assert not deadline.is_over(), samples
        await asyncio.sleep(0.05)


def rise(before: Told, now: Told, key: str) -> float:
    return now[key] - before[key]


@asynccontextmanager
async def open_streams(service: Service, merchant: str, count: int) -> AsyncGenerator[list[Stream]]:
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(open_stream(service.url, merchant))
            for _ in range(count)
        ]
        for stream in streams:
            await stream.next("refresh")
        yield streams


@pytest.fixture
def own(redis: Redis, tmp_path: Path) -> Generator[Service]:
    """Two workers for one test, which may kill them."""
    with serving(
        tmp_path,
        redis.url,
        "--workers",
        "2",
        probe_interval_s=SECOND,
        probe_deadline_s=2 * SECOND,
        drain_s=0.5 * SECOND,
        loop_stall_limit_s=60,  # a test freezes a worker, which shall not be replaced
    ) as started:
        yield started


async def test_a_scrape_of_several_workers_has_every_series_and_no_other(workers: Service) -> None:
    async with plain_http.AsyncClient() as client:
        answer = await client.get(f"{workers.url}/metrics")

    found = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(answer.text)
    }
    assert found == {
        name.removesuffix("_total"): (series.kind, series.meaning)
        for name, series in SERIES.items()
    }


async def test_the_numbers_of_both_workers_are_added_up(workers: Service, merchant: str) -> None:
    publisher = Publisher(workers.url)
    before = await scraped_when(workers, lambda samples: samples["sse_push_connections_open"] == 0)

    async with open_streams(workers, merchant, 40) as streams:
        assert len(processes_of(streams)) == 2
        for number in range(7):
            await publisher.notify(merchant, topic=f"t{number}")
        for _ in range(3):
            await publisher.post(content=b"{")
        await publisher.post(json=[{"merchant_id": merchant}, {"merchant_id": "%"}])
        now = await scraped_when(
            workers,
            lambda samples: (
                rise(before, samples, "sse_push_notifications_total{stored}") == 8
                and rise(before, samples, "sse_push_errors_total{malformed}") == 4
                and samples["sse_push_connections_open"] == 40
            ),
        )
    after = await scraped_when(workers, lambda samples: samples["sse_push_connections_open"] == 0)
    await publisher.close()

    assert rise(before, now, "sse_push_connections_opened_total") == 40
    assert now["sse_push_merchants_live"] == 2  # one merchant, in each of two workers
    assert now["sse_push_workers_alive"] == 2
    assert now["sse_push_event_loop_tasks"] >= 40
    assert now["sse_push_open_fds"] >= 40
    assert now["sse_push_resident_memory_bytes"] > 2 * 20 * 2**20
    assert 0 <= now["sse_push_probe_age_seconds"] < 2 * SECOND
    assert 0 <= now["sse_push_loop_lag_seconds"] < 2 * SECOND
    assert rise(before, after, "sse_push_connections_closed_total{client_disconnected}") == 40
    assert after["sse_push_merchants_live"] == 0
    assert after["sse_push_open_fds"] <= now["sse_push_open_fds"] - 40


async def test_a_refresh_is_counted_per_browser_and_its_age_per_fan_out(
    workers: Service, merchant: str
) -> None:
    publisher = Publisher(workers.url)
    before = await scrape(workers)

    async with open_streams(workers, merchant, 10) as streams:
        await publisher.notify(merchant)
        for stream in streams:
            await stream.next("refresh", 2)
        busy = len(processes_of(streams))
        now = await scraped_when(
            workers,
            lambda samples: rise(before, samples, "sse_push_refreshes_written_total") == 20,
        )
    await publisher.close()

    assert rise(before, now, "sse_push_delivery_age_seconds_count") == busy
    assert 0 < rise(before, now, "sse_push_delivery_age_seconds_sum") < 2 * SECOND


async def test_a_worker_that_is_killed_leaves_its_counts_and_no_gauge(
    own: Service, merchant: str
) -> None:
    publisher = Publisher(own.url)
    victim, _ = own.workers
    async with open_streams(own, merchant, 40) as streams:
        for _ in range(5):
            await publisher.notify(merchant)
        before = await scraped_when(
            own,
            lambda samples: (
                samples["sse_push_connections_opened_total"] == 40
                and samples["sse_push_notifications_total{stored}"] == 5
                and samples["sse_push_connections_open"] == 40
            ),
        )

        with frozen(own.process.pid):  # for as long as the one worker is alone
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: victim not in own.workers, "the end of the worker")
            alone = await scraped_when(
                own,
                lambda samples: (
                    samples["sse_push_workers_alive"] == 1
                    and samples["sse_push_connections_open"] < 40
                ),
            )
        left = [stream for stream in streams if not has_ended(stream)]
        assert 0 < len(left) < 40
        assert alone["sse_push_connections_open"] == len(left)

        now = await scraped_when(
            own,
            lambda samples: (
                samples["sse_push_workers_alive"] == 2
                and samples["sse_push_probe_age_seconds"] < 2 * SECOND
            ),
            20 * SECOND,
        )
        assert now["sse_push_connections_open"] == len(left)
        assert now["sse_push_merchants_live"] == 1
    await publisher.close()

    for samples in (alone, now):
        fallen = {
            key: (before[key], samples[key])
            for key in before
            if key.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))
            and samples[key] < before[key]
        }
        assert fallen == {}


async def test_a_stuck_worker_is_in_the_scrape_of_another(own: Service) -> None:
    await scraped_when(own, lambda samples: samples["sse_push_probe_age_seconds"] < 1.5 * SECOND)
    stuck, _ = own.workers

    with frozen(stuck):  # which accepts none of the connections of the scrapes
        samples = await scraped_when(
            own, lambda samples: samples["sse_push_probe_age_seconds"] >= 2 * SECOND, 10 * SECOND
        )

    assert samples["sse_push_workers_alive"] == 2
    await scraped_when(own, lambda samples: samples["sse_push_probe_age_seconds"] < 1.5 * SECOND)


async def test_the_last_counts_of_a_worker_are_in_a_scrape_after_its_end(
    own: Service, merchant: str
) -> None:
    publisher = Publisher(own.url)
    first = set(own.workers)
    before = await scrape(own)
    for _ in range(4):
        await publisher.notify(merchant)  # a moment ago, and in no worker's file yet

    for worker in first:
        os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not first & set(own.workers), "other workers")
    wait_for(own.is_ready, "both workers ready")
    await publisher.notify(merchant)

    samples = await scraped_when(
        own, lambda samples: samples["sse_push_notifications_total{stored}"] == 5, 3 * SECOND
    )
    await publisher.close()
    assert samples["sse_push_workers_alive"] == 2
    assert before["sse_push_notifications_total{stored}"] == 0


async def test_a_redis_that_is_lost_shows_in_the_reconnects_and_the_resyncs(
    tmp_path: Path, merchant: str
) -> None:
    redis = Redis.start(tmp_path)
    service = Service.start(
        tmp_path, redis.url, probe_interval_s=0.1, probe_deadline_s=0.5 * SECOND
    )
    publisher = Publisher(service.url)
    try:
        async with open_streams(service, merchant, 3) as streams:
            with frozen(redis.process.pid):
                refused = await publisher.post(json={"merchant_id": merchant})
                # Thawed, it could store the notification, or serve a new connection of the tail.
                redis.kill()
            redis = Redis.start(tmp_path, port=redis.port)
            for stream in streams:
                # It may be that of the notification, stored before Redis was killed.
                await stream.next("refresh", 2, 10 * SECOND)
            async with asyncio.timeout(10 * SECOND):
                while (samples := await scrape(service))[RESYNCS] == 0:
                    pass
    finally:
        await publisher.close()
        status = service.stop()
        redis.stop()

    assert refused.status_code == 503
    outcome = refused.json()["outcome"]
    assert samples[f"sse_push_notifications_total{{{outcome}}}"] == 1
    assert samples["sse_push_errors_total{unavailable}"] == 1
    assert samples["sse_push_tail_reconnects_total"] >= 1
    assert samples[RESYNCS] == 1
    assert status == 0


async def test_the_connections_that_end_as_the_service_stops_are_logged_together(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    service = Service.start(tmp_path, redis.url, drain_s=0.5 * SECOND, log_format="json")
    async with open_streams(service, merchant, 3) as streams:
        status = await asyncio.to_thread(service.stop)
        for stream in streams:
            await stream.wait_complete()

    lines = [line for line in service.log.splitlines() if '"drain' in line]
    assert status == 0
    assert len(lines) == 2
    assert '"message": "draining", "connections": 3}' in lines[0]
    assert '"message": "drained", "took_s": ' in lines[1]
    assert lines[1].endswith('"connections_left": 0}')
    service.assert_no_errors()
