"""nginx is killed with all its workers, and started again."""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-11",
    title="nginx killed (-9), started again after 5 s",
    recovery_s=12,
)


async def inject(world: World) -> None:
    nginx = world.nginx
    assert nginx is not None, "not without"
    await world.lasts(3)
    nginx.kill()
    await world.lasts(5)
    world.nginx = await asyncio.to_thread(world.start_nginx, nginx.port)
    world.over()
