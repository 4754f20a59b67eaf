"""A primary is killed while its replica lags: whatever was answered 200, that replica has.

Only the merchants of that primary wait for its replica; those of the others are told as always.
"""

from __future__ import annotations

import asyncio
import time

from tests.faults.clusters import ClusteredInstances
from tests.faults.world import Fault, World, read_stream
from tests.harness.processes import frozen

FAULT = Fault(
    number="F-58",
    title="two instances; cluster: one primary of three killed (-9) while its replica lags, that "
    "replica promoted with all that was answered 200 (wait_replicas=1)",
    recovery_s=8,
    settings={"wait_replicas": 1},
    may_cut=False,
)

SIZES = ("full", "long")

Setting = ClusteredInstances


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    old = world.primaries[1]
    (replica,) = world.cluster.replicas_of(old)
    own = set(world.merchants_of(old))
    history = world.backend.ledger.history
    with frozen(replica.process.pid):
        await asyncio.to_thread(old.cli, "CLIENT", "KILL", "TYPE", "replica")
        first = len(history)
        await world.lasts(5)
        old.kill()
    killed_at, last = time.monotonic(), len(history)
    await asyncio.to_thread(world.cluster.wait_promoted, replica)
    took_s = time.monotonic() - killed_at
    await world.lasts(3)
    alone = [each for each in history[first:] if each["merchant_id"] in own]
    if taken := [each for each in alone if each["outcome"] == "accepted"]:
        world.wrong(f"{len(taken)} accepted while no replica had them, the first: {taken[0]}")
    await asyncio.to_thread(world.cluster.restart, old)
    await world.until(lambda: replica.cli("WAIT", "1", "100") == "1", "a replica again", 20)
    await world.goes_on(set(world.merchants) - own)
    kept = {fields.get("by") for each in own for _, fields in read_stream(replica, each)}
    said = {str(each["by"]) for each in history[first:last] if each["merchant_id"] in own}
    missed = (said & world.backend.ledger.unknown) - kept
    if not missed:
        world.wrong("nothing that was answered with unknown is missing: the replica did not lag")
    world.note(
        f"replica promoted after {took_s:.1f} s, without {len(missed)} notifications, which were "
        "answered with unknown"
    )
