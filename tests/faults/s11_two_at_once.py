"""Two parts are broken at once, drawn at random: ``--seed`` repeats what another run has drawn."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.faults.injections import PAIRS, Breakable, Injection, name_of
from tests.faults.world import Fault, World

FAULT = Fault(
    number="S-11",
    title="two faults at once, drawn at random, several rounds",
    recovery_s=60,
    loses_history=True,
    redis=("--appendonly", "yes", "--appendfsync", "no"),  # a process that is killed loses nothing
    answer_slack_s=8,  # of a worker that is frozen
    log=("worker is silent, killing",),  # one that is frozen for longer than its supervisor waits
)

ROUNDS = {"short": 1, "full": 5, "long": 20}

Setting = Breakable


async def inject(world: World) -> None:
    assert isinstance(world, Breakable)
    for number in range(ROUNDS[world.size]):
        pair = world.chance.choice(PAIRS)
        names = " and ".join(map(name_of, pair))
        world.note(names)
        try:
            took_s = await in_one_round(world, pair)
        except AssertionError as exc:
            raise AssertionError(f"round {number + 1}, seed {world.seed}, {names}: {exc}") from exc
        world.note(f"current after {took_s:.1f} s")
    world.over()


async def in_one_round(world: Breakable, pair: tuple[Injection, Injection]) -> float:
    """Break both, one a little later; return how long it took until all was well again."""
    async with AsyncExitStack() as broken:
        for injection in pair:
            await world.lasts(world.chance.uniform(0, 3), least_s=0)
            await broken.enter_async_context(injection(world))
        await world.lasts(world.chance.uniform(3, 15), least_s=0.5)
    for merchant in world.merchants:
        await world.backend.tell_until_accepted(merchant, world.seconds(20) + 5)
    return await world.until(lambda: not world.behind(), "all current", world.fault.recovery_s)
