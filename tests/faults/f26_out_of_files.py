"""The workers may open no more files; who is connected stays so, and the rest waits its turn."""

from __future__ import annotations

import resource
import time

from tests.faults.browsers import Browser
from tests.faults.world import Fault, World
from tests.harness.processes import cpu_s, open_fds

FAULT = Fault(
    number="F-26",
    title="workers out of file descriptors",
    recovery_s=40,
)


async def inject(world: World) -> None:
    half = len(world.browsers) // 2
    crowd = [Browser(world.merchants[0], world.front, world.record) for _ in range(4 * half)]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in world.workers}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_fds(pid) + half, hard))
    await world.hush()
    for browser in crowd:
        browser.open()
    await world.lasts(5)
    before_s = sum(cpu_s(pid) for pid in limits)
    began_at = time.monotonic()
    await world.lasts(20)
    share = (sum(cpu_s(pid) for pid in limits) - before_s) / (time.monotonic() - began_at)
    if share > 0.5:
        world.wrong(f"the workers used {share:.0%} of a core while they could accept nobody")
    served = sum(browser.is_open for browser in world.browsers)
    if served < len(world.browsers):
        world.wrong(f"only {served} of those who were connected before stayed connected")
    for browser in crowd:
        browser.close()
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    world.over()
    world.note(f"{len(crowd)} more wanted in; the workers used {share:.0%} of a core meanwhile")
