from __future__ import annotations

import random

from sse_push.stream.leftovers import Leftovers

WAITING = 10_000


def left(*merchants: str, most: int) -> Leftovers:
    made = Leftovers(most)
    for merchant_id in merchants:
        made.left(merchant_id)
    return made


def test_those_who_were_left_first_are_forgotten_once_there_are_too_many() -> None:
    leftovers = Leftovers(2)

    assert [leftovers.left(each) for each in "1234"] == [False, False, True, True]
    assert leftovers.take(1) == ["1"]
    assert leftovers.take(10) == ["2"]
    assert leftovers.take(10) == []


def test_as_many_as_may_be_are_left_alone() -> None:
    assert left("1", "2", most=2).take(10) == []


def test_a_merchant_who_is_followed_again_or_was_announced_is_not_forgotten() -> None:
    leftovers = left("1", "2", "3", most=1)

    leftovers.discard("1")
    leftovers.discard("unknown")

    assert leftovers.take(10) == ["2"]


def test_nothing_is_forgotten_of_what_redis_does_not_remember() -> None:
    leftovers = left("1", "2", "3", most=1)

    leftovers.clear()

    assert leftovers.take(10) == []


def test_a_merchant_who_is_left_twice_is_one() -> None:
    assert left("1", "1", most=1).take(10) == []


def test_while_redis_is_away_so_many_are_remembered_and_no_more() -> None:
    leftovers = left(*map(str, range(WAITING + 100)), most=10)

    taken = leftovers.take(2 * WAITING)

    assert taken == [str(number) for number in range(90, WAITING + 90)]


def test_whatever_comes_and_goes_no_more_are_left_and_nobody_who_is_followed_is_taken() -> None:
    chance = random.Random(5)
    leftovers = Leftovers(10)
    followed: set[str] = set()
    remembered: set[str] = set()
    for _ in range(20_000):
        merchant_id = str(chance.randrange(60))
        if merchant_id in followed:
            followed.remove(merchant_id)
            leftovers.left(merchant_id)
        else:
            leftovers.discard(merchant_id)
            followed.add(merchant_id)
            remembered.add(merchant_id)
        if chance.random() < 0.01:
            remembered.clear()
            remembered |= followed
            leftovers.clear()
        count = chance.randrange(1, 5)
        taken = leftovers.take(count)
        assert not followed.intersection(taken)
        remembered -= set(taken)
        assert len(taken) == count or len(remembered - followed) <= 10
