"""An hour of everything a little: browsers that come and go, workers rotated, Redis restarted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from tests.faults.browsers import Browser, Record
from tests.faults.world import Fault, World
from tests.harness.processes import open_fds, resident_kib

FAULT = Fault(
    number="F-29",
    title="soak: churn, rotation of workers, Redis restarted, for an hour",
    recovery_s=20,
    redis=("--appendonly", "yes", "--appendfsync", "no"),  # as in F-1
    answer_slack_s=10,
)
SIZES = ("long",)

SOAK_S = float(os.environ.get("SSE_PUSH_TEST_SOAK_S", "3000"))
ROUND_S = SOAK_S / 10


async def inject(world: World) -> None:
    resident: list[int] = []
    began_at = time.monotonic()
    rounds = 0
    while time.monotonic() - began_at < SOAK_S:
        rounds += 1
        until = time.monotonic() + ROUND_S
        while time.monotonic() < until:
            visitor = Browser(random.choice(world.merchants), world.front, Record())
            visitor.open()
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(random.uniform(0, 20), visitor.close)
        resident.append(max(map(resident_kib, world.workers)))
        if rounds % 4 == 0:
            world.service.process.send_signal(signal.SIGHUP)
        elif rounds % 2 == 0:
            world.redis.kill()
            await world.lasts(5)
            await world.restart_redis()
    world.over()
    files = max(map(open_fds, world.workers))
    world.note(f"{rounds} rounds; the larger worker's KiB after each: {resident}; {files} files")
