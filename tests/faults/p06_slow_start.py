"""A machine so busy that a worker needs 11 s for its start."""

from __future__ import annotations

import os
import signal

from tests.faults.p03_starts_that_fail import Setting
from tests.faults.sabotage import START
from tests.faults.world import Fault, World

START_S = 11
"""Unscaled, as the limits of the supervisor are."""

FAULT = Fault(
    number="P-6",
    title="one of two workers killed (-9), the start of the next takes 11 s",
    recovery_s=8,
    module=("tests.faults.sabotage", "serve"),
    answer_slack_s=3,
)

__all__ = ["FAULT", "Setting", "inject"]


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    (world.folder / START).write_text(str(START_S))
    os.kill(before[0], signal.SIGKILL)
    await world.until(
        lambda: world.service.log.count("worker serves") == 3, "a new worker", 5 * START_S
    )
    world.over()
    if "worker does not start" in world.service.log:
        world.wrong("the start was given up")
    if before[1] not in world.workers:
        world.wrong("the other worker has ended")
