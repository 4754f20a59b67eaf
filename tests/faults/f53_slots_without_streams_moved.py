"""Slots are moved that have no stream yet: no server announces what is written there later."""

from __future__ import annotations

import asyncio
import time

from tests.faults.clusters import WithQuietMerchants, slots_of
from tests.faults.world import SLACK_S, Fault, World

FAULT = Fault(
    number="F-53",
    title="two instances; cluster: slots of merchants without a stream moved, each then notified",
    recovery_s=8,
    settings={"max_planted": 0},
    may_cut=False,
)

SIZES = ("full", "long")

Setting = WithQuietMerchants

_PROMISE_S = 5
"""How long a merchant may be silent at most, after the slot has moved."""


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    await world.lasts(3)
    primaries = world.primaries
    slowest_s = 0.0
    for number, owner in enumerate(primaries):
        merchants = [each for each in world.merchants_of(owner) if each in world.quiet]
        browsers = [each for each in world.browsers if each.merchant_id in merchants]
        to = primaries[(number + 1) % len(primaries)]
        await world.move(slots_of(merchants), to, lasts_s=0)
        began_at = time.monotonic()
        newest = await asyncio.gather(*map(world.backend.tell, merchants))
        told = dict(zip(merchants, newest, strict=True))
        await world.until(
            lambda told=told, browsers=browsers: all(  # type: ignore[misc]
                each.is_current(told[each.merchant_id], -1) for each in browsers
            ),
            "the browsers of all merchants that were moved to be told",
            _PROMISE_S,
        )
        slowest_s = max(slowest_s, time.monotonic() - began_at)
        world.quiet = [each for each in world.quiet if each not in merchants]
    if slowest_s > world.seconds(_PROMISE_S) + SLACK_S:
        world.wrong(f"told after {slowest_s:.1f} s")
    await world.goes_on()
    world.note(f"told {slowest_s:.1f} s after the move at the latest")
