"""Redis announces nothing more on the tracked connection of one worker, which stays open."""

from __future__ import annotations

import asyncio

from tests.faults.sabotage import sabotage
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-27",
    title="one worker's tracked connection goes deaf",
    recovery_s=6,
    module=("tests.faults.sabotage", "serve"),
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    await asyncio.to_thread(sabotage, world.service.url, "deafen", world.workers[0])
    took_s = await world.until(lambda: not world.is_ready(), "readiness to be red", 15)
    world.note(f"seen after {took_s:.1f} s")
    world.over()
