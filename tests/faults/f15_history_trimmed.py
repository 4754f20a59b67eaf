"""Browsers are away while more happens than the stream keeps."""

from __future__ import annotations

from tests.faults.world import Fault, World

FAULT = Fault(
    number="F-15",
    title="1 000 notifications while away, history trimmed to 10",
    recovery_s=5,
    settings={"stream_max_entries": 10},
)


_MERCHANTS = 6
"""Of so few, each stream gets some 170 entries: Redis trims by whole nodes, of 100 entries each."""


async def inject(world: World) -> None:
    await world.hush()
    merchants = world.merchants[:_MERCHANTS]
    for merchant in merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.until(lambda: not world.behind(), "all current", 5)
    away = [browser for browser in world.part(2) if browser.merchant_id in merchants]
    assert away, "browsers of these merchants"
    for browser in away:
        browser.leave()
    for number in range(1000):
        assert await world.backend.tell(merchants[number % _MERCHANTS])
    before = {browser: browser.refreshes for browser in away}
    for browser in away:
        browser.open()
    await world.until(lambda: not world.behind(), "all current again", 5)
    many = [browser for browser in away if browser.refreshes - before[browser] != 1]
    if many:
        world.wrong(f"{len(many)} browsers did not get one refresh for all that they had missed")
    world.over()
