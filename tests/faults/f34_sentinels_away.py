"""All Sentinels are away: connections to Redis that are open go on; lost ones are not replaced."""

from __future__ import annotations

import asyncio

from tests.faults.sentinels import Watched
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-34",
    title="Sentinel: all Sentinels killed (-9), then each connection to Redis, Sentinels back",
    recovery_s=8,
    may_cut=False,
)

Setting = Watched


async def inject(world: World) -> None:
    assert isinstance(world, Watched)
    await world.lasts(3)
    world.kill_sentinels()
    await world.lasts(20)
    if not await asyncio.to_thread(world.is_ready):
        world.wrong("not ready, though its connections were open")
    refused = [name for name in world.backend.ledger.outcomes if name != "stored"]
    if refused:
        world.wrong(f"notifications were {refused}, though connections were open")
    world.redis.cli("CLIENT", "KILL", "TYPE", "normal")
    await world.until(lambda: not world.is_ready(), "a service that is not ready", 12, pause_s=0.1)
    await world.restart_sentinels()
    world.over()
    ready_s = await world.until(world.is_ready, "ready again", 8)
    world.note(f"ready again after {ready_s:.1f} s")
