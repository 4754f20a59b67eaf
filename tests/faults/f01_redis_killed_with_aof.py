"""Redis is killed while it is written to, and comes back with its append-only file."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-1",
    title="Redis killed (-9), restarted with its append-only file",
    recovery_s=8,
    redis=("--appendonly", "yes", "--appendfsync", "everysec"),
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(5)
    world.redis.kill()
    await world.lasts(5)
    await world.restart_redis()
    world.over()
