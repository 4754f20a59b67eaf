"""nginx reads its configuration again, three times; no stream ends for it."""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-10",
    title="nginx reloaded three times",
    recovery_s=5,
    may_cut=False,
)


async def inject(world: World) -> None:
    nginx = world.nginx
    assert nginx is not None, "not without"
    for _ in range(3):
        await world.lasts(3)
        await asyncio.to_thread(nginx.reload)
    world.over()
    if world.record.ends:
        world.wrong(f"streams ended: {dict(world.record.ends)}")
