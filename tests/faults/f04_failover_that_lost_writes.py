"""Another Redis takes over that has not seen the last writes: IDs go backwards.

The connected browsers know IDs that the new server never had, and so do those that are away. None
may wait for ever for one that is higher.
"""

from __future__ import annotations

import time

from tests.faults.far_redis import TwoServers
from tests.faults.world import Fault, World, read_stream
from tests.harness.keys import stream_key

FAULT = Fault(
    number="F-4",
    title="failover to a replica that missed writes, with lower IDs",
    recovery_s=8,
    loses_history=True,
)


Setting = TwoServers


async def inject(world: World) -> None:
    assert isinstance(world, TwoServers)
    await world.lasts(5)
    await world.hush()
    await world.promote()  # the old master does not know it yet
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
    world.lead_to_replica()
    world.history_lost()
    world.replica.kill()
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
