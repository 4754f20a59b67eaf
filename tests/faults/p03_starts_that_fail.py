"""A worker is killed while none can start: the other one goes on."""

from __future__ import annotations

import os
import signal

from tests.faults.sabotage import FAILS, START
from tests.faults.world import Fault, World

FAULT = Fault(
    number="P-3",
    title="one of two workers killed (-9), and three starts fail",
    recovery_s=8,
    module=("tests.faults.sabotage", "serve"),
    answer_slack_s=3,
    log=("worker cannot start",),
)


class Setting(World):
    """A run folder of its own, in which starts are hindered."""

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "run_folder": self.folder}


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    (world.folder / START).write_text(FAILS)
    os.kill(before[0], signal.SIGKILL)
    await world.until(
        lambda: world.service.log.count("worker cannot start") == 3, "three starts", 30
    )
    if before[1] not in world.workers:
        world.wrong("the other worker has ended")
    (world.folder / START).unlink()
    world.over()
    took_s = await world.until(lambda: world.service.log.count("worker serves") == 3, "a third", 20)
    world.note(f"a worker served {took_s:.1f} s later (the pause before it is not scaled)")
