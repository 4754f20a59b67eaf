"""Slots of all merchants are moved from primary to primary, under load; one move is given up."""

from __future__ import annotations

from tests.faults.clusters import ClusteredInstances, slots_of
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-52",
    title="two instances; cluster: slots of all merchants moved three times, one move given up",
    recovery_s=8,
    may_cut=False,
)

SIZES = ("full", "long")

Setting = ClusteredInstances

_ROUNDS = 3


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    primaries = world.primaries
    moved = 0
    for _ in range(_ROUNDS):
        at = [slots_of(world.merchants_of(each)) for each in primaries]
        for number, slots in enumerate(at):
            to = primaries[(number + 1) % len(primaries)]
            if number == 1:
                await world.move(slots, to, gives_up=True)
            await world.move(slots, to)
            moved += len(slots)
    await world.goes_on()
    world.note(f"{moved} slots moved")
