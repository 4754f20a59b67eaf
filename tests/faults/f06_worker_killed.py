"""One of the two workers is killed; its browsers go to the other, or to the next."""

from __future__ import annotations

import os
import signal

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-6",
    title="one of two workers killed (-9)",
    recovery_s=6,
    answer_slack_s=3,  # while one of two workers starts again
)


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    os.kill(before[0], signal.SIGKILL)
    world.over()
    await world.until(
        lambda: len(world.workers) == 2 and before[0] not in world.workers, "a new worker", 5
    )
    cut = world.record.ends["cut"]
    if cut >= len(world.browsers):
        world.wrong("the other worker's browsers were cut as well")
