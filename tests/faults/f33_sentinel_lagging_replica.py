"""Sentinels promote a replica that has missed the newest notifications: there is no other one."""

from __future__ import annotations

from tests.faults.sentinels import Watched
from tests.faults.world import Fault, World
from tests.harness.processes import frozen

FAULT = Fault(
    number="F-33",
    title="Sentinel: primary killed (-9), a replica promoted that missed 20 notifications",
    recovery_s=8,
    may_cut=False,
    loses_history=True,
)

_MISSED = 20

Setting = Watched


async def inject(world: World) -> None:
    assert isinstance(world, Watched)
    await world.lasts(3)
    await world.hush()
    await world.until(world.is_replicated, "the replica to have it all", 5)
    lost = 0
    with frozen(world.replica.process.pid):
        world.redis.cli("CLIENT", "KILL", "TYPE", "replica")
        for number in range(_MISSED):
            merchant = world.merchants[number % len(world.merchants)]
            lost += await world.backend.tell(merchant) is not None
        await world.until(lambda: not world.behind(), "every browser ahead of the replica", 5)
        world.redis.kill()
    if lost < _MISSED:
        world.wrong(f"{lost} accepted, expected {_MISSED}")
    world.history_lost()
    world.publish()
    took_s = await world.failed_over()
    world.over()
    refreshed_s = await world.refreshed(8, since=world.lost_at)
    world.note(
        f"{lost} accepted and lost by Redis; another primary named after {took_s:.1f} s, all "
        f"refreshed {refreshed_s:.1f} s later"
    )
