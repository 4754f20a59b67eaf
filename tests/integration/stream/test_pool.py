"""The connections over which entries are added; ``test_replicas`` has those that are lent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sse_push.stream.address import Address
from sse_push.stream.failures import RedisError
from sse_push.stream.histories import history_of
from sse_push.stream.pool import Pool
from tests.harness.keys import KEYS
from tests.harness.redis import Redis
from tests.harness.waiting import free_port
from tests.integration.stream.servers import Server, led


@asynccontextmanager
async def pooling(url: str) -> AsyncGenerator[Pool]:
    pool = Pool(Address.parse(url), KEYS.prefix)
    try:
        yield pool
    finally:
        pool.disconnect()
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the event loop


async def test_one_connection_is_at_hand_until_it_is_renewed(own_redis: Server) -> None:
    async with pooling(own_redis.url) as pool:
        first = await pool.connect()
        assert await pool.connect() is first
        assert pool.server_id == first.server_id
        assert pool.history == history_of(first.server_id, KEYS.prefix) != ""

        pool.renew()

        second = await pool.connect()
        assert second is not first
        assert not first.is_quiet
        assert await pool.connect() is second


async def test_a_connection_that_was_lent_is_used_again(own_redis: Server) -> None:
    async with pooling(own_redis.url) as pool:
        first = await pool.connect()
        assert pool.lend() is first
        second = await pool.connect()
        assert second is not first

        pool.give_back(first)

        assert await pool.connect() is second
        assert pool.lend() is second
        assert await pool.connect() is first
        pool.give_back(second)


async def test_a_connection_to_another_server_has_its_name(
    own_redis: Server, mortal: Redis
) -> None:
    async with led(own_redis.url) as proxy, pooling(proxy.url) as pool:
        await pool.connect()
        pool.note_use()
        first = pool.server_id
        lent = pool.lend()
        proxy.lead_to(mortal.url)
        await pool.connect()
        pool.note_use()
        second, name = pool.server_id, pool.history
        pool.give_back(lent)
        lent = pool.lend()
        await pool.connect()
        pool.give_back(lent)
        assert (pool.server_id, pool.history) == (first, history_of(first, KEYS.prefix))
        assert name == history_of(second, KEYS.prefix)
        assert (pool.take_used(), pool.take_used()) == ({first, second}, set())


async def test_a_connection_that_was_lent_when_all_were_replaced_is_closed(
    own_redis: Server,
) -> None:
    async with pooling(own_redis.url) as pool:
        await pool.connect()
        lent = pool.lend()

        pool.disconnect()
        pool.give_back(lent)

        assert not lent.is_quiet
        assert pool.at_hand is None


async def test_without_a_server_nothing_is_at_hand() -> None:
    pool = Pool(Address("127.0.0.1", free_port()), KEYS.prefix)

    with pytest.raises(RedisError):
        await pool.connect()

    assert pool.at_hand is None
