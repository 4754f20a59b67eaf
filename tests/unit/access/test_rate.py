from __future__ import annotations

import math
import random

import pytest
from pydantic import SecretStr

from sse_push.access.keys import NotifyKey
from sse_push.access.rate import Bucket, Rates
from tests.harness.clock import ManualClock

KEYS = (
    NotifyKey(SecretStr("k1-0123456789abcdef-0123456789abcdef")),
    NotifyKey(SecretStr("k2-0123456789abcdef-0123456789abcdef")),
)


def rates_of(clock: ManualClock, rate_per_s: float = 1, burst: int = 1, workers: int = 1) -> Rates:
    return Rates(KEYS, rate_per_s=rate_per_s, burst=burst, workers=workers, clock=clock.time)


def test_a_burst_is_spent_and_then_refilled_at_the_rate() -> None:
    clock = ManualClock()
    bucket = Bucket(2, 3, clock.time)

    assert [bucket.spend(1) for _ in range(4)] == [0, 0, 0, 0.5]
    clock.advance(0.5)
    assert [bucket.spend(1) for _ in range(2)] == [0, 0.5]


def test_a_refusal_costs_nothing_and_its_time_is_right() -> None:
    clock = ManualClock()
    bucket = Bucket(3, 5, clock.time)
    bucket.spend(5)

    wait_s = bucket.spend(4)
    assert wait_s == pytest.approx(4 / 3)
    assert bucket.spend(4) == wait_s
    clock.advance(wait_s * 0.99)
    assert bucket.spend(4) > 0
    clock.advance(wait_s * 0.01)
    assert bucket.spend(4) == 0


def test_a_bucket_saves_no_more_than_its_burst() -> None:
    clock = ManualClock()
    bucket = Bucket(10, 3, clock.time)
    clock.advance(1000)

    assert [bucket.spend(1) > 0 for _ in range(4)] == [False, False, False, True]


def test_a_full_bucket_allows_more_than_its_burst_and_is_then_in_debt() -> None:
    clock = ManualClock()
    bucket = Bucket(10, 20, clock.time)

    assert bucket.spend(100) == 0
    assert bucket.spend(1) == pytest.approx(8.1)
    assert bucket.spend(100) == pytest.approx(10)
    clock.advance(10)
    assert bucket.spend(100) == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_bucket_at_random_keeps_its_rate_and_allows_a_caller_that_has_waited(seed: int) -> None:
    chance = random.Random(seed)
    clock = ManualClock()
    began_at = clock.now
    rate_per_s, burst = chance.uniform(0.1, 1000), chance.randrange(1, 100)
    bucket = Bucket(rate_per_s, burst, clock.time)
    spent = 0

    for _ in range(500):
        count = chance.randrange(1, 2 * burst)
        wait_s = bucket.spend(count)
        if wait_s:
            clock.advance(math.ceil(wait_s))
            assert bucket.spend(count) == 0
        spent += count
        assert spent - count <= burst + (clock.now - began_at) * rate_per_s + 0.01
        clock.advance(chance.expovariate(rate_per_s))


def test_each_key_has_its_own_bucket() -> None:
    rates = rates_of(ManualClock())

    assert [rates.spend(KEYS[0], 1), rates.spend(KEYS[0], 1), rates.spend(KEYS[1], 1)] == [0, 1, 0]


def test_all_callers_share_one_bucket_if_no_key_is_needed() -> None:
    rates = Rates("none", rate_per_s=1, burst=1, workers=1, clock=ManualClock().time)

    assert [rates.spend(None, 1), rates.spend(None, 1)] == [0, 1]


def test_callers_without_a_key_have_a_bucket_beside_those_of_the_keys() -> None:
    clock = ManualClock()
    rates = Rates(KEYS, rate_per_s=1, burst=1, workers=1, has_keyless=True, clock=clock.time)

    assert [rates.spend(key, 1) for key in (None, KEYS[0], None)] == [0, 0, 1]


def test_the_time_to_wait_is_rounded_up_to_whole_seconds() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=0.4)
    rates.spend(KEYS[0], 1)

    assert rates.spend(KEYS[0], 1) == 3
    clock.advance(2.4)
    assert rates.spend(KEYS[0], 1) == 1


def test_workers_share_the_rate_and_the_burst() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=4, burst=8, workers=4)

    assert [rates.spend(KEYS[0], 1) for _ in range(3)] == [0, 0, 1]
    clock.advance(1)
    assert [rates.spend(KEYS[0], 1) for _ in range(2)] == [0, 1]


def test_a_share_of_a_burst_below_one_still_allows_one_notification() -> None:
    clock = ManualClock()
    rates = rates_of(clock, rate_per_s=4, burst=1, workers=4)

    assert [rates.spend(KEYS[0], 1) for _ in range(2)] == [0, 1]
    clock.advance(1)
    assert [rates.spend(KEYS[0], 1) for _ in range(2)] == [0, 1]


def test_a_rate_of_zero_is_no_limit() -> None:
    rates = rates_of(ManualClock(), rate_per_s=0)

    assert {rates.spend(KEYS[0], 1000) for _ in range(100)} == {0}
