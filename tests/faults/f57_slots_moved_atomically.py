"""Valkey moves the slots of all merchants by itself, and announces each stream when it drops it."""

from __future__ import annotations

import asyncio

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-57",
    title="two instances; cluster: slots moved from primary to primary by CLUSTER MIGRATESLOTS",
    recovery_s=8,
    may_cut=False,
)

SIZES = ("full", "long")


class Setting(ClusteredInstances):
    """A cluster of Valkey."""

    kind = "valkey"


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    primaries = world.primaries
    ranges = [sorted(world.cluster.sees()[each.id].slots) for each in primaries]
    for number, slots in enumerate(ranges):
        to = primaries[(number + 1) % len(primaries)]
        # All but one slot: a primary that has lost its last one becomes a replica.
        await asyncio.to_thread(world.cluster.move_atomically, slots[0], slots[-2], to)
        await world.lasts(3)
    await world.goes_on()
