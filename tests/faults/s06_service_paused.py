"""Every process of the service stands still for longer than any of its limits, and goes on.

So it is with a container that is paused, and a machine that is suspended. Time that has passed is
no evidence that anything is broken: no worker may end itself, and no stream may be ended.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

from tests.faults.world import Fault, World
from tests.harness.keys import stream_key
from tests.harness.nginx import replace
from tests.harness.processes import frozen

FAULT = Fault(
    number="S-6",
    title="service paused for 90 s (SIGSTOP to all its processes)",
    recovery_s=8,
    settings={"loop_stall_limit_s": 2.0},
    may_cut=False,
    may_be_silent=True,
)

PAUSE_S = {"short": 40, "full": 90, "long": 90}


class Setting(World):
    """An nginx that has more patience than the pause is long."""

    def _adapt(self, folder: Path) -> None:
        super()._adapt(folder)
        replace(folder, "proxy_read_timeout 75s", f"proxy_read_timeout {2 * 90}s")


async def inject(world: World) -> None:
    await world.lasts(3)
    await world.hush()
    before = world.workers
    with ExitStack() as stack:
        for pid in {world.service.process.pid, *before}:
            stack.enter_context(frozen(pid))
        paused_at = time.monotonic()
        for merchant in world.merchants:
            world.redis.cli("XADD", stream_key(merchant), "*", "topic", "t1")
        await world.lasts(PAUSE_S[world.size])
        told = asyncio.create_task(world.backend.tell(world.merchants[0]))
        await world.lasts(1, least_s=0.1)
    world.over()
    took_s = await world.refreshed(5, since=paused_at)
    await told
    if world.workers != before:
        world.wrong(f"the workers were {before}, and are {world.workers}")
    world.note(f"all refreshed after {took_s:.1f} s")
