"""Redis is killed and comes back empty: what was accepted is gone, and nobody may stay silent."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-2",
    title="Redis killed (-9), restarted empty",
    recovery_s=8,
    loses_history=True,
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(5)
    await world.hush()
    world.redis.kill()
    world.history_lost()
    world.publish()
    await world.lasts(5)
    await world.restart_redis()
    world.over()
