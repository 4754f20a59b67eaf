"""Redis may remember ten keys for all that it tracks: it forgets, and has to say so."""

from __future__ import annotations

from tests.faults.browsers import Browser
from tests.faults.world import Fault, World

FAULT = Fault(
    number="T-3",
    title="tracking table of Redis overflows (10 keys)",
    recovery_s=5,
    redis=("--tracking-table-max-keys", "10"),
    may_cut=False,
)


async def inject(world: World) -> None:
    more = [Browser(f"more{number}", world.front, world.record) for number in range(100)]
    await world.open(more)
    await world.lasts(20)
    world.browsers += more
    world.merchants += [browser.merchant_id for browser in more]
    for browser in more:
        await world.backend.tell_until_accepted(browser.merchant_id, 5)
    world.over()
    spurious = world.redis.cli("INFO", "stats").partition("tracking_total_keys:")[2].split()[0]
    world.note(f"{len(world.merchants)} streams live, {spurious} tracked at the end")
