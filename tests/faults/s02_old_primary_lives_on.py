"""Another server is promoted, the one before becomes its replica, and no connection breaks.

The one before still announces every change, since it gets them from the new one: only adding fails.
"""

from __future__ import annotations

from tests.faults.far_redis import TwoServers
from tests.faults.world import Fault, World

FAULT = Fault(
    number="S-2",
    title="address leads to a replica, the server before becomes its replica, nothing breaks",
    recovery_s=15,
    may_cut=False,
)

Setting = TwoServers


async def inject(world: World) -> None:
    assert isinstance(world, TwoServers)
    await world.lasts(3)
    await world.hush()
    await world.promote()
    world.lead_to_replica()
    world.replica.cli("REPLICAOF", "127.0.0.1", str(world.redis.port))
    world.over()
    world.publish()
    took_s = await world.until(
        lambda: world.redis.connections("tail") == world.redis.connections("append") == 2,
        "every connection at the new server",
        15,
    )
    world.note(f"all moved after {took_s:.1f} s")
