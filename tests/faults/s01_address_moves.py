"""The address of Redis leads elsewhere, and connections to the server before it stay open.

That server lives on, and takes what is sent to it: a service of which one connection is led to the
new server and another one is not would add entries where nobody reads them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

from tests.faults.far_redis import TwoServers
from tests.faults.world import Fault, World
from tests.harness.processes import frozen
from tests.harness.redis import Redis

FAULT = Fault(
    number="S-1",
    title="address leads to a replica, one of the connections breaks: three ways, then all break",
    recovery_s=15,
    may_cut=False,
    loses_history=True,  # what the server before takes is lost
)

Setting = TwoServers


async def inject(world: World) -> None:
    assert isinstance(world, TwoServers)
    await world.lasts(3)
    for name, break_some in BREAKS.items():
        took_s = await move(world, break_some)
        world.note(f"{name}: moved after {took_s:.1f} s")
        world.replica.cli("REPLICAOF", "127.0.0.1", str(world.redis.port))
    world.over()


async def move(world: TwoServers, break_some: Callable[[World, Redis], Awaitable[None]]) -> float:
    """Promote the replica, lead there; return how long the service needed to leave the other.

    Notifications go on. What the server before takes of them is lost, as it is when a server is
    promoted while another one is alive.
    """
    await world.hush()
    await world.promote()
    world.lead_to_replica()
    world.history_lost()
    before = world.replica
    began_at = time.monotonic()
    world.publish()
    await break_some(world, before)
    await world.until(lambda: not connections(before), "no connection to the server before", 15)
    took_s = time.monotonic() - began_at
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.hush()
    await world.until(lambda: not world.behind(), "all current", 5)
    world.publish()
    return took_s


async def freeze(world: World, before: Redis) -> None:
    """Let it stand still for longer than a notification waits, and for less than a probe."""
    with frozen(before.process.pid):
        await world.lasts(4, least_s=0)


async def kill_adding(_world: World, before: Redis) -> None:
    kill(before, random.choice(connections(before, "append")))


async def kill_tracked(_world: World, before: Redis) -> None:
    kill(before, random.choice(connections(before, "tail")))


async def kill_all(_world: World, before: Redis) -> None:
    for connection in connections(before):
        kill(before, connection)


BREAKS = {
    "frozen for 4 s": freeze,
    "a connection that adds killed": kill_adding,
    "a tracked connection killed": kill_tracked,
    "all killed": kill_all,
}


def connections(redis: Redis, name: str = "") -> list[str]:
    """Return the IDs, at a server, of the service's connections of a name, or of all."""
    lines = redis.cli("CLIENT", "LIST").splitlines()
    return [
        line.split()[0].removeprefix("id=") for line in lines if f" name=sse_push-{name}" in line
    ]


def kill(redis: Redis, connection: str) -> None:
    redis.cli("CLIENT", "KILL", "ID", connection)
