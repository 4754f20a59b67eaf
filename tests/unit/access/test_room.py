from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from contextlib import ExitStack

import pytest

from sse_push.access.room import Place, Room
from tests.simulation.simulation import ManualClock


def room_of(
    max_connections: int = 100,
    merchant: int = 0,
    address: int = 0,
    clock: ManualClock | None = None,
) -> Room:
    return Room(
        max_connections=max_connections,
        max_connections_per_merchant=merchant,
        max_connections_per_address=address,
        clock=(clock or ManualClock()).time,
    )


def counts(room: Room) -> tuple[int, dict[str, int], dict[str, int]]:
    return len(room), room._of_merchant, room._of_address


def test_a_process_has_so_many_places_and_each_that_is_left_can_be_taken_again() -> None:
    room = room_of(2)
    with room.place() as first, room.place() as second, room.place() as third:
        assert first.take("42", "192.0.2.1") is None
        with second:
            assert second.take("43", None) is None
            assert third.take("44", None) == "full"
        assert third.take("44", None) is None
        assert len(room) == 2

    assert len(room) == 0


def test_a_merchant_has_so_many_and_others_are_not_concerned() -> None:
    room = room_of(merchant=1)
    with ExitStack() as stack:
        places = [stack.enter_context(room.place()) for _ in range(3)]

        assert places[0].take("42", None) is None
        assert places[1].take("42", None) == "merchant_full"
        assert places[1].take("43", None) is None
        assert places[2].take("42", None) == "merchant_full"


def test_an_address_has_so_many_of_all_merchants_and_who_has_none_is_not_concerned() -> None:
    room = room_of(address=1)
    with ExitStack() as stack:
        places = [stack.enter_context(room.place()) for _ in range(4)]

        assert places[0].take("42", "192.0.2.1") is None
        assert places[1].take("43", "192.0.2.1") == "too_many_connections"
        assert places[1].take("43", "192.0.2.2") is None
        assert places[2].take("42", None) is None
        assert places[3].take("42", None) is None


def test_of_several_limits_the_client_hears_the_one_that_is_most_its_own() -> None:
    room = room_of(1, merchant=1, address=1)
    with room.place() as first, room.place() as second:
        first.take("42", "192.0.2.1")

        assert second.take("42", "192.0.2.1") == "too_many_connections"
        assert second.take("42", "192.0.2.2") == "merchant_full"
        assert second.take("43", "192.0.2.2") == "full"


def test_a_refusal_takes_nothing() -> None:
    room = room_of(1, merchant=1, address=1)
    with room.place() as first:
        first.take("42", "192.0.2.1")
        with room.place() as second:
            second.take("43", "192.0.2.2")

        assert counts(room) == (1, {"42": 1}, {"192.0.2.1": 1})


def test_a_place_is_left_however_its_stream_ends_and_once_only() -> None:
    room = room_of(merchant=5, address=5)
    other = room.place()
    other.take("42", "192.0.2.1")
    place = room.place()
    place.take("42", "192.0.2.1")

    with pytest.raises(ConnectionResetError), place:
        raise ConnectionResetError
    with place:
        pass

    assert counts(room) == (1, {"42": 1}, {"192.0.2.1": 1})


def test_a_place_that_was_never_taken_is_not_given_back() -> None:
    room = room_of()
    with room.place():
        pass

    assert len(room) == 0


async def test_a_stream_that_is_canceled_before_or_after_it_begins_leaves_its_place() -> None:
    room = room_of()

    async def stream() -> None:
        with room.place() as place:
            place.take("42", None)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(stream()) for _ in range(2)]
    tasks[0].cancel()
    await asyncio.sleep(0)
    begun = len(room)
    tasks[1].cancel()
    await asyncio.wait(tasks)

    assert begun == 1
    assert len(room) == 0


def test_what_has_no_limit_is_not_counted() -> None:
    room = room_of()
    with room.place() as place:
        place.take("42", "192.0.2.1")

        assert counts(room) == (1, {}, {})


@pytest.mark.parametrize("seed", range(20))
def test_at_random_no_limit_is_passed_nobody_is_refused_without_one_and_nothing_stays(
    seed: int,
) -> None:
    chance = random.Random(seed)
    limits = (chance.randrange(1, 30), chance.randrange(10), chance.randrange(10))
    room = room_of(*limits)
    inside: dict[Place, tuple[str, str | None]] = {}

    for _ in range(2000):
        if inside and chance.random() < 0.45:
            place = chance.choice(list(inside))
            with place:
                del inside[place]
            continue
        merchant = f"m{chance.randrange(5)}"
        address = chance.choice([None, *(f"192.0.2.{number}" for number in range(5))])
        of_merchant = Counter(merchant for merchant, _ in inside.values())
        of_address = Counter(address for _, address in inside.values() if address is not None)
        reached = (
            ("too_many_connections", limits[2], of_address[address] if address else -1),
            ("merchant_full", limits[1], of_merchant[merchant]),
            ("full", limits[0], len(inside)),
        )
        expected = next((why for why, limit, count in reached if limit and count >= limit), None)
        place = room.place()
        assert place.take(merchant, address) == expected
        if expected is None:
            inside[place] = (merchant, address)
    for place in inside:
        with place:
            pass

    assert counts(room) == (0, {}, {})


def test_an_operator_is_told_of_each_limit_at_most_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    room = room_of(1, merchant=1, clock=clock)
    room.place().take("42", None)

    def told() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            room.place().take("42", None)
            room.place().take("43", None)
        return [record.getMessage() for record in caplog.records]

    lines = [
        "no room for a connection reason=merchant_full connections=1",
        "no room for a connection reason=full connections=1",
    ]
    assert told() == lines
    clock.advance(59)
    assert told() == []
    clock.advance(1)
    assert told() == lines
