"""Browsers that come and go without end, beside some that stay."""

from __future__ import annotations

import asyncio
import random

from tests.faults.browsers import Browser, Record
from tests.faults.world import Fault, World
from tests.harness.processes import open_fds, resident_kib

FAULT = Fault(
    number="F-14",
    title="flapping browsers, 20 rounds, and nothing left of them",
    recovery_s=5,
    answer_slack_s=5,  # hundreds of connections at once keep this process busy too
)


async def inject(world: World) -> None:
    resident: list[int] = []
    count = round(world.scale.browsers * 2.5)
    for _ in range(20):
        flapping = [
            Browser(world.merchants[number % len(world.merchants)], world.front, Record())
            for number in range(count)
        ]
        for browser in flapping:
            browser.open()
        await asyncio.sleep(random.uniform(0, 0.2))  # some are gone before they were answered
        for browser in flapping:
            browser.close()
        await world.until(
            lambda: max(map(open_fds, world.workers)) < world.scale.browsers + 100,
            "them to be gone",
            10,
        )
        resident.append(max(map(resident_kib, world.workers)))
    world.over()
    grown = resident[-1] - resident[4]
    if grown > max(0.05 * resident[4], 4096):
        world.wrong(f"a worker grew from {resident[4]} to {resident[-1]} KiB")
    world.note(
        f"20 times {count} connections; the larger worker grew by {grown} KiB since the fifth"
    )
