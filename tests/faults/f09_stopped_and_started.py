"""The whole service is away for a while; nginx answers for it."""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-9",
    title="service stopped for 10 s, nginx's soft answer",
    recovery_s=36,
    answer_slack_s=3,  # the port takes connections while the workers still start
)


async def inject(world: World) -> None:
    await world.lasts(3)
    status = await asyncio.to_thread(world.service.stop)
    if status != 0:
        world.wrong(f"the service ended with status {status}")
    if world.record.ends["cut"]:
        world.wrong(f"{world.record.ends['cut']} responses were cut")
    await world.lasts(10)
    await world.start_service()
    world.over()
