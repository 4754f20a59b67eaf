"""Reads that time alone leads to."""

from __future__ import annotations

import asyncio

from tests.harness.waiting import SECOND
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server


async def test_every_change_that_nobody_announces_is_found_within_the_set_time(
    own_redis: Server, merchant: str
) -> None:
    merchants = [f"{merchant}-{number}" for number in range(60)]
    async with following(own_redis.url, bell="pubsub", sweep_s=0.5 * SECOND) as followed:
        await followed.watch(*merchants)
        for each in merchants:
            own_redis.add(each)
        async with asyncio.timeout(3 * SECOND):
            await followed.next(len(merchants))
