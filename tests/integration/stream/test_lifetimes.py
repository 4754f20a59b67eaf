"""Every stream that the service writes ends by itself, whoever has deleted it before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import Notification
from sse_push.stream import Appender
from sse_push.stream.address import Address
from sse_push.stream.contract import plant_commands
from sse_push.stream.outcomes import Record
from sse_push.stream.reads import ProbeEntry
from tests.harness.keys import KEYS, REVOCATIONS_KEY, stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND
from tests.integration.stream.following import stopped
from tests.integration.stream.servers import Server

STEPS = 150
MERCHANTS = ("41", "42", "43")

LIFETIMES = (
    "local without = {} "
    "for _, key in ipairs(redis.call('KEYS', '*')) do "
    "if redis.call('TTL', key) < 0 then table.insert(without, key) end end "
    "return without"
)
"""Names the keys that stay for ever; none may come or go meanwhile."""


@asynccontextmanager
async def appending(url: str) -> AsyncGenerator[Appender]:
    appender = Appender(
        Address.parse(url),
        KEYS,
        timeout_s=5 * SECOND,
        stream_max_entries=100,
        stream_ttl_s=1000,
        revocation_lifetime_s=1000,
    )
    task = asyncio.create_task(appender.run())
    try:
        yield appender
    finally:
        await stopped(task)


def record(chance: random.Random) -> Record:
    kinds: list[Callable[[], Record]] = [
        lambda: Notification(chance.choice(MERCHANTS)),
        lambda: Notification(chance.choice(MERCHANTS)),
        lambda: Revocation(chance.choice(MERCHANTS)),
        lambda: ProbeEntry("~probe"),
    ]
    return chance.choice(kinds)()


def lose(server: Server, chance: random.Random) -> None:
    keys = [*map(stream_key, (*MERCHANTS, "~probe")), REVOCATIONS_KEY]
    chosen = chance.sample(keys, 2)
    losses = [["DEL", *chosen], ["PEXPIRE", chosen[0], "0"], ["FLUSHALL"]]
    server.cli(*chance.choice(losses))


@pytest.mark.parametrize("seed", range(3))
async def test_no_stream_stays_for_ever_whichever_is_deleted_and_whenever(
    mortal: Redis, seed: int
) -> None:
    """Two processes write, and each remembers which streams it has given their lifetime."""
    server, chance = Server(mortal.url), random.Random(seed)
    async with AsyncExitStack() as stack:
        appenders = [await stack.enter_async_context(appending(server.url)) for _ in range(2)]
        for _ in range(STEPS):
            records = [record(chance) for _ in range(chance.choice([1, 1, 2, 5]))]
            writing = asyncio.create_task(chance.choice(appenders).append_all(records))
            if chance.random() < 0.3:
                # Sometimes while the entries are on their way.
                await asyncio.to_thread(lose, server, chance)
            await writing
            assert server.cli("EVAL", LIFETIMES, "0") == ""


@pytest.mark.parametrize("has_scripts", [True, False])
def test_a_planted_stream_ends_by_itself_after_another_was_deleted(
    server: Server, merchant: str, *, has_scripts: bool
) -> None:
    for _ in range(2):
        for command in plant_commands(
            stream_key(merchant), lifetime_s=1000, has_scripts=has_scripts
        ):
            server.cli(*map(str, command))

        assert 0 < int(server.cli("TTL", stream_key(merchant))) <= 1000

        server.cli("DEL", stream_key(merchant))
