"""A primary of the cluster is killed, and its replica promoted; only its own merchants notice."""

from __future__ import annotations

import asyncio
import time

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-50",
    title="two instances; cluster: one primary of three killed (-9), its replica promoted",
    recovery_s=8,
    may_cut=False,
    loses_history=True,
)

SIZES = ("full", "long")

Setting = ClusteredInstances


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    old = world.primaries[1]
    (replica,) = world.cluster.replicas_of(old)
    others = set(world.merchants) - set(world.merchants_of(old))
    old.kill()
    killed_at = time.monotonic()
    await asyncio.to_thread(world.cluster.wait_promoted, replica)
    took_s = time.monotonic() - killed_at
    if not await asyncio.to_thread(world.is_ready):
        world.wrong("not ready, though two primaries of three were there")
    await world.hush()
    world.history_lost()  # the newest may not have reached the replica
    world.publish()
    await world.goes_on(others)
    world.note(f"replica promoted after {took_s:.1f} s")
