"""The primary that Sentinels watch is killed, and they promote its replica."""

from __future__ import annotations

from tests.faults.sentinels import Watched
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-31",
    title="Sentinel: primary killed (-9), its replica promoted",
    recovery_s=8,
    may_cut=False,
    loses_history=True,
)

Setting = Watched


async def inject(world: World) -> None:
    assert isinstance(world, Watched)
    await world.lasts(3)
    world.redis.kill()
    await world.backend.answered()
    world.history_lost()  # the newest may not have reached the replica
    took_s = await world.failed_over()
    world.over()
    ready_s = await world.until(world.is_ready, "ready again", 8)
    world.note(f"another primary named after {took_s:.1f} s, ready {ready_s:.1f} s later")
