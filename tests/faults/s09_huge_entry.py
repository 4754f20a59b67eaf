"""An entry of 300 MB in the stream of one merchant, written by a backend that never calls HTTP."""

from __future__ import annotations

import asyncio
import time

from tests.faults.browsers import Browser, Record
from tests.faults.world import Fault, World
from tests.harness.keys import stream_key
from tests.harness.processes import peak_kib

FAULT = Fault(
    number="S-9",
    title="an entry of 300 MB in three fields in one merchant's stream",
    recovery_s=10,
    may_cut=False,
)

FIELD_MB = {"short": 16, "full": 100, "long": 100}

ADD = """
local field = string.rep('x', ARGV[1])
redis.call('XADD', KEYS[1], '*', 'f0', field, 'f1', field, 'f2', field)
"""

MOST_MB = 40
"""How much a worker may grow meanwhile, at its peak: a few times the largest reply that is read."""


async def inject(world: World) -> None:
    victim = Browser("victim", world.front, Record())
    await world.open([victim])
    before, peaks = world.workers, list(map(peak_kib, world.workers))
    await world.lasts(3)
    size = str(FIELD_MB[world.size] * 1_000_000)
    refreshes = victim.refreshes
    await asyncio.to_thread(world.redis.cli, "EVAL", ADD, "1", stream_key("victim"), size)
    slowest_s = 0.0
    for _ in range(5):
        slowest_s = max(slowest_s, await others_hear(world))
        await world.lasts(3)
    await world.until(lambda: victim.refreshes > refreshes, "a refresh for its merchant", 5)
    refreshes = victim.refreshes
    await world.backend.tell_until_accepted("victim", 5)
    await world.until(lambda: victim.refreshes > refreshes, "another refresh for its merchant", 5)
    world.over()
    victim.close()
    if world.workers != before:
        world.wrong(f"the workers were {before}, and are {world.workers}")
    grown_mb = (
        max(now - peak for now, peak in zip(map(peak_kib, before), peaks, strict=True)) / 1024
    )
    if grown_mb > MOST_MB:
        world.wrong(f"a worker grew by {grown_mb:.0f} MB, limit {MOST_MB}")
    world.note(f"the others heard after {slowest_s:.1f} s; a worker grew by {grown_mb:.0f} MB")


async def others_hear(world: World) -> float:
    """Notify every other merchant; return after how long all had heard."""
    began_at = time.monotonic()
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.until(lambda: not world.behind(), "all current beside it", 5)
    return time.monotonic() - began_at
