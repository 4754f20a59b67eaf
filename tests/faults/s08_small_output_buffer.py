"""Redis cuts a connection whose replies wait in a buffer of more than 1 MB.

After the loss of the tracked connection every stream is read again: all at once would be too much,
again and again.
"""

from __future__ import annotations

from tests.faults.world import Fault, Scale, World

FAULT = Fault(
    number="S-8",
    title="output buffer limited to 1 MB, 300 merchants with 8 KB of data, tail killed once",
    recovery_s=15,
    redis=("--client-output-buffer-limit", "normal", "1mb", "0", "0"),
    may_cut=False,
)

SCALES = {
    "short": Scale(browsers=300, merchants=300, rate_per_s=30, time=0.2),
    "full": Scale(browsers=300, merchants=300, rate_per_s=50, time=0.4),
    "long": Scale(browsers=2000, merchants=300, rate_per_s=50, time=1),
}


class Setting(World):
    """Notifications of nearly as much data as is allowed."""

    def equip(self) -> None:
        self.backend.data = "x" * 8000


async def inject(world: World) -> None:
    await world.hush()
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.until(lambda: not world.behind(), "all current", 10)
    kept, killed = world.tails()
    world.redis.cli("CLIENT", "KILL", "ID", killed)
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, 5)
    await world.until(lambda: len(world.tails()) == 2, "another tracked connection", 5)
    (new,) = set(world.tails()) - {kept}
    world.over()
    took_s = await world.until(lambda: not world.behind(), "all current again", 15)
    if set(world.tails()) != {kept, new}:
        world.wrong(f"tracked connections were cut: {kept} and {new} became {world.tails()}")
    world.note(f"all current after {took_s:.1f} s")
