"""Redis is a second away, from the start; then nearer, then near, and suddenly far again.

Nothing is broken but the time, which is no evidence: no stream may end, no connection to Redis may
be given up, and each notification for which there is time is accepted.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from tests.faults.proxies import LongWay, running
from tests.faults.s01_address_moves import connections, kill
from tests.faults.world import Fault, World
from tests.harness.waiting import SECOND

FAULT = Fault(
    number="S-7",
    title="round trips to Redis of 1 s, 500, 250 and 50 ms, none, and 1 s again",
    recovery_s=15,
    # Limits as in production, since the way to Redis is not scaled either.
    settings={
        "notify_timeout_s": 3 * SECOND,
        "probe_interval_s": 3 * SECOND,
        "probe_deadline_s": 6 * SECOND,
        "deaf_limit_s": 20 * SECOND,
    },
    may_cut=False,
)

MOST_UNSTORED = 0.05
"""The share of notifications that a machine may be too busy for; none, on an idle one."""

NEW_S = 5.0
"""How long notifications go on after the connections that add were killed."""

ROUND_TRIPS_S = (1.0, 0.5, 0.25, 0.05, 0.0, 1.0)


class Setting(World):
    """Far away before the service starts."""

    way: LongWay

    async def prepare(self, stack: AsyncExitStack) -> None:
        self.way = LongWay(("127.0.0.1", self.redis.port))
        self.way.way_s = ROUND_TRIPS_S[0] / 2
        await stack.enter_async_context(running(self.way))
        self.redis_url = self.way.url


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    tails = world.tails()
    for round_trip_s in ROUND_TRIPS_S:
        world.way.way_s = round_trip_s / 2
        took_s = await hear_of_one(world, round_trip_s)
        world.note(f"{round_trip_s:g} s: heard after {took_s:.1f} s")
        await world.lasts(3)
    outcomes = world.backend.ledger.outcomes
    if outcomes.total() - outcomes["stored"] > outcomes.total() * MOST_UNSTORED:
        world.wrong(f"expected notifications to be accepted, got {dict(outcomes)}")
    await add_over_new_connections(world)
    world.way.way_s = 0.0
    world.over()
    if set(world.tails()) != set(tails):
        world.wrong(f"tracked connections were given up: {tails}, {world.tails()}")


async def add_over_new_connections(world: World) -> None:
    """Kill the connections that add; each new one takes its time, and then there is enough."""
    outcomes = world.backend.ledger.outcomes
    await world.hush()
    for connection in connections(world.redis, "append"):
        kill(world.redis, connection)
    stored = outcomes["stored"]
    world.publish()
    await world.lasts(NEW_S, least_s=NEW_S)
    await world.hush()
    if outcomes["stored"] == stored:
        world.wrong("expected new connections to add something, got nothing")
    world.publish()


async def hear_of_one(world: World, round_trip_s: float) -> float:
    """Notify one merchant; return after how long its browsers had heard."""
    merchant = world.merchants[0]
    own = [browser for browser in world.browsers if browser.merchant_id == merchant]
    began_at = time.monotonic()
    told = await world.backend.tell_until_accepted(merchant, 10)
    await world.until(
        lambda: all(browser.is_current(told, -1) for browser in own),
        f"current browsers with a round trip of {round_trip_s:g} s",
        15,
    )
    return time.monotonic() - began_at
