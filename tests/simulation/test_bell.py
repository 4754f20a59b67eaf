"""No browser is left behind where changes are heard by messages; and each rule is needed for it.

The rules are those of ``stream.bell``, ``stream.announcing`` and ``stream.append``. Each mutant
takes one out.
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sse_push.stream.bell import Hearing, Ring
from tests.simulation.bell import BellFollower, BellSimulation, Process
from tests.simulation.model import ModelFollower
from tests.simulation.test_simulation import RUNS, Build, first_failure, is_found, with_each

RUNS_WITH_BELL = max(300, RUNS // 5)
"""Fewer than with tracking: the tail and all that comes after it are the same."""


def test_no_browser_is_left_behind_by_the_bell() -> None:
    assert asyncio.run(first_failure(BellSimulation, range(RUNS_WITH_BELL))) is None


class HearsNoGap(Hearing):
    """A gap: a message tells of the streams that it names, whatever its number is."""

    def heard(self, message: bytes) -> tuple[str, ...] | None:
        super().heard(message)
        ring = Ring.parse(message)
        return None if ring is None else ring.names


class BelievesTheFirstMessage(Hearing):
    """A gap: nothing is missing before the first message that is heard of an appender."""

    def heard(self, message: bytes) -> tuple[str, ...] | None:
        ring = Ring.parse(message)
        is_first = ring is not None and ring.appender not in self._numbers
        names = super().heard(message)
        return ring.names if ring is not None and is_first else names


class IgnoresLowerNumbers(Hearing):
    """A message that comes late is taken for one that has been heard."""

    def heard(self, message: bytes) -> tuple[str, ...] | None:
        ring = Ring.parse(message)
        is_late = ring is not None and 0 < ring.number <= self._numbers.get(ring.appender, 0)
        return () if is_late else super().heard(message)


class HearsNoGapFollower(BellFollower):
    hearing_type = HearsNoGap


class BelievesTheFirstMessageFollower(BellFollower):
    hearing_type = BelievesTheFirstMessage


class IgnoresLowerNumbersFollower(BellFollower):
    hearing_type = IgnoresLowerNumbers


class ReadsBeforeItIsSubscribed(BellFollower):
    """Reads begin when the connection is made: what changes before SUBSCRIBE is not heard."""

    def connect(self) -> None:
        ModelFollower.connect(self)
        self.is_subscribing = True

    def confirmed(self) -> None:
        self.subscribed()


class SubscribesAgainInSilence(BellFollower):
    """A subscription that is lost is replaced, and nothing is read again."""

    def lose_subscription(self) -> None:
        self.redis.is_subscribed = False
        self.is_subscribing = True
        self.redis.out = type(self.redis.out)(
            each for each in self.redis.out if each[0] != "announcement"
        )

    def confirmed(self) -> None:
        if self.is_connected:
            self.subscribed()
        else:
            super().confirmed()


class RingsBeforeItAdds(BellSimulation):
    """PUBLISH before XADD: the read that follows finds nothing yet."""

    def in_order(
        self, adds: partial[None], publishes: partial[None]
    ) -> tuple[partial[None], partial[None]]:
        return publishes, adds


class OneDoesNotRing(BellSimulation):
    """A process that is tracked does not publish, though another one is not tracked."""

    def publish(self, message: str, *, is_lost: bool = False) -> None:
        is_mute = message.startswith(self.processes[0].ringer._name)
        super().publish(message, is_lost=is_lost or is_mute)


class CountsOnlyWhatIsHeard(Process):
    """A number counts only if its message was handed on."""

    def lost(self) -> None:
        self.ringer._number -= 1


class CountsOnlyWhatIsHeardSimulation(BellSimulation):
    process_type = CountsOnlyWhatIsHeard


FOUND_BY = {
    "BelievesTheFirstMessageFollower": 1838,
    "ReadsBeforeItIsSubscribed": 587,
    "SubscribesAgainInSilence": 326,
}
"""A history that finds a mutant, where it is not among the first."""

MUTANTS: dict[str, Build] = {
    **with_each(
        BellSimulation,
        follower=[
            HearsNoGapFollower,
            BelievesTheFirstMessageFollower,
            IgnoresLowerNumbersFollower,
            ReadsBeforeItIsSubscribed,
            SubscribesAgainInSilence,
        ],
    ),
    **{
        mutant.__name__: mutant
        for mutant in (RingsBeforeItAdds, OneDoesNotRing, CountsOnlyWhatIsHeardSimulation)
    },
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_of_the_bell_that_is_taken_out_leaves_a_browser_behind(name: str) -> None:
    assert is_found(name, MUTANTS[name], FOUND_BY)
