"""Streams are deleted, expire, or all is flushed, under connected browsers."""

from __future__ import annotations

import time

from tests.faults.world import Fault, World
from tests.harness.keys import stream_key

FAULT = Fault(
    number="F-16",
    title="streams deleted, expired, flushed",
    recovery_s=5,
    loses_history=True,
    needs_sweep=True,
    may_cut=False,
)


async def inject(world: World) -> None:
    keys = [stream_key(merchant) for merchant in world.merchants]
    for words in (["DEL", *keys], ["PEXPIRE", "*", "1"], ["FLUSHALL"]):
        await world.hush()
        for merchant in world.merchants:
            await world.backend.tell_until_accepted(merchant, 5)
        await world.until(lambda: not world.behind(), "all current", 5)
        world.history_lost()
        began_at = time.monotonic()
        if words[1:2] == ["*"]:
            for key in keys:
                world.redis.cli(words[0], key, words[2])
        else:
            world.redis.cli(*words)
        took_s = await world.refreshed(40, since=began_at)
        world.note(f"{words[0]}: all refreshed after {took_s:.2f} s")
        world.publish()
    world.over()
