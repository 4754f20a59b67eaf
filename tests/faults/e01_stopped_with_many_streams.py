"""SIGTERM with thousands of streams: each response is completed, and the process ends with 0."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.world import Fault, Scale, World, busiest_second
from tests.harness.waiting import SECOND

FAULT = Fault(
    number="E-1",
    title="SIGTERM with thousands of streams, started again",
    recovery_s=40,
    settings={"drain_s": 10},
    answer_slack_s=3,
)

SCALES = {
    "short": Scale(browsers=2000, merchants=20, rate_per_s=20, time=0.2),
    "full": Scale(browsers=5000, merchants=50, rate_per_s=50, time=0.4),
    "long": Scale(browsers=5000, merchants=50, rate_per_s=50, time=1),
}


async def inject(world: World) -> None:
    await world.lasts(3)
    count = len(world.browsers)
    world.service.process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(world.service.process.wait, 60 * SECOND)
    if status != 0:
        world.wrong(f"the service ended with status {status}")
    ends = world.record.ends
    if ends["cut"] or ends["complete"] < count:
        world.wrong(f"expected {count} complete responses, got {dict(ends)}")
    peak = busiest_second(world.record.connects[count:])
    # A browser may come twice: after its goodbye, and after the soft answer of nginx, which has its
    # times scaled here, as the drain has not.
    if peak > count / 3:
        world.wrong(f"{peak} of {count} browsers came back within one second")
    if len(world.record.retries_ms) < 10:
        world.wrong(f"expected reconnection times apart, got {sorted(world.record.retries_ms)}")
    if world.redis.connections("") != 0:
        world.wrong("connections to Redis were left open")
    await world.start_service()
    world.over()
    world.note(f"all {count} complete; at most {peak} reconnections in a second")
