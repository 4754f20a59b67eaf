"""Many merchants come and go, and then the sweep alone finds what is new for others.

The sweep reads each stream again and again. Merchants that nobody watches any more may not use up
its turns.
"""

from __future__ import annotations

import asyncio

from tests.faults.browsers import Browser, Record
from tests.faults.sabotage import sabotage
from tests.faults.world import Fault, World

SWEEP_S = 30

FAULT = Fault(
    number="S-10",
    title="20 000 merchants came and went; the sweep alone finds what is new for others",
    recovery_s=SWEEP_S * 1.2,
    module=("tests.faults.sabotage", "serve"),
    may_cut=False,
)

GONE = {"short": 500, "full": 5_000, "long": 20_000}
AT_ONCE = 2_500
NEW = 50


async def inject(world: World) -> None:
    gone = GONE[world.size]
    for first in range(0, gone, AT_ONCE):
        visitors = [
            Browser(f"gone{number}", world.front, Record())
            for number in range(first, min(gone, first + AT_ONCE))
        ]
        await world.open(visitors)
        await world.lasts(5)  # a sweep is among them
        for browser in visitors:
            browser.close()
    new = [Browser(f"new{number}", world.front, world.record) for number in range(NEW)]
    await world.open(new)
    world.browsers += new
    world.merchants += [browser.merchant_id for browser in new]
    for pid in world.workers:
        sweep_s = str(world.seconds(SWEEP_S))
        await asyncio.to_thread(sabotage, world.service.url, "miss_changes", pid, sweep_s=sweep_s)
    told = {
        browser: await world.backend.tell_until_accepted(browser.merchant_id, 5) for browser in new
    }
    took_s = await world.until(
        lambda: all(browser.is_current(entry_id, -1) for browser, entry_id in told.items()),
        "every new browser to be reached by a sweep",
        SWEEP_S * 1.2,
    )
    await world.hush()  # what is accepted last waits for its turn as well
    world.over()
    world.note(
        f"{gone} merchants gone; a round of the sweep reached {NEW} new ones in {took_s:.1f} s"
    )
