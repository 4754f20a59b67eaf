"""SIGTERM in the middle of a rolling restart is obeyed at once."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.faults.world import SLACK_S, Fault, World

FAULT = Fault(
    number="P-5",
    title="SIGTERM during a rolling restart of three workers, started again",
    recovery_s=36,
    workers=3,
    answer_slack_s=3,
)


async def inject(world: World) -> None:
    await world.lasts(3)
    world.service.process.send_signal(signal.SIGHUP)
    await world.until(lambda: "draining" in world.service.log, "a worker that drains", 10)
    asked_at = time.monotonic()
    status = await asyncio.to_thread(world.service.stop)
    took_s, drain_s = time.monotonic() - asked_at, float(str(world.settings["drain_s"]))
    if status != 0:
        world.wrong(f"the service ended with status {status}")
    if took_s > drain_s + SLACK_S:
        world.wrong(f"the end took {took_s:.1f} s, and one drain is {drain_s:g} s")
    if world.record.ends["cut"]:
        world.wrong(f"{world.record.ends['cut']} responses were cut")
    await world.start_service()
    world.over()
    world.note(f"ended after {took_s:.1f} s (a drain: {drain_s:g} s)")
