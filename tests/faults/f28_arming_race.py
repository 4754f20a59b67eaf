"""Browsers arrive while notifications are on their way, with a slow and uneven way to Redis."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from tests.faults.browsers import Browser
from tests.faults.far_redis import FarRedis
from tests.faults.world import Fault, World
from tests.harness.waiting import until

ROUNDS = {"short": 2_000, "full": 10_000, "long": 10_000}


Setting = FarRedis


FAULT = Fault(
    number="F-28",
    title="browsers that arrive while something changes, 0 to 50 ms from Redis",
    recovery_s=8,
    answer_slack_s=3,
    settings={
        "notify_timeout_s": 3,
        "probe_interval_s": 3,
        "probe_deadline_s": 6,
        "deaf_limit_s": 20,
    },
)


async def inject(world: World) -> None:
    assert isinstance(world, FarRedis)
    rounds = ROUNDS[world.size]
    world.way.delay_s = 0.05
    done = 0

    async def arrive(number: int) -> int:
        """Come new, or with the newest ID of a moment ago; return how often it stayed deaf."""
        nonlocal done
        deaf = 0
        merchant = f"race{number}"
        known = ""
        while done < rounds:
            done += 1
            browser = Browser(merchant, world.front, world.record)
            browser.parser.last_event_id = known
            browser.open()
            await asyncio.sleep(random.uniform(0, 0.06))
            told = max(
                await asyncio.gather(
                    *(world.backend.tell_until_accepted(merchant, 5) for _ in range(2))
                )
            )
            try:
                await until(partial(browser.is_current, told, -1), "the refresh")
            except AssertionError:
                deaf += 1
            known = browser.parser.last_event_id
            browser.close()
        return deaf

    await world.hush()
    deaf = sum(await asyncio.gather(*(arrive(number) for number in range(32))))
    if deaf:
        world.wrong(f"{deaf} of {rounds} never heard of what came as they arrived")
    world.way.delay_s = 0
    world.over()
    world.note(f"{rounds} arrivals")
