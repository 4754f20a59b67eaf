"""One worker hears nothing on any connection: it has to give itself up."""

from __future__ import annotations

import asyncio

from tests.faults.sabotage import sabotage
from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-27b",
    title="one worker deaf on every connection it makes",
    recovery_s=60,
    answer_slack_s=3,  # while one of two workers starts again
    module=("tests.faults.sabotage", "serve"),
    log=("watchdog of the tail died", "Traceback", "no write of ours was announced"),
)


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    await asyncio.to_thread(sabotage, world.service.url, "deafen_for_good", before[0])
    world.over()
    red_s = await world.until(lambda: not world.is_ready(), "readiness to be red", 15)
    age_s = await world.metric("sse_push_probe_age_seconds")
    if age_s < world.seconds(3):
        world.wrong(f"not ready, and the probe's age says {age_s:.1f} s")
    took_s = await world.until(lambda: before[0] not in world.workers, "it to be replaced", 60)
    # The other worker is ready; the new one has to start first.
    green_s = await world.until(world.is_ready, "ready again", 60)
    world.note(
        f"red after {red_s:.1f} s, replaced after {took_s:.1f} s more, green {green_s:.1f} s later"
    )
