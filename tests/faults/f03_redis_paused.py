"""Redis stands still, and goes on as if nothing had been."""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World
from tests.harness.processes import frozen

FAULT = Fault(
    number="F-3",
    title="Redis frozen for 30 s (SIGSTOP)",
    recovery_s=6,
    may_cut=False,
    answer_slack_s=0.4,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    with frozen(world.redis.process.pid):
        await world.lasts(30)
        unready = await asyncio.to_thread(world.service.is_ready)
        if unready:
            world.wrong("ready while Redis stood still")
    world.over()
    took_s = await world.until(world.service.is_ready, "ready again", 5)
    world.note(f"ready again after {took_s:.1f} s")
