"""The tail of one worker dies of an error that nobody foresaw."""

from __future__ import annotations

import asyncio

from tests.faults.sabotage import sabotage
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-27c",
    title="one worker's tail dies of an unforeseen error",
    recovery_s=30,
    answer_slack_s=3,  # while one of two workers starts again
    module=("tests.faults.sabotage", "serve"),
    log=("tail died", "Traceback", "sabotage"),
)


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    await asyncio.to_thread(sabotage, world.service.url, "kill_tail", before[0])
    world.over()
    took_s = await world.until(lambda: before[0] not in world.workers, "it to be replaced", 30)
    world.note(f"replaced after {took_s:.1f} s")
