"""A backend writes what it should not into one merchant's key; all others are untouched."""

from __future__ import annotations

from functools import partial

from tests.faults.browsers import Browser
from tests.faults.world import Fault, World
from tests.harness.keys import KEYS, stream_key

FAULT = Fault(
    number="T-4",
    title="garbage, huge fields, another type of key in one merchant",
    recovery_s=5,
    loses_history=True,
    may_cut=False,
)

GARBAGE = (
    ["EVAL", r"redis.call('XADD', KEYS[1], '*', '\0\255', '\r\n\r\nevent: refresh')", "1", "KEY"],
    ["XADD", "KEY", "*", "topic", "a\r\nid: 9-9", "by", "x\r\ny", "data", "not json\r\n"],
    ["XADD", "KEY", "*", "data", "[" * 50_000],
    ["XADD", "KEY", "*", "data", '"' + "x" * 60_000 + '"'],
    ["XADD", "KEY", "*", *("field value " * 2000).split()],
    ["XADD", "KEY", "*", "data", '{"a":1,"a":2}', "merchant_id", "m1"],
    ["SET", "KEY", "a string where a stream was"],
    ["DEL", "KEY"],
    ["HSET", "KEY", "a", "hash"],
    ["DEL", "KEY"],
    ["XADD", "KEY", "*", "topic", "well again"],
)


async def inject(world: World) -> None:
    victim, *others = world.merchants
    await world.hush()
    own = [browser for browser in world.browsers if browser.merchant_id == victim]
    for number, words in enumerate(GARBAGE):
        before = [browser.refreshes for browser in own]
        command = [stream_key(victim) if word == "KEY" else word for word in words]
        world.redis.cli(*command)
        world.redis.cli("PUBLISH", KEYS.bell, f"- 0 {victim}")  # heard with bell=pubsub only
        if words[0] not in ("XADD", "EVAL"):
            world.history_lost()
        for merchant in others:
            await world.backend.tell_until_accepted(merchant, 2)
        await world.until(partial(_are_current, world, victim), f"others beside {number}", 5)
        if words[0] in ("XADD", "EVAL"):
            await world.until(partial(_were_told, own, before), f"a refresh after {number}", 5)
    world.history_lost()
    world.over()
    world.note(f"{len(GARBAGE)} kinds")


def _are_current(world: World, victim: str) -> bool:
    newest = world.backend.ledger.newest
    others = [browser for browser in world.browsers if browser.merchant_id != victim]
    return all(browser.is_current(newest[browser.merchant_id], -1) for browser in others)


def _were_told(browsers: list[Browser], before: list[int]) -> bool:
    return all(browser.refreshes > count for browser, count in zip(browsers, before, strict=True))
