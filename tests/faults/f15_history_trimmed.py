"""Browsers are away while more happens than the stream keeps."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-15",
    title="1 000 notifications while away, history trimmed to 10",
    recovery_s=5,
    settings={"stream_max_entries": 10},
)


async def inject(world: World) -> None:
    await world.hush()
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.until(lambda: not world.behind(), "all current", 5)
    away = world.part(2)
    for browser in away:
        browser.leave()
    for number in range(1000):
        assert await world.backend.tell(world.merchants[number % len(world.merchants)])
    before = {browser: browser.refreshes for browser in away}
    for browser in away:
        browser.open()
    await world.until(lambda: not world.behind(), "all current again", 5)
    many = [browser for browser in away if browser.refreshes - before[browser] != 1]
    if many:
        world.wrong(f"{len(many)} browsers got more than one refresh for what they had missed")
    world.over()
