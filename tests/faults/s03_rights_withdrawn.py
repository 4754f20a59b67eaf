"""The service's user loses the right to read, keeps that to write, and gets the other one back."""

from __future__ import annotations

import asyncio
from typing import get_args

from sse_push.stream.watch import ResyncReason
from tests.faults.world import Fault, World

FAULT = Fault(
    number="S-3",
    title="rights to read withdrawn while it runs (-xrevrange, -@read), given back",
    recovery_s=10,
    may_cut=False,
)

RIGHTS = ("xrevrange", "@read")


async def inject(world: World) -> None:
    for right in RIGHTS:
        await world.lasts(3)
        world.redis.cli("ACL", "SETUSER", "default", f"-{right}")
        red_s = await world.until(lambda: not world.is_ready(), "readiness to be red", 15)
        stored = world.backend.ledger.outcomes["stored"]
        await world.lasts(5)
        if await asyncio.to_thread(world.is_ready):
            world.wrong(f"ready without {right}")
        if world.backend.ledger.outcomes["stored"] == stored:
            world.wrong(f"expected notifications to be taken without {right}, got none")
        world.redis.cli("ACL", "SETUSER", "default", f"+{right}")
        green_s = await world.until(world.is_ready, "ready again", 10)
        world.note(f"{right}: red after {red_s:.1f} s, green {green_s:.1f} s after its return")
    world.over()
    resyncs = [
        await world.metric("sse_push_resyncs_total", reason=reason)
        for reason in get_args(ResyncReason)
    ]
    if any(resyncs):
        world.wrong(f"{resyncs} resyncs, though nothing was lost")
