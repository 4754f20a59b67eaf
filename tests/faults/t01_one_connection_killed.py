"""The tracked connection of one worker is killed, and that of the other is not."""

from __future__ import annotations

import random

from tests.faults.world import Fault, World

FAULT = Fault(
    number="T-1",
    title="one of the two tracked connections killed",
    recovery_s=5,
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    for _ in range(10):
        one = random.choice([*world.tails(), *world.tails("bell")])
        world.redis.cli("CLIENT", "KILL", "ID", one)
        await world.lasts(1, least_s=0.2)
    world.over()
