"""Redis has no memory left and refuses every entry, then has some again."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-25",
    title="Redis full (maxmemory, noeviction)",
    recovery_s=6,
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    world.redis.cli("CONFIG", "SET", "maxmemory", "1mb")
    await world.lasts(20)
    refused = world.backend.ledger.outcomes["not_published"]
    if not refused:
        world.wrong("expected notifications to be refused, got none")
    world.redis.cli("CONFIG", "SET", "maxmemory", "0")
    world.over()
