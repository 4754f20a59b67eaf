"""Tokens that expire while their streams live."""

from __future__ import annotations

import random

import pytest

from sse_push.hub.expiry import Expiries, Expiry
from tests.harness.clock import ManualClock

WALL = 1_800_000_000.0
"""What the wall clock says when the other one says 1000."""


class Streams:
    """Whom the expiries tell and end, and when."""

    def __init__(self, expiring_s: float = 30) -> None:
        self.clock = ManualClock()
        self.wall_ahead_s = WALL - self.clock.now
        self.told: list[tuple[str, float, int]] = []
        self.ended: list[tuple[str, float]] = []
        self.refusals = 0
        self.expiries: Expiries[str] = Expiries(
            expiring_s, self.tell, self.end, self.clock, lambda: self.clock.now + self.wall_ahead_s
        )

    def tell(self, stream: str, expires_in_s: int) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.told.append((stream, self.clock.now, expires_in_s))
        return True

    def end(self, stream: str) -> None:
        self.ended.append((stream, self.clock.now))

    def add(self, expires_in_s: float, stream: str = "a") -> Expiry[str]:
        return self.expiries.add(stream, self.clock.now + self.wall_ahead_s + expires_in_s)


def test_a_stream_is_told_before_its_token_expires_and_ended_in_time() -> None:
    streams = Streams(30)
    expiry = streams.add(100)

    streams.clock.advance(101)

    ((_, told_at, expires_in_s),) = streams.told
    ((_, ended_at),) = streams.ended
    assert expiry.at == 1100
    assert 1069.5 <= told_at <= 1070
    assert expires_in_s == 30
    assert 1099.5 <= ended_at <= 1100


def test_no_stream_is_ended_late_or_long_before_its_time() -> None:
    chance = random.Random(5)
    streams = Streams(1)
    at = {}
    for number in range(2000):
        at[f"s{number}"] = streams.add(chance.uniform(0, 20), f"s{number}").at
        streams.clock.advance(chance.uniform(0, 0.05))

    streams.clock.advance(30)

    assert sorted(name for name, _ in streams.ended) == sorted(at)
    # By float: half a microsecond is none.
    assert all(-1e-6 < at[name] - ended_at < 0.41 for name, ended_at in streams.ended)
    assert all(at[name] - told_at > 0.1 for name, told_at, _ in streams.told)


@pytest.mark.parametrize(
    ("expires_in_s", "told_after_s", "told"), [(20, 10, 10), (4, 2, 2), (59, 29.5, 30)]
)
def test_a_token_of_a_short_life_is_told_of_at_half_of_it(
    expires_in_s: float, told_after_s: float, told: int
) -> None:
    """So that a page does not renew a token over and over that lives for less than that."""
    streams = Streams(30)
    streams.add(expires_in_s)

    streams.clock.advance(expires_in_s)

    ((_, told_at, said),) = streams.told
    assert told_after_s - 0.5 <= told_at - 1000 <= told_after_s
    assert abs(said - told) <= 1


@pytest.mark.parametrize("expires_in_s", [0.39, 0.25, 0.1, 0.0, -3])
def test_a_token_of_a_moment_ends_in_time_and_says_no_more(expires_in_s: float) -> None:
    streams = Streams()
    streams.add(expires_in_s)

    streams.clock.advance(1)

    assert streams.told == []
    ((_, ended_at),) = streams.ended
    assert ended_at - 1000 <= max(0, expires_in_s)


def test_a_stream_that_can_not_be_told_now_is_told_soon() -> None:
    streams = Streams(2)
    streams.refusals = 3
    streams.add(10)

    streams.clock.advance(11)

    ((_, told_at, _),) = streams.told
    assert 1008 <= told_at <= 1008.6
    assert len(streams.ended) == 1


def test_a_stream_that_can_never_be_told_ends_all_the_same() -> None:
    streams = Streams(2)
    streams.refusals = 10**6
    streams.add(10)

    streams.clock.advance(11)

    assert streams.told == []
    assert 1009.5 <= streams.ended[0][1] <= 1010


def test_the_wall_clock_is_asked_once() -> None:
    """A clock that is set while the stream lives does not lengthen it."""
    streams = Streams()
    streams.add(10)
    streams.wall_ahead_s -= 3600

    streams.clock.advance(10)

    assert len(streams.ended) == 1


def test_a_stream_that_has_left_is_neither_told_nor_ended_and_leaves_no_timer() -> None:
    streams = Streams()
    streams.expiries.remove(streams.add(100))

    streams.clock.advance(200)

    assert (streams.told, streams.ended, streams.clock.timers) == ([], [], [])


def test_a_loop_that_was_busy_ends_what_is_over_before_it_tells() -> None:
    streams = Streams(5)
    streams.add(10)
    streams.clock.advance(1)
    streams.clock.now += 20

    streams.clock.advance(0.2)

    assert streams.told == []
    assert len(streams.ended) == 1
