"""Ten thousand idle streams, and one notification to the merchant of the last."""

from __future__ import annotations

import time

from tests.faults.world import Fault, Scale, World
from tests.harness.processes import resident_kib

FAULT = Fault(
    number="F-23",
    title="10 000 idle streams",
    recovery_s=10,
    may_cut=False,
)
SIZES = ("long",)
SCALES = {"long": Scale(browsers=10_000, merchants=1000, rate_per_s=5, time=1)}


async def inject(world: World) -> None:
    await world.hush()
    await world.lasts(120)
    per_stream = sum(map(resident_kib, world.workers)) / len(world.browsers)
    last = world.browsers[-1]
    began_at = time.monotonic()
    told = await world.backend.tell_until_accepted(last.merchant_id, 3)
    await world.until(lambda: last.is_current(told, -1), "the last browser to hear", 1)
    heard_s = time.monotonic() - began_at
    world.over()
    world.note(f"{per_stream:.1f} KiB resident per stream; the last heard after {heard_s:.3f} s")
