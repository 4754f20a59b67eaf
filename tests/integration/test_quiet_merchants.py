"""Merchants that are never notified: they have a position, and a return of theirs is silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.ids import in_redis
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, Stream, open_stream
from tests.integration.limits.room import until_empty

MERCHANTS = 300
"""Those of the return storm; it was made with 5 000 by hand."""


def key_of(merchant: str) -> str:
    return f"sse_push:{{{merchant}}}"


async def first_id(url: str, merchant: str) -> str:
    """Connect for the first time, and return the ID of the one refresh."""
    async with open_stream(url, merchant) as stream:
        refresh = await stream.next("refresh")
        await stream.next("heartbeat")
    assert json.loads(refresh.data) == {"merchant_id": merchant, "reason": "connected"}
    assert stream.refreshes == [refresh]
    return refresh.id


@asynccontextmanager
async def returned(url: str, merchant: str, last_event_id: str) -> AsyncGenerator[Stream]:
    """Come back, and wait until all that is owed at once has come."""
    async with open_stream(url, merchant, last_event_id) as stream:
        await stream.next("heartbeat")
        yield stream


def reasons(stream: Stream) -> list[str | None]:
    return [json.loads(event.data).get("reason") for event in stream.refreshes]


async def test_a_quiet_merchant_has_an_id_and_its_return_is_silent(
    service: Service, redis: Redis, merchant: str
) -> None:
    seen = await first_id(service.url, merchant)

    for _ in range(3):
        async with returned(service.url, merchant, seen) as stream:
            assert stream.refreshes == []
            assert stream.of("ready")[0].id == seen

    assert redis.cli("XLEN", key_of(merchant)) == "1"
    assert int(redis.cli("TTL", key_of(merchant))) > 600_000


async def test_a_quiet_merchant_is_silent_on_each_worker(workers: Service, merchant: str) -> None:
    async with open_stream(workers.url, merchant) as stream:
        seen = (await stream.next("refresh")).id
        for _ in range(10):
            async with open_stream(workers.url, merchant, seen) as again:
                assert (await again.next("ready")).id == seen
    assert seen
    assert stream.refreshes[1:] == []


async def test_a_notification_is_told_as_to_any_merchant(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    seen = await first_id(service.url, merchant)
    async with returned(service.url, merchant, seen) as stream:
        told = await publisher.notify(merchant, topic="seats", data=1)
        refresh = await stream.next("refresh")
    missed = await publisher.notify(merchant, topic="orders", data=2)

    async with returned(service.url, merchant, told) as later:
        pass
    async with returned(service.url, merchant, seen) as earlier:
        pass

    assert (refresh.id, json.loads(refresh.data)["data"]) == (told, 1)
    assert [(event.id, json.loads(event.data)["topic"]) for event in later.refreshes] == [
        (missed, "orders")
    ]
    assert [event.id for event in earlier.refreshes] == [told, missed]


@pytest.mark.parametrize("is_notified", [True, False])
async def test_a_stream_that_was_deleted_while_a_client_was_away_is_missed(
    service: Service, redis: Redis, publisher: Publisher, merchant: str, *, is_notified: bool
) -> None:
    """A notification that is gone leaves nothing but a new planted entry."""
    seen = await first_id(service.url, merchant)
    if is_notified:
        await publisher.notify(merchant)
    await until_empty(service)  # a deletion that the service sees is a resync
    redis.cli("DEL", key_of(merchant))

    async with returned(service.url, merchant, seen) as stream:
        pass

    assert reasons(stream) == ["missed"]


async def test_a_stream_that_is_deleted_while_a_client_listens_is_a_resync(
    service: Service, redis: Redis, publisher: Publisher, merchant: str
) -> None:
    await publisher.notify(merchant)
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
        redis.cli("DEL", key_of(merchant))
        resync = await stream.next("refresh", 2)
    async with returned(service.url, merchant, resync.id) as again:
        pass

    assert reasons(stream) == ["connected", "resync"]
    assert again.refreshes == []


async def test_an_entry_with_anything_beside_the_planted_field_is_told(
    service: Service, redis: Redis, merchant: str
) -> None:
    seen = await first_id(service.url, merchant)
    planted = ("sse_push:planted", "0123456789abcdef")
    async with returned(service.url, merchant, seen) as stream:
        redis.cli("XADD", key_of(merchant), "*", *planted)
        told = redis.cli("XADD", key_of(merchant), "*", *planted, "topic", "seats")
        await stream.next("refresh")

    assert [in_redis(event.id) for event in stream.refreshes] == [told]


async def test_a_return_storm_of_quiet_merchants_makes_no_refetch(
    service: Service, merchant: str
) -> None:
    async def come(last_event_id: str | None, name: str, stack: AsyncExitStack) -> Stream:
        opened = open_stream(service.url, name, last_event_id)
        return await stack.enter_async_context(opened)

    names = [f"{merchant}-{number}" for number in range(MERCHANTS)]
    async with AsyncExitStack() as stack:
        streams = await asyncio.gather(*(come(None, name, stack) for name in names))
        ids = [(await stream.next("refresh")).id for stream in streams]
    async with AsyncExitStack() as stack:
        again = await asyncio.gather(
            *(come(seen, name, stack) for seen, name in zip(ids, names, strict=True))
        )
        for stream in again:
            await stream.next("heartbeat")

    assert all(ids)
    assert [len(stream.refreshes) for stream in again] == [0] * MERCHANTS


async def test_a_quiet_merchant_is_as_ever_while_nothing_may_be_planted(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    with serving(tmp_path, redis.url, heartbeat_s=1, max_planted=0) as service:
        assert await first_id(service.url, merchant) == ""

    assert redis.cli("EXISTS", key_of(merchant)) == "0"
