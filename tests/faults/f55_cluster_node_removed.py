"""One primary of four gives its slots to the others, and is forgotten and stopped under load."""

from __future__ import annotations

import asyncio

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-55",
    title="two instances; cluster: one primary of four, the first in the URL, emptied and removed",
    recovery_s=8,
    may_cut=False,
)

SIZES = ("full", "long")


class Setting(ClusteredInstances):
    """A fourth primary, and a replica of it."""

    count = 4


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    old, *others = world.primaries
    count = len(world.merchants_of(old))
    (replica,) = world.cluster.replicas_of(old)
    slots = sorted(world.cluster.sees()[old.id].slots)
    for number, to in enumerate(others):
        await world.move(slots[number :: len(others)], to)
    for node in (replica, old):
        await asyncio.to_thread(world.cluster.remove_node, node)
    world.redis = others[0]
    await world.goes_on()
    world.note(f"{count} of {len(world.merchants)} merchants were there")
    if not count:
        world.wrong("no merchant was moved")
