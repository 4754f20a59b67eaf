"""Another Redis takes over that has not seen the last writes: IDs go backwards.

The connected browsers know IDs that the new server never had, and so do those that are away. None
may wait for ever for one that is higher.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from sse_push.stream.contract import stream_key
from tests.faults.far_redis import FarRedis
from tests.faults.world import Fault, World, read_stream
from tests.harness.redis import Redis

FAULT = Fault(
    number="F-4",
    title="failover to a replica that missed writes, with lower IDs",
    recovery_s=8,
    loses_history=True,
)


class Setting(FarRedis):
    """A replica beside Redis, and before both a proxy that decides who is the master."""

    replica: Redis

    async def prepare(self, stack: AsyncExitStack) -> None:
        folder = self.folder / "replica"
        folder.mkdir()
        self.replica = await asyncio.to_thread(
            Redis.start, folder, "--replicaof", f"127.0.0.1 {self.redis.port}"
        )
        stack.callback(self.replica.kill)
        await super().prepare(stack)


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(5)
    await world.hush()
    await world.until(
        lambda: world.redis.cli("WAIT", "1", "100") == "1", "the replica to have it all", 5
    )
    world.replica.cli("REPLICAOF", "NO", "ONE")  # promoted; the old master does not know it yet
    lost = 0
    for number in range(100):
        entry_id = await world.backend.tell(world.merchants[number % len(world.merchants)])
        lost += entry_id is not None
    await world.until(lambda: not world.behind(), "every browser ahead of the new master", 5)
    away = world.part(4)
    for browser in away:
        browser.leave()
    for merchant in world.merchants:
        newest, _ = read_stream(world.replica, merchant)[-1]
        lower = f"{newest.ms}-{newest.seq + 1}"
        world.replica.cli("XADD", stream_key(merchant), lower, "topic", "t1")
    old = world.redis
    world.redis = world.replica
    world.way.target = ("127.0.0.1", world.replica.port)
    world.history_lost()
    old.kill()
    world.way.cut()
    world.over()
    took_s = await world.refreshed(5, since=world.lost_at)
    back_at = time.monotonic()
    for browser in away:
        browser.open()
    return_s = await world.refreshed(3, since=back_at - took_s)
    world.note(
        f"{lost} accepted and lost by Redis; all refreshed after {took_s:.1f} s, who was away "
        f"{return_s:.1f} s after coming back"
    )
