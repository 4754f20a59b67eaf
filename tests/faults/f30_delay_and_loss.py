"""Between browsers and nginx every piece is late, and connections break within an event."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.faults.proxies import Proxy, proxy
from tests.faults.world import Fault, World
from tests.harness.processes import resident_kib


class Setting(World):
    """A bad way between browsers and nginx."""

    way: Proxy

    async def before_browsers(self, stack: AsyncExitStack) -> None:
        self.way = await stack.enter_async_context(proxy(self.front()))
        self.entrance = self.way.address


FAULT = Fault(
    number="F-30",
    title="browsers with 300 ms of delay and 5 % of pieces lost",
    recovery_s=20,
)


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    resident = max(map(resident_kib, world.workers))
    world.way.delay_s = 0.3
    world.way.cut_share = 0.05
    await world.lasts(40)
    grown = max(map(resident_kib, world.workers)) - resident
    if grown > 8192:
        world.wrong(f"a worker grew by {grown} KiB")
    world.way.delay_s = world.way.cut_share = 0
    world.over()
