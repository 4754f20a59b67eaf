"""A cleaner of temporary files takes the folder in which the workers share their state."""

from __future__ import annotations

import shutil

from tests.faults.world import Fault, World

FAULT = Fault(
    number="P-2",
    title="run folder deleted, three times",
    recovery_s=5,
    may_cut=False,
)


class Setting(World):
    """A run folder of its own."""

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "run_folder": self.folder}


async def inject(world: World) -> None:
    before = world.workers
    for _ in range(3):
        await world.lasts(3)
        (folder,) = world.folder.glob("sse_push-*")
        shutil.rmtree(folder)
        await world.until(lambda: any(world.folder.glob("sse_push-*/[0-9]*")), "a new one", 10)
    world.over()
    await world.until(world.is_ready, "both workers on the board", 10)
    if world.workers != before:
        world.wrong(f"the workers were {before}, and are {world.workers}")
