"""A fourth primary is added, and gets a quarter of all slots, while notifications arrive."""

from __future__ import annotations

import asyncio

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-54",
    title="two instances; cluster: a primary added, and a quarter of all slots moved to it",
    recovery_s=8,
    may_cut=False,
)

SIZES = ("full", "long")

Setting = ClusteredInstances


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    owners = world.primaries
    new = await asyncio.to_thread(world.cluster.add_node)
    for owner in owners:
        slots = sorted(world.cluster.sees()[owner.id].slots)
        await world.move(slots[:: len(owners) + 1], new)
    count = len(world.merchants_of(new))
    await world.goes_on()
    world.note(f"{count} of {len(world.merchants)} merchants are at the new primary")
    if not count:
        world.wrong("no merchant was moved")
