"""Tens of thousands of notifications, to browsers that read and to some that do not."""

from __future__ import annotations

import asyncio

from tests.faults.world import Fault, World
from tests.processes import resident_kib

FAULT = Fault(
    number="E-2",
    title="tens of thousands of notifications, and no byte per notification",
    recovery_s=8,
    settings={"stream_max_entries": 100},
)

ROUNDS = {"short": 200, "full": 1_000, "long": 5_000}


async def inject(world: World) -> None:
    await world.hush()
    sleepers = world.browsers[::4]
    for browser in sleepers:
        browser.pause()
    resident: list[list[int]] = []
    for number in range(ROUNDS[world.size]):
        await world.backend.tell_many([world.merchants[number % len(world.merchants)]] * 100)
        if number % (ROUNDS[world.size] // 4) == 0:
            resident.append([resident_kib(pid) for pid in world.workers])
    resident.append([resident_kib(pid) for pid in world.workers])
    grown = max(last - first for first, last in zip(resident[1], resident[-1], strict=True))
    if grown > 4096:
        world.wrong(f"a worker grew by {grown} KiB after the first quarter: {resident}")
    for browser in sleepers:
        browser.resume()
    await asyncio.sleep(0)
    world.over()
    world.note(
        f"{ROUNDS[world.size] * 100} notifications, {len(sleepers)} browsers asleep; "
        f"a worker grew by {grown} KiB after the first quarter"
    )
