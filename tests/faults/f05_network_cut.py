"""The cable between the service and Redis is pulled: no reset, no word, until it is back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.faults.namespaces import Host, another_host
from tests.faults.world import Fault, World
from tests.harness.redis import Redis

FAULT = Fault(
    number="F-5",
    title="network to Redis cut for 60 s, without a reset",
    recovery_s=15,
    may_cut=False,
)


class Setting(World):
    """Redis on another host."""

    host: Host

    async def enter(self, stack: AsyncExitStack) -> None:
        self.host = stack.enter_context(another_host())

    def start_redis(self) -> Redis:
        return Redis.start(self.folder, host=self.host.address, through=self.host.through)


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    before = world.measures()
    await asyncio.to_thread(world.host.pull)
    await world.lasts(60)
    during = world.measures()
    await asyncio.to_thread(world.host.plug)
    world.over()
    # A notification that waits for its answer has a connection of its own.
    waiting = world.scale.rate_per_s * float(str(world.settings["notify_timeout_s"])) * 2
    if max(during.values()) > max(before.values()) + 10 + waiting:
        world.wrong(f"open files grew while Redis was away: {before}, {during}")
    await world.until(world.service.is_ready, "ready again", 10)
    connections = {name: world.redis.connections(name) for name in ("tail", "append")}
    world.note(f"connections to Redis after: {connections}")
