"""One of two instances is killed with all its workers, as a machine is lost, and comes back."""

from __future__ import annotations

from tests.faults.instances import Instances
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-40",
    title="two instances behind nginx: one killed (-9), started again after 5 s",
    recovery_s=6,
)

SIZES = ("full", "long")

Setting = Instances


async def inject(world: World) -> None:
    assert isinstance(world, Instances)
    await world.lasts(3)
    world.other.kill()
    await world.lasts(5)
    accepted = len(world.backend.ledger.accepted)
    await world.lasts(3)
    if len(world.backend.ledger.accepted) == accepted:
        world.wrong("no notification was accepted while one instance was left")
    await world.start_other()
    world.over()
    cut = world.record.ends["cut"]
    if not 0 < cut < len(world.browsers):
        world.wrong(f"{cut} browsers were cut, expected those of one instance")
