from __future__ import annotations

import math
import random

import pytest
from pydantic import SecretStr

from sse_push.access.keys import NotifyKey
from sse_push.access.rate import Bucket, Rates
from tests.harness.clock import ManualClock

KEYS = (NotifyKey(SecretStr("k1-0123456789abcdef")), NotifyKey(SecretStr("k2-0123456789abcdef")))


def rates_of(clock: ManualClock, rate_per_s: float = 1, burst: int = 1, workers: int = 1) -> Rates:
    return Rates(KEYS, rate_per_s=rate_per_s, burst=burst, workers=workers, clock=clock.time)


def test_a_burst_is_taken_and_then_so_many_a_second() -> None:
    clock = ManualClock()
    bucket = Bucket(2, 3, clock.time)

    assert [bucket.take(1) for _ in range(4)] == [0, 0, 0, 0.5]
    clock.advance(0.5)
    assert [bucket.take(1) for _ in range(2)] == [0, 0.5]


def test_a_refusal_costs_nothing_and_its_time_is_right() -> None:
    clock = ManualClock()
    bucket = Bucket(3, 5, clock.time)
    bucket.take(5)

    wait_s = bucket.take(4)
    assert wait_s == pytest.approx(4 / 3)
    assert bucket.take(4) == wait_s
    clock.advance(wait_s * 0.99)
    assert bucket.take(4) > 0
    clock.advance(wait_s * 0.01)
    assert bucket.take(4) == 0


def test_no_more_than_a_burst_is_saved() -> None:
    clock = ManualClock()
    bucket = Bucket(10, 3, clock.time)
    clock.advance(1000)

    assert [bucket.take(1) > 0 for _ in range(4)] == [False, False, False, True]


def test_more_than_a_burst_is_taken_by_a_full_bucket_and_paid_off_after() -> None:
    clock = ManualClock()
    bucket = Bucket(10, 20, clock.time)

    assert bucket.take(100) == 0
    assert bucket.take(1) == pytest.approx(8.1)
    assert bucket.take(100) == pytest.approx(10)
    clock.advance(10)
    assert bucket.take(100) == 0


@pytest.mark.parametrize("seed", range(20))
def test_at_random_the_rate_is_kept_and_whoever_waits_as_told_is_taken(seed: int) -> None:
    chance = random.Random(seed)
    clock = ManualClock()
    began_at = clock.now
    rate_per_s, burst = chance.uniform(0.1, 1000), chance.randrange(1, 100)
    bucket = Bucket(rate_per_s, burst, clock.time)
    taken = 0

    for _ in range(500):
        count = chance.randrange(1, 2 * burst)
        wait_s = bucket.take(count)
        if wait_s:
            clock.advance(math.ceil(wait_s))
            assert bucket.take(count) == 0
        taken += count
        assert taken - count <= burst + (clock.now - began_at) * rate_per_s + 0.01
        clock.advance(chance.expovariate(rate_per_s))


def test_each_key_has_its_own() -> None:
    rates = rates_of(ManualClock())

    assert [rates.take(KEYS[0], 1), rates.take(KEYS[0], 1), rates.take(KEYS[1], 1)] == [0, 1, 0]


def test_where_no_key_is_needed_all_share_one() -> None:
    rates = Rates("none", rate_per_s=1, burst=1, workers=1, clock=ManualClock().time)

    assert [rates.take(None, 1), rates.take(None, 1)] == [0, 1]


def test_the_time_is_told_in_whole_seconds_rounded_up() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=0.4)
    rates.take(KEYS[0], 1)

    assert rates.take(KEYS[0], 1) == 3
    clock.advance(2.4)
    assert rates.take(KEYS[0], 1) == 1


def test_workers_share_the_rate_and_the_burst() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=4, burst=8, workers=4)

    assert [rates.take(KEYS[0], 1) for _ in range(3)] == [0, 0, 1]
    clock.advance(1)
    assert [rates.take(KEYS[0], 1) for _ in range(2)] == [0, 1]


def test_a_share_of_a_burst_that_is_less_than_one_lets_one_through() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=4, burst=1, workers=4)

    assert [rates.take(KEYS[0], 1) for _ in range(2)] == [0, 1]
    clock.advance(1)
    assert [rates.take(KEYS[0], 1) for _ in range(2)] == [0, 1]


def test_without_a_rate_there_is_no_limit() -> None:
    rates = rates_of(ManualClock(), rate_per_s=0)

    assert {rates.take(KEYS[0], 1000) for _ in range(100)} == {0}
