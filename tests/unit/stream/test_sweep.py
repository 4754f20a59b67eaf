"""Every stream has its turn in a round, whatever comes and goes; and rules taken out of that."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sse_push.stream.sweep import Sweep

STEPS = 30


class Streams:
    """A sweep, and how many steps each stream has waited for its turn."""

    def __init__(self, sweep: Sweep[int]) -> None:
        self.sweep = sweep
        self.waited: Counter[int] = Counter()
        self.longest_wait = 0
        self.most_at_once = 0
        self.next_name = 0

    def come(self, count: int) -> None:
        for _ in range(count):
            self.sweep.add(self.next_name)
            self.waited[self.next_name] = 0
            self.next_name += 1

    def go(self, names: list[int]) -> None:
        for name in names:
            self.sweep.remove(name)
            del self.waited[name]

    def step(self) -> list[int]:
        turns = self.sweep.step()
        assert len(set(turns)) == len(turns), "no stream has two turns in one step"
        assert set(turns) <= set(self.waited), "only streams that are there have a turn"
        for name in self.waited:
            self.waited[name] += 1
        self.longest_wait = max(self.longest_wait, *self.waited.values(), 0)
        self.most_at_once = max(self.most_at_once, len(turns))
        for name in turns:
            self.waited[name] = 0
        return turns


@pytest.fixture
def streams() -> Streams:
    return Streams(Sweep(STEPS))


def test_a_sweep_without_streams_has_no_turns(streams: Streams) -> None:
    assert streams.sweep.step() == []


def test_each_stream_has_one_turn_in_a_round_in_their_order(streams: Streams) -> None:
    streams.come(3 * STEPS)

    turns = [name for _ in range(STEPS) for name in streams.step()]

    assert turns == list(range(3 * STEPS))
    assert streams.most_at_once == 3


def test_a_new_stream_has_its_turn_within_a_round_though_thousands_were_there_and_left(
    streams: Streams,
) -> None:
    streams.come(10_000)
    streams.step()
    streams.go(list(streams.waited))
    streams.come(100)

    turns = [name for _ in range(STEPS) for name in streams.step()]

    assert set(turns) == set(range(10_000, 10_100))


def test_a_stream_has_its_turn_within_a_round_though_each_stream_leaves_after_its_own(
    streams: Streams,
) -> None:
    """With fewer streams each step has fewer turns: the last would wait for several rounds."""
    streams.come(3000)
    for _ in range(STEPS):
        streams.go(streams.step())

    assert not streams.waited
    assert streams.longest_wait <= STEPS


# -- at random


class TakesAShareOnly(Sweep[int]):
    """No stream is taken because its time has come."""

    def _is_due(self, turn: int) -> bool:  # noqa: ARG002
        return False


class PutsNewOnesFirst(Sweep[int]):
    """A new stream has its turn before those that have waited."""

    def add(self, stream: int) -> None:
        super().add(stream)
        self._turns.move_to_end(stream, last=False)


def longest_wait(sweep: Sweep[int], seed: int) -> int:
    """Let streams come and go at random for some rounds."""
    chance = random.Random(seed)
    streams = Streams(sweep)
    for _ in range(2 * STEPS):
        come, go, leave_after_their_turn = chance.choice(
            [(1, 0, 0.0), (100, 0, 0.0), (0, 100, 0.0), (5, 5, 1.0), (0, 0, 1.0)]
        )
        for _ in range(chance.choice([1, 2, STEPS])):
            streams.come(come)
            streams.go(chance.sample(list(streams.waited), min(go, len(streams.waited))))
            turns = streams.step()
            if chance.random() < leave_after_their_turn:
                streams.go(turns)
    return streams.longest_wait


@pytest.mark.parametrize("seed", range(6))
def test_no_stream_waits_longer_than_a_round_whatever_comes_and_goes(seed: int) -> None:
    assert longest_wait(Sweep(STEPS), seed) <= STEPS


@pytest.mark.parametrize("mutant", [TakesAShareOnly, PutsNewOnesFirst])
def test_a_rule_of_the_sweep_that_is_taken_out_lets_a_stream_wait(
    mutant: type[Sweep[int]],
) -> None:
    assert max(longest_wait(mutant(STEPS), seed) for seed in range(3)) > STEPS
