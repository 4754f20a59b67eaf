"""A worker stands still without dying; its supervisor has to notice."""

from __future__ import annotations

import os
import signal

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-7",
    title="one of two workers frozen (SIGSTOP)",
    recovery_s=40,
    log=("worker is silent, killing",),
    answer_slack_s=3,  # while one of two workers starts again
)


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    os.kill(before[0], signal.SIGSTOP)
    world.over()  # nobody thaws it
    took_s = await world.until(lambda: before[0] not in world.workers, "it to be replaced", 40)
    world.note(f"replaced after {took_s:.1f} s (the supervisor's 5 s are not scaled)")
