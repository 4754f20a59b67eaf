"""The primary that Sentinels watch stands still, is replaced, and comes back as a replica."""

from __future__ import annotations

from tests.faults.sentinels import Watched, is_replica
from tests.faults.world import Fault, World
from tests.harness.processes import frozen

FAULT = Fault(
    number="F-32",
    title="Sentinel: primary frozen (SIGSTOP), replaced, back as a replica",
    recovery_s=12,
    may_cut=False,
    loses_history=True,
)

Setting = Watched


async def inject(world: World) -> None:
    assert isinstance(world, Watched)
    await world.lasts(3)
    old = world.redis
    with frozen(old.process.pid):
        await world.hush()
        world.history_lost()
        world.publish()
        took_s = await world.failed_over()
        ready_s = await world.until(world.is_ready, "ready again", 12)
        await world.lasts(3)
    await world.until(lambda: is_replica(old.cli), "a replica", 60, pause_s=0.2)
    world.over()
    world.note(f"another primary named after {took_s:.1f} s, ready {ready_s:.1f} s later")
