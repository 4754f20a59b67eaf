"""Tokens that expire while their connections live."""

from __future__ import annotations

import random

import pytest

from sse_push.hub.expiry import Expiries, Expiry
from tests.harness.clock import ManualClock

WALL = 1_800_000_000.0
"""The wall clock's time when the manual clock starts at 1000."""


class Connections:
    """Connections by name: when each token's end is announced, and when each one ends."""

    def __init__(self, expiring_s: float = 30) -> None:
        self.clock = ManualClock()
        self.wall_ahead_s = WALL - self.clock.now
        self.announced: list[tuple[str, float, int]] = []
        self.ended: list[tuple[str, float]] = []
        self.refusals = 0
        self.expiries: Expiries[str] = Expiries(
            expiring_s,
            self.announce,
            self.end,
            self.clock,
            lambda: self.clock.now + self.wall_ahead_s,
        )

    def announce(self, connection: str, expires_in_s: int) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.announced.append((connection, self.clock.now, expires_in_s))
        return True

    def end(self, connection: str) -> None:
        self.ended.append((connection, self.clock.now))

    def add(self, expires_in_s: float, connection: str = "a") -> Expiry[str]:
        return self.expiries.add(connection, self.clock.now + self.wall_ahead_s + expires_in_s)


def test_the_end_of_a_token_is_announced_and_its_connection_ends_in_time() -> None:
    connections = Connections(30)
    expiry = connections.add(100)

    connections.clock.advance(101)

    ((_, announced_at, expires_in_s),) = connections.announced
    ((_, ended_at),) = connections.ended
    assert expiry.at == 1100
    assert 1069.5 <= announced_at <= 1070
    assert expires_in_s == 30
    assert 1099.5 <= ended_at <= 1100


def test_a_connection_ends_neither_late_nor_long_before_its_token() -> None:
    chance = random.Random(5)
    connections = Connections(1)
    at = {}
    for number in range(2000):
        at[f"s{number}"] = connections.add(chance.uniform(0, 20), f"s{number}").at
        connections.clock.advance(chance.uniform(0, 0.05))

    connections.clock.advance(30)

    assert sorted(name for name, _ in connections.ended) == sorted(at)
    # Floating-point times: half a microsecond makes no difference.
    assert all(-1e-6 < at[name] - ended_at < 0.41 for name, ended_at in connections.ended)
    assert all(at[name] - announced_at > 0.1 for name, announced_at, _ in connections.announced)


@pytest.mark.parametrize(
    ("expires_in_s", "announced_after_s", "announced"), [(20, 10, 10), (4, 2, 2), (59, 29.5, 30)]
)
def test_the_end_of_a_short_lived_token_is_announced_at_half_its_life(
    expires_in_s: float, announced_after_s: float, announced: int
) -> None:
    """A page would otherwise renew such a token over and over."""
    connections = Connections(30)
    connections.add(expires_in_s)

    connections.clock.advance(expires_in_s)

    ((_, announced_at, announced_s),) = connections.announced
    assert announced_after_s - 0.5 <= announced_at - 1000 <= announced_after_s
    assert abs(announced_s - announced) <= 1


@pytest.mark.parametrize("expires_in_s", [0.39, 0.25, 0.1, 0.0, -3])
def test_a_token_that_expires_in_a_moment_ends_its_connection_unannounced(
    expires_in_s: float,
) -> None:
    connections = Connections()
    connections.add(expires_in_s)

    connections.clock.advance(1)

    assert connections.announced == []
    ((_, ended_at),) = connections.ended
    assert ended_at - 1000 <= max(0, expires_in_s)


def test_an_announcement_that_a_client_cannot_take_is_tried_again_soon() -> None:
    connections = Connections(2)
    connections.refusals = 3
    connections.add(10)

    connections.clock.advance(11)

    ((_, announced_at, _),) = connections.announced
    assert 1008 <= announced_at <= 1008.6
    assert len(connections.ended) == 1


def test_a_connection_that_never_takes_the_announcement_ends_in_time() -> None:
    connections = Connections(2)
    connections.refusals = 10**6
    connections.add(10)

    connections.clock.advance(11)

    assert connections.announced == []
    assert 1009.5 <= connections.ended[0][1] <= 1010


def test_the_wall_clock_is_read_once() -> None:
    """Setting the clock while a connection lives does not lengthen its life."""
    connections = Connections()
    connections.add(10)
    connections.wall_ahead_s -= 3600

    connections.clock.advance(10)

    assert len(connections.ended) == 1


def test_a_connection_that_has_ended_leaves_no_timer() -> None:
    connections = Connections()
    connections.expiries.remove(connections.add(100))

    connections.clock.advance(200)

    assert (connections.announced, connections.ended, connections.clock.timers) == ([], [], [])


def test_a_busy_loop_ends_an_expired_connection_without_announcement() -> None:
    connections = Connections(5)
    connections.add(10)
    connections.clock.advance(1)
    connections.clock.now += 20

    connections.clock.advance(0.2)

    assert connections.announced == []
    assert len(connections.ended) == 1
