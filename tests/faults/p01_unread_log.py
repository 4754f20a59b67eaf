"""The service's standard error is a pipe that nobody reads, and that has no room."""

from __future__ import annotations

import contextlib
import os
import signal
from contextlib import AsyncExitStack

from tests.faults.world import Fault, World

FAULT = Fault(
    number="P-1",
    title="standard error is a full pipe that nobody reads, one worker killed (-9)",
    recovery_s=6,
    settings={"log_level": "debug"},
    answer_slack_s=3,  # while one of two workers starts again
)


class Setting(World):
    """A named pipe in place of the log."""

    async def enter(self, stack: AsyncExitStack) -> None:
        path = self.folder / "unread"
        os.mkfifo(path)
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, pipe)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"x" * 1024)

    @property
    def through(self) -> tuple[str, ...]:
        return ("bash", "-c", f'exec "$@" 2>"{self.folder / "unread"}"', "-")


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    os.kill(before[0], signal.SIGKILL)
    world.over()
    await world.until(
        lambda: len(world.workers) == 2 and before[0] not in world.workers, "a new worker", 5
    )
