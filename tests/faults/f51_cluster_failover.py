"""Each primary of the cluster hands over to its replica: nothing is lost, and nothing refused."""

from __future__ import annotations

import asyncio

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-51",
    title="two instances; cluster: CLUSTER FAILOVER of each primary in turn",
    recovery_s=8,
    may_cut=False,
)

SIZES = ("full", "long")

Setting = ClusteredInstances


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    for old in world.primaries:
        await world.lasts(3)
        (replica,) = world.cluster.replicas_of(old)
        await asyncio.to_thread(world.cluster.failover, replica)
    await world.goes_on()
