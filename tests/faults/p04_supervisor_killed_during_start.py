"""The supervisor is killed while a worker starts: no process is left that listens for ever."""

from __future__ import annotations

import os
import signal

from tests.faults.p03_starts_that_fail import Setting
from tests.faults.sabotage import START
from tests.faults.world import Fault, World
from tests.harness.processes import is_running

FAULT = Fault(
    number="P-4",
    title="supervisor killed (-9) while a worker starts, started again",
    recovery_s=36,
    module=("tests.faults.sabotage", "serve"),
    answer_slack_s=3,
    log=("supervisor died",),
)

__all__ = ["FAULT", "Setting", "inject"]


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    (world.folder / START).write_text("2")
    os.kill(before[0], signal.SIGKILL)
    await world.until(lambda: len(set(world.workers) - set(before)) == 1, "a start", 5)
    orphans = world.workers
    world.service.process.kill()
    world.service.process.wait()
    (world.folder / START).unlink()
    await world.until(lambda: not any(map(is_running, orphans)), "the end of both", 60)
    await world.start_service()
    world.over()
