"""Redis comes back from a snapshot that is older than what was accepted; browsers were away.

Each browser that was current when the snapshot was made returns with a last event ID that Redis
still knows, as its stream's newest. Only the history that the ID names tells that Redis has lost
what came after.
"""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World
from tests.harness.keys import stream_key

FAULT = Fault(
    number="S-5",
    title="Redis killed (-9), restarted from an older snapshot, with all browsers away",
    recovery_s=12,
    loses_history=True,
)


async def inject(world: World) -> None:
    nginx = world.nginx
    assert nginx is not None, "not without"
    await world.lasts(3)
    await world.hush()
    await world.until(lambda: not world.behind(), "all current", 5)
    nginx.kill()
    world.redis.cli("SAVE")
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    lost = sum(entries(world, merchant) for merchant in world.merchants)
    world.redis.kill()
    world.history_lost()
    await world.restart_redis()
    lost -= sum(entries(world, merchant) for merchant in world.merchants)
    if lost < len(world.merchants):
        world.wrong(f"expected Redis to lose {len(world.merchants)} entries, got {lost}")
    await world.until(world.is_ready, "ready again", 10)
    world.nginx = await asyncio.to_thread(world.start_nginx, nginx.port)
    world.over()
    took_s = await world.refreshed(12, since=world.lost_at)
    world.note(f"{lost} accepted and lost by Redis; all refreshed after {took_s:.1f} s")


def entries(world: World, merchant: str) -> int:
    return int(world.redis.cli("XLEN", stream_key(merchant)))
