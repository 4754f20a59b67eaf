"""As F-43, but a notification is answered 200 only when the replica has it: none such is missed."""

from __future__ import annotations

import asyncio
import time

from tests.faults.instances import WatchedInstances
from tests.faults.world import Fault, World, read_stream
from tests.harness.processes import frozen

FAULT = Fault(
    number="F-45",
    title="two instances; Sentinel: primary killed (-9), a replica promoted that missed 20 "
    "notifications, none of them answered 200 (wait_replicas=1)",
    recovery_s=8,
    settings={"wait_replicas": 1},
    may_cut=False,
)

SIZES = ("full", "long")

_MISSED = 20

Setting = WatchedInstances


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    await world.hush()
    await world.until(world.is_replicated, "the replica to have it all", 5)
    old, ledger = world.redis, world.backend.ledger
    before = len(ledger.accepted)
    with frozen(world.replica.process.pid):
        old.cli("CLIENT", "KILL", "TYPE", "replica")
        asked = [world.merchants[number % len(world.merchants)] for number in range(_MISSED)]
        await asyncio.gather(*map(world.backend.tell, asked))
        stored = {fields.get("by") for each in asked for _, fields in read_stream(old, each)}
        old.kill()
    killed_at = time.monotonic()
    if (missed := len(ledger.unknown & stored)) != _MISSED:
        world.wrong(f"{missed} were stored and answered with unknown, expected {_MISSED}")
    world.publish()
    took_s = await world.failed_over()
    refreshed_s = await world.refreshed(8, since=killed_at)
    if count := len(ledger.accepted) - before:
        world.wrong(f"{count} accepted while no replica had them")
    await world.follow_again(old)
    world.over()
    world.note(
        f"{before} accepted before, {missed} unknown and lost by Redis; another primary named "
        f"after {took_s:.1f} s, all refreshed {refreshed_s:.1f} s later"
    )
