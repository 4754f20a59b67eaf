"""Which streams are given a lifetime with their next entry."""

from __future__ import annotations

import pytest

from sse_push.stream.lifetimes import Lifetimes, lifetime_s


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lifetimes(clock: Clock) -> Lifetimes:
    return Lifetimes(600, now=clock)


def test_a_lifetime_is_long_enough_for_an_entry_just_before_its_renewal(
    lifetimes: Lifetimes,
) -> None:
    assert lifetimes.lifetime_s == lifetime_s(600) == 660
    assert lifetime_s(0.5) == 1


def test_a_stream_is_due_first_and_again_after_a_tenth_of_its_time(
    lifetimes: Lifetimes, clock: Clock
) -> None:
    assert lifetimes.due_among(["42"]) == {"42"}

    lifetimes.renewed("42")
    clock.now_s += 59

    assert lifetimes.due_among(["42", "43"]) == {"43"}

    clock.now_s += 1

    assert lifetimes.due_among(["42"]) == {"42"}


def test_a_stream_with_several_entries_at_once_is_due(lifetimes: Lifetimes) -> None:
    lifetimes.renewed("42")
    lifetimes.renewed("43")

    assert lifetimes.due_among(["42", "43", "42"]) == {"42"}


def test_a_stream_that_is_gone_is_due(lifetimes: Lifetimes) -> None:
    lifetimes.renewed("42")
    lifetimes.forget("42")
    lifetimes.forget("43")

    assert lifetimes.due_among(["42"]) == {"42"}


def test_too_many_streams_are_forgotten_and_due_again(
    lifetimes: Lifetimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.lifetimes._REMEMBERED", 2)
    for name in ("1", "2", "3"):
        lifetimes.renewed(name)

    assert lifetimes.due_among(["1", "2", "3"]) == {"1", "2"}
