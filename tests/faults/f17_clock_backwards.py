"""Redis comes back empty, its clock an hour back: every new ID is lower than all that were known.

Its clock can't be set here, so its streams are set an hour ahead instead, which IDs then follow;
after the restart they are right again.

https://redis.io/docs/latest/develop/data-types/streams/#entry-ids
"""

from __future__ import annotations

import time

from tests.faults.world import Fault, World
from tests.harness.keys import stream_key

FAULT = Fault(
    number="F-17",
    title="Redis restarted empty, with its clock an hour back",
    recovery_s=8,
    loses_history=True,
    may_cut=False,
)

AHEAD_MS = 3_600_000


async def inject(world: World) -> None:
    ahead = round(time.time() * 1000) + AHEAD_MS
    for merchant in world.merchants:
        world.redis.cli("XADD", stream_key(merchant), f"{ahead}-0", "topic", "t1")
    await world.lasts(3)
    await world.hush()
    for merchant in world.merchants:
        assert (await world.backend.tell_until_accepted(merchant, 5)).ms >= ahead, "an hour ahead"
    await world.until(lambda: not world.behind(), "all current", 5)
    away = world.part(4)
    for browser in away:
        browser.leave()
    world.redis.kill()
    world.history_lost()
    await world.restart_redis()
    world.over()
    took_s = await world.refreshed(8, since=world.lost_at)
    for merchant in world.merchants:
        lower = await world.backend.tell_until_accepted(merchant, 5)
        assert lower.ms < ahead, "an hour back"
    for browser in away:
        browser.open()
    world.note(f"all refreshed after {took_s:.1f} s")
