"""A worker's event loop is busy for ever, while the thread that answers its supervisor is well."""

from __future__ import annotations

import asyncio
import time

from tests.faults.sabotage import sabotage
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-7b",
    title="one of two workers with a blocked event loop",
    recovery_s=30,
    answer_slack_s=3,  # while one of two workers starts again
    module=("tests.faults.sabotage", "serve"),
    settings={"loop_stall_limit_s": 1.5},
    log=("the event loop hangs",),
)


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    began_at = time.monotonic()
    await asyncio.to_thread(sabotage, world.service.url, "block", before[0], seconds="600")
    world.over()
    await world.until(lambda: before[0] not in world.workers, "it to be replaced", 20)
    world.note(f"replaced after {time.monotonic() - began_at:.1f} s (limit 1.5 s)")
