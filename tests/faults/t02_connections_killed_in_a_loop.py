"""Whatever connects to Redis is killed, again and again."""

from __future__ import annotations

import asyncio
import random
import time

from tests.faults.world import Fault, World

FAULT = Fault(
    number="T-2",
    title="all connections to Redis killed in a loop",
    recovery_s=6,
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    killed = 0
    deadline = time.monotonic() + max(world.seconds(30), 3)
    while time.monotonic() < deadline:
        for kind in ("normal", "pubsub"):
            killed += int(world.redis.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))
        await asyncio.sleep(random.uniform(0, 0.2))
    world.over()
    world.note(f"{killed} connections killed")
