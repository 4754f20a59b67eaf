"""Redis becomes a replica of a master that is not there, and refuses to be written to; then not."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="T-6",
    title="Redis demoted to a replica (READONLY), promoted again",
    recovery_s=6,
    may_cut=False,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    world.redis.cli("REPLICAOF", "127.0.0.1", "1")
    await world.lasts(20)
    if not world.backend.ledger.outcomes["not_published"]:
        world.wrong("expected notifications to be refused, got none")
    world.redis.cli("REPLICAOF", "NO", "ONE")
    world.over()
