"""The cable to one primary is pulled: no reset. It is replaced, and comes back as a replica."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.clusters import ClusteredInstances
from tests.faults.namespaces import Host, another_host
from tests.faults.sentinels import is_replica
from tests.faults.world import Fault, World
from tests.harness.cluster import Cluster

FAULT = Fault(
    number="F-56",
    title="two instances; cluster: one primary of three cut off by the network, without a reset, "
    "and back as a replica",
    recovery_s=12,
    may_cut=False,
    loses_history=True,
)

SIZES = ("full", "long")


class Setting(ClusteredInstances):
    """The first node is on another host."""

    host: Host

    async def enter(self, stack: AsyncExitStack) -> None:
        await super().enter(stack)
        self.host = stack.enter_context(another_host())

    def start_cluster(self, folder: Path) -> Cluster:
        cluster = Cluster(folder, self.kind, host=self.host.near_address)
        cluster.start_node(self.host.address, self.host.through)
        for _ in range(2 * self.count - 1):
            cluster.start_node(cluster.host)
        cluster.form(self.count)
        return cluster


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    old = world.cluster.nodes[0]
    (replica,) = world.cluster.replicas_of(old)
    others = set(world.merchants) - set(world.merchants_of(old))
    await asyncio.to_thread(world.host.pull)
    old.is_away = True
    cut_at = time.monotonic()
    await asyncio.to_thread(world.cluster.wait_promoted, replica)
    took_s = time.monotonic() - cut_at
    await world.lasts(30)
    if not await asyncio.to_thread(world.is_ready):
        world.wrong("not ready, though all slots had an owner")
    await asyncio.to_thread(world.host.plug)
    old.is_away = False
    await world.until(lambda: is_replica(old.cli), "a replica", 60, pause_s=0.2)
    await world.hush()
    world.history_lost()  # the newest may not have reached the replica
    world.publish()
    await world.goes_on(others)
    world.note(f"replica promoted after {took_s:.1f} s")
