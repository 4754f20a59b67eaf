"""The workers are replaced one after the other, while notifications go on."""

from __future__ import annotations

import signal

from tests.faults.world import Fault, Scale, World, busiest_second

FAULT = Fault(
    number="F-8",
    title="rolling restart of both workers (SIGHUP)",
    recovery_s=12,
    may_cut=False,
    settings={"drain_s": 6},
    answer_slack_s=3,
)

SCALES = {
    "short": Scale(browsers=1000, merchants=20, rate_per_s=50, time=0.2),
    "full": Scale(browsers=2000, merchants=50, rate_per_s=50, time=0.4),
    "long": Scale(browsers=5000, merchants=50, rate_per_s=50, time=1),
}


async def inject(world: World) -> None:
    await world.lasts(3)
    before = world.workers
    begun = len(world.record.connects)
    world.service.process.send_signal(signal.SIGHUP)
    await world.until(
        lambda: not set(before) & set(world.workers) and len(world.workers) == 2,
        "two new workers",
        70,
    )
    world.over()
    await world.lasts(3)
    peak = busiest_second(world.record.connects[begun:])
    if peak > len(world.browsers) / 5:
        world.wrong(f"{peak} of {len(world.browsers)} browsers came back within one second")
    retries = world.record.retries_ms
    if len(retries) < 10:
        world.wrong(f"expected goodbyes with reconnection times apart, got {sorted(retries)}")
    world.note(
        f"at most {peak} reconnections in a second; retry {min(retries)} to {max(retries)} ms"
    )
