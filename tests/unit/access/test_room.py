from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import ExitStack

import pytest

from sse_push.access.room import Place, Room
from sse_push.errors import EndReason, NotNow


def room_of(
    max_connections: int = 100,
    merchant: int = 0,
    address: int = 0,
) -> Room:
    return Room(
        max_connections=max_connections,
        max_connections_per_merchant=merchant,
        max_connections_per_address=address,
    )


def refusal(place: Place, merchant_ids: str, address: str | None) -> EndReason | None:
    """Reserve the place at merchants, divided by spaces; or return why it could not be reserved."""
    try:
        place.reserve(tuple(merchant_ids.split()), address)
    except NotNow as exc:
        return exc.reason
    return None


def counts(room: Room) -> tuple[int, dict[str, int], dict[str, int]]:
    return len(room), room._by_merchant, room._by_address


def test_a_released_place_can_be_reserved_again() -> None:
    room = room_of(2)
    with room.place() as first, room.place() as second, room.place() as third:
        assert refusal(first, "42", "192.0.2.1") is None
        with second:
            assert refusal(second, "43", None) is None
            assert refusal(third, "44", None) is EndReason.FULL
        assert refusal(third, "44", None) is None
        assert len(room) == 2

    assert len(room) == 0


def test_the_limit_of_a_merchant_does_not_concern_other_merchants() -> None:
    room = room_of(merchant=1)
    with ExitStack() as stack:
        places = [stack.enter_context(room.place()) for _ in range(3)]

        assert refusal(places[0], "42", None) is None
        assert refusal(places[1], "42", None) is EndReason.MERCHANT_FULL
        assert refusal(places[1], "43", None) is None
        assert refusal(places[2], "42", None) is EndReason.MERCHANT_FULL


def test_a_place_at_several_merchants_is_one_in_the_process_and_one_at_each() -> None:
    room = room_of(2, merchant=2, address=2)
    with room.place() as place:
        place.reserve(("42", "43"), "192.0.2.1")

        assert counts(room) == (1, {"42": 1, "43": 1}, {"192.0.2.1": 1})

    assert counts(room) == (0, {}, {})


def test_a_place_at_several_merchants_is_refused_at_all_if_one_is_full() -> None:
    room = room_of(merchant=1)
    room.place().reserve(("43",), None)

    with pytest.raises(NotNow) as caught, room.place() as place:
        place.reserve(("42", "43", "44"), "192.0.2.1")

    assert (caught.value.reason, caught.value.who) == (EndReason.MERCHANT_FULL, "merchant 43")
    assert counts(room) == (1, {"43": 1}, {})


def test_the_limit_of_an_address_counts_all_merchants_and_skips_unknown_addresses() -> None:
    room = room_of(address=1)
    with ExitStack() as stack:
        places = [stack.enter_context(room.place()) for _ in range(4)]

        assert refusal(places[0], "42", "192.0.2.1") is None
        assert refusal(places[1], "43", "192.0.2.1") is EndReason.TOO_MANY_CONNECTIONS
        assert refusal(places[1], "43", "192.0.2.2") is None
        assert refusal(places[2], "42", None) is None
        assert refusal(places[3], "42", None) is None


def test_the_reason_names_the_limit_that_the_client_can_do_most_about() -> None:
    room = room_of(1, merchant=1, address=1)
    with room.place() as first, room.place() as second:
        first.reserve(("42",), "192.0.2.1")

        assert refusal(second, "42", "192.0.2.1") is EndReason.TOO_MANY_CONNECTIONS
        assert refusal(second, "42", "192.0.2.2") is EndReason.MERCHANT_FULL
        assert refusal(second, "43", "192.0.2.2") is EndReason.FULL


def test_a_refusal_reserves_nothing() -> None:
    room = room_of(1, merchant=1, address=1)
    with room.place() as first:
        first.reserve(("42",), "192.0.2.1")
        with room.place() as second:
            assert refusal(second, "43", "192.0.2.2") is EndReason.FULL

        assert counts(room) == (1, {"42": 1}, {"192.0.2.1": 1})


def test_a_place_is_released_once_however_its_connection_ends() -> None:
    room = room_of(merchant=5, address=5)
    other = room.place()
    other.reserve(("42",), "192.0.2.1")
    place = room.place()
    place.reserve(("42",), "192.0.2.1")

    with pytest.raises(ConnectionResetError), place:
        raise ConnectionResetError
    with place:
        pass

    assert counts(room) == (1, {"42": 1}, {"192.0.2.1": 1})


def test_a_place_that_was_never_reserved_is_not_released() -> None:
    room = room_of()
    with room.place():
        pass

    assert len(room) == 0


async def test_a_connection_that_is_canceled_early_or_late_releases_its_place() -> None:
    room = room_of()

    async def connection() -> None:
        with room.place() as place:
            place.reserve(("42",), None)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(connection()) for _ in range(2)]
    tasks[0].cancel()
    await asyncio.sleep(0)
    begun = len(room)
    tasks[1].cancel()
    await asyncio.wait(tasks)

    assert begun == 1
    assert len(room) == 0


def test_a_merchant_or_address_without_a_limit_is_not_counted() -> None:
    room = room_of()
    with room.place() as place:
        place.reserve(("42",), "192.0.2.1")

        assert counts(room) == (1, {}, {})


@pytest.mark.parametrize("seed", range(20))
def test_a_room_at_random_keeps_its_limits_refuses_only_at_a_limit_and_empties(
    seed: int,
) -> None:
    chance = random.Random(seed)
    limits = (chance.randrange(1, 30), chance.randrange(10), chance.randrange(10))
    room = room_of(*limits)
    inside: dict[Place, tuple[list[str], str | None]] = {}

    for _ in range(2000):
        if inside and chance.random() < 0.45:
            place = chance.choice(list(inside))
            with place:
                del inside[place]
            continue
        merchants = chance.sample(["m0", "m1", "m2", "m3", "m4"], chance.choice([1, 1, 1, 2, 4]))
        address = chance.choice([None, *(f"192.0.2.{number}" for number in range(5))])
        of_merchant = Counter(each for merchants, _ in inside.values() for each in merchants)
        of_address = Counter(address for _, address in inside.values() if address is not None)
        reached = (
            (EndReason.TOO_MANY_CONNECTIONS, limits[2], of_address[address] if address else -1),
            (EndReason.MERCHANT_FULL, limits[1], max(of_merchant[each] for each in merchants)),
            (EndReason.FULL, limits[0], len(inside)),
        )
        expected = next((why for why, limit, count in reached if limit and count >= limit), None)
        place = room.place()
        assert refusal(place, " ".join(merchants), address) is expected
        if expected is None:
            inside[place] = (merchants, address)
    for place in inside:
        with place:
            pass

    assert counts(room) == (0, {}, {})


def test_a_refusal_names_the_merchant_whose_limit_is_reached_and_no_other() -> None:
    room = room_of(1, merchant=1)
    room.place().reserve(("42",), None)

    named = []
    for merchant_id in ("42", "43"):
        with pytest.raises(NotNow) as caught:
            room.place().reserve((merchant_id,), None)
        named.append((caught.value.reason, caught.value.who))

    assert named == [(EndReason.MERCHANT_FULL, "merchant 42"), (EndReason.FULL, None)]
