"""What may be broken beside something else: each a context, within which it is broken.

Knows how each part is broken and mended. Does not know what must hold.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from itertools import combinations

from tests.faults.far_redis import FarRedis
from tests.harness.keys import stream_key
from tests.harness.processes import frozen


class Breakable(FarRedis):
    """A world whose parts can be broken in any order, by chance."""

    @cached_property
    def chance(self) -> random.Random:
        """What is drawn, the same for the same seed."""
        return random.Random(self.seed)


Injection = Callable[[Breakable], AbstractAsyncContextManager[None]]


# -- Redis, by commands; first of two, since a server that is away takes none


@asynccontextmanager
async def flushed(world: Breakable) -> AsyncGenerator[None]:
    world.history_lost()
    world.redis.cli("FLUSHALL")
    yield


@asynccontextmanager
async def streams_deleted(world: Breakable) -> AsyncGenerator[None]:
    world.history_lost()
    world.redis.cli("DEL", *map(stream_key, world.merchants))
    yield


@asynccontextmanager
async def connection_killed(world: Breakable) -> AsyncGenerator[None]:
    world.redis.cli("CLIENT", "KILL", "ID", world.chance.choice(world.tails()))
    yield


@asynccontextmanager
async def read_only(world: Breakable) -> AsyncGenerator[None]:
    world.redis.cli("REPLICAOF", "127.0.0.1", "1")
    yield
    world.redis.cli("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def full(world: Breakable) -> AsyncGenerator[None]:
    world.redis.cli("CONFIG", "SET", "maxmemory", "1mb")
    yield
    world.redis.cli("CONFIG", "SET", "maxmemory", "0")


# -- Redis, its process, and the way there


@asynccontextmanager
async def redis_killed(world: Breakable) -> AsyncGenerator[None]:
    world.redis.kill()
    yield
    await world.restart_redis()


@asynccontextmanager
async def redis_frozen(world: Breakable) -> AsyncGenerator[None]:
    with frozen(world.redis.process.pid):
        yield


@asynccontextmanager
async def network_cut(world: Breakable) -> AsyncGenerator[None]:
    """Let nothing through, and tell nobody."""
    world.way.passes.clear()
    yield
    world.way.passes.set()


# -- the service


@asynccontextmanager
async def worker_killed(world: Breakable) -> AsyncGenerator[None]:
    pid = world.chance.choice(world.workers)
    os.kill(pid, signal.SIGKILL)
    yield
    await world.until(
        lambda: pid not in world.workers and len(world.workers) == world.fault.workers,
        "another worker",
        10,
    )


@asynccontextmanager
async def worker_frozen(world: Breakable) -> AsyncGenerator[None]:
    """Thaw it in the end, if its supervisor has not killed it."""
    with frozen(world.chance.choice(world.workers)):
        yield


# -- nginx


@asynccontextmanager
async def nginx_reloaded(world: Breakable) -> AsyncGenerator[None]:
    assert world.nginx is not None, "not without"
    await asyncio.to_thread(world.nginx.reload)
    yield


@asynccontextmanager
async def nginx_killed(world: Breakable) -> AsyncGenerator[None]:
    nginx = world.nginx
    assert nginx is not None, "not without"
    nginx.kill()
    yield
    world.nginx = await asyncio.to_thread(world.start_nginx, nginx.port)


IN_ORDER: Sequence[Sequence[Injection]] = (
    (flushed, streams_deleted),  # which a replica would refuse
    (connection_killed,),
    (full,),
    (read_only,),
    (redis_killed, redis_frozen),
    (network_cut,),
    (worker_killed, worker_frozen),
    (nginx_reloaded, nginx_killed),
)
"""In the order in which two of them begin; the later one ends first. Never two of one line."""

PAIRS = [
    (one, other) for first, second in combinations(IN_ORDER, 2) for one in first for other in second
]


def name_of(injection: Injection) -> str:
    """Return the words for it."""
    return injection.__name__.replace("_", " ")
