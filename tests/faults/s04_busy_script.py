"""A script without an end keeps Redis from everything else, until an operator kills it.

Browsers of merchants that nobody followed before come meanwhile, and the first read of their
streams is refused.
"""

from __future__ import annotations

import asyncio

from tests.faults.browsers import Browser
from tests.faults.world import Fault, World

FAULT = Fault(
    number="S-4",
    title="a script without an end on Redis (BUSY), then SCRIPT KILL",
    recovery_s=5,
    redis=("--lua-time-limit", "200"),  # then Redis answers again, with BUSY
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    script = asyncio.create_task(
        asyncio.to_thread(world.redis.cli, "EVAL", "while true do end", "0")
    )
    red_s = await world.until(lambda: not world.is_ready(), "readiness to be red", 15)
    late = [Browser(f"late{number}", world.front, world.record) for number in range(10)]
    for browser in late:
        browser.open()
    await world.lasts(15)
    if await asyncio.to_thread(world.is_ready):
        world.wrong("ready while Redis is busy")
    if not world.backend.ledger.outcomes["not_published"]:
        world.wrong("expected notifications to be refused, got none")
    world.redis.cli("SCRIPT", "KILL")
    world.over()
    await script
    world.browsers += late
    world.merchants += [browser.merchant_id for browser in late]
    green_s = await world.until(world.is_ready, "ready again", 10)
    world.note(f"red after {red_s:.1f} s, green {green_s:.1f} s after the end")
