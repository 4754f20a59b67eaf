"""Redis is killed while it is written to, and comes back with its append-only file."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-1",
    title="Redis killed (-9), restarted with its append-only file",
    recovery_s=8,
    # A process that is killed loses nothing; with everysec (aof.c, flushAppendOnlyFile) Redis keeps
    # up to 2 s of what it has answered in memory while the disk is busy.
    redis=("--appendonly", "yes", "--appendfsync", "no"),
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(5)
    world.redis.kill()
    await world.lasts(5)
    await world.restart_redis()
    world.over()
