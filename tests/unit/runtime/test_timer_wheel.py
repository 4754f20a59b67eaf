"""Many deadlines on one timer."""

from __future__ import annotations

import random

from sse_push.runtime.timer_wheel import NOT_PLANNED, TimerWheel
from tests.harness.clock import ManualClock

TICK_S = 0.25


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name
        self.tick = NOT_PLANNED


class Visits:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.seen: list[tuple[str, float]] = []
        self.wheel: TimerWheel[Thing] = TimerWheel(TICK_S, self.visit, self.clock)

    def visit(self, thing: Thing, now: float) -> None:
        self.seen.append((thing.name, now))


def test_each_item_is_visited_once_within_a_tick_of_its_time() -> None:
    visits = Visits()
    chance = random.Random(1)
    due = {f"t{number}": visits.clock.time() + chance.uniform(0, 10) for number in range(500)}

    for name, at in due.items():
        visits.wheel.plan(Thing(name), at)
    visits.clock.advance(12)

    assert {name for name, _ in visits.seen} == set(due)
    assert len(visits.seen) == len(due)
    assert all(abs(now - due[name]) <= 2 * TICK_S for name, now in visits.seen)


def test_a_forgotten_item_is_not_visited_and_may_be_planned_again() -> None:
    visits = Visits()
    thing, other = Thing("thing"), Thing("other")
    visits.wheel.plan(thing, visits.clock.time() + 1)
    visits.wheel.plan(other, visits.clock.time() + 1)

    visits.wheel.forget(thing)
    visits.wheel.forget(thing)
    visits.clock.advance(2)
    visits.wheel.plan(thing, visits.clock.time() + 1)
    visits.clock.advance(2)

    assert [name for name, _ in visits.seen] == ["other", "thing"]


def test_an_item_due_in_the_past_is_visited_at_the_next_tick() -> None:
    visits = Visits()

    visits.wheel.plan(Thing("late"), visits.clock.time() - 100)
    visits.clock.advance(2 * TICK_S)

    assert [name for name, _ in visits.seen] == ["late"]


def test_an_item_may_be_planned_again_by_its_visit() -> None:
    visits = Visits()

    def visit(thing: Thing, now: float) -> None:
        visits.seen.append((thing.name, now))
        wheel.plan(thing, now + 1)

    wheel: TimerWheel[Thing] = TimerWheel(TICK_S, visit, visits.clock)
    wheel.plan(Thing("again"), visits.clock.time() + 1)
    visits.clock.advance(10.5)

    assert len(visits.seen) in (8, 9, 10)


def test_an_empty_wheel_has_no_timer() -> None:
    visits = Visits()
    thing = Thing("only")

    visits.wheel.plan(thing, visits.clock.time() + 1)
    visits.wheel.forget(thing)
    visits.clock.advance(TICK_S * 2)

    assert visits.clock.timers == []


def test_an_item_has_a_place_only_while_it_is_planned() -> None:
    visits = Visits()
    thing = Thing("thing")
    places = [thing.tick]

    visits.wheel.plan(thing, visits.clock.time() + 1)
    places.append(thing.tick)
    visits.wheel.forget(thing)
    places.append(thing.tick)
    visits.wheel.plan(thing, visits.clock.time() + 1)
    places.append(thing.tick)
    visits.clock.advance(2)
    places.append(thing.tick)

    assert [place != NOT_PLANNED for place in places] == [False, True, False, True, False]
