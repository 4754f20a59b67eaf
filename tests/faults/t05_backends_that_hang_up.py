"""Backends that hang up in the middle of a request, with a slow and uneven way to Redis.

What is answered must be the answer to that very request: no ID of another one's, nothing stored
twice.
"""

from __future__ import annotations

import asyncio
import random

from tests.faults.far_redis import FarRedis
from tests.faults.world import Fault, World

FAULT = Fault(
    number="T-5",
    title="backends that hang up in the middle of a request",
    recovery_s=6,
    settings={
        "notify_timeout_s": 3,
        "probe_interval_s": 3,
        "probe_deadline_s": 6,
        "deaf_limit_s": 20,
    },
    answer_slack_s=3,
    may_cut=False,
)

ROUNDS = {"short": 1_000, "full": 5_000, "long": 5_000}


Setting = FarRedis


async def inject(world: World) -> None:
    assert isinstance(world, FarRedis)
    world.way.delay_s = 0.05
    left = 0

    async def call(number: int) -> None:
        nonlocal left
        for _ in range(ROUNDS[world.size] // 20):
            telling = asyncio.create_task(world.backend.tell(world.merchants[number % 5]))
            if random.random() < 0.5:
                await asyncio.wait([telling], timeout=random.uniform(0, 0.1))
                left += not telling.done()
                telling.cancel()
            await asyncio.wait([telling])

    await asyncio.gather(*map(call, range(20)))
    world.way.delay_s = 0
    world.over()
    world.note(f"{left} of {ROUNDS[world.size]} hung up before their answer")
