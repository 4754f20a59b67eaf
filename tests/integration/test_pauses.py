"""Time is no evidence: a process that stood still, and round trips that take a second."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import has_ended, open_stream, publishing
from tests.harness.waiting import SECOND, until
from tests.integration.stream.servers import Server, led

ROUND_TRIP_S = 1.0


async def test_a_process_that_stood_still_for_longer_than_any_limit_goes_on(
    redis: Redis, merchant: str, tmp_path: Path
) -> None:
    settings = {
        "probe_interval_s": 0.1 * SECOND,
        "probe_deadline_s": 1.5 * SECOND,
        "deaf_limit_s": 1.5 * SECOND,
        "loop_stall_limit_s": 1.5 * SECOND,
    }
    async with AsyncExitStack() as stack:
        service = await asyncio.to_thread(Service.start, tmp_path, redis.url, settings=settings)
        stack.callback(service.kill)
        stream = await stack.enter_async_context(open_stream(service.url, merchant))
        publisher = await stack.enter_async_context(publishing(service.url))
        # A browser that has not joined yet is told of the notification as it joins.
        await stream.next("refresh")
        supervisor, worker = service.process.pid, service.worker
        for count in range(2, 5):
            for pid in (supervisor, worker):
                os.kill(pid, signal.SIGSTOP)
            stopped_at = time.monotonic()
            await until(lambda: time.monotonic() > stopped_at + 3 * SECOND, "twice any limit")  # noqa: B023
            for pid in (worker, supervisor):
                os.kill(pid, signal.SIGCONT)
            told = await publisher.notify(merchant)
            refresh = await stream.next("refresh", count)
            assert refresh.id == told
            await until(service.is_ready, "a probe")

        assert not has_ended(stream)
        assert service.stop() == 0
    service.assert_no_errors()


async def test_a_service_far_from_redis_is_ready_and_answers_in_time(
    redis: Redis, merchant: str, tmp_path: Path
) -> None:
    async with led(redis.url) as proxy, AsyncExitStack() as stack:
        proxy.delay_s = ROUND_TRIP_S / 2
        service = await asyncio.to_thread(Service.start, tmp_path, proxy.url)
        stack.callback(service.kill)
        publisher = await stack.enter_async_context(publishing(service.url))
        stream = await stack.enter_async_context(open_stream(service.url, merchant))
        await stream.next("ready", seconds=10 * SECOND)
        told = [await publisher.notify(merchant) for _ in range(3)]
        await until(lambda: stream.events[-1].id == told[-1], "the last one", 10 * SECOND)
        is_ready = await asyncio.to_thread(service.is_ready)

    assert is_ready
    assert service.log.count("tail connected") == 1
    assert "level=warning" not in service.log, service.log


@pytest.mark.parametrize("lost", ["append", "tail"])
async def test_a_connection_that_is_lost_while_redis_is_far_is_made_anew(
    redis: Redis, merchant: str, tmp_path: Path, lost: str
) -> None:
    async with led(redis.url) as proxy, AsyncExitStack() as stack:
        service = await asyncio.to_thread(Service.start, tmp_path, proxy.url)
        stack.callback(service.kill)
        publisher = await stack.enter_async_context(publishing(service.url))
        stream = await stack.enter_async_context(open_stream(service.url, merchant))
        await stream.next("ready")
        proxy.delay_s = ROUND_TRIP_S / 2
        (connection,) = of(redis, lost, service)
        redis.cli("CLIENT", "KILL", "ID", connection)
        answers = [await publisher.post(json={"merchant_id": merchant}) for _ in range(3)]
        told = answers[-1].json()["id"]
        await until(lambda: stream.events[-1].id == told, "the last one", 10 * SECOND)


def of(redis: Redis, name: str, service: Service) -> list[str]:
    """Return the IDs of the connections of a name that a service has."""
    wanted = f"name=sse_push-{name}-{service.worker}"
    lines = Server(redis.url).cli("CLIENT", "LIST").splitlines()
    return [line.split()[0].removeprefix("id=") for line in lines if wanted in line.split()]
