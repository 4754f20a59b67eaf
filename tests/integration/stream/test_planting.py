"""Entries that are planted in a real Redis and a real Valkey, by one process or by two."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sse_push.notification import Change
from sse_push.stream.rounds import SWEEP_S
from tests.harness.keys import stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import STREAM_TTL_S, Followed, following, stopped, stripped
from tests.integration.stream.servers import Server


async def test_a_missing_stream_is_planted_with_a_lifetime(server: Server, merchant: str) -> None:
    key = stream_key(merchant)
    async with following(server.url, max_planted=10) as followed:
        await followed.watch(merchant)

    newest = followed.newest[merchant]
    assert newest is not None
    assert server.cli("XLEN", key) == "1"
    assert STREAM_TTL_S < int(server.cli("TTL", key)) <= 1.1 * STREAM_TTL_S + 1
    assert followed.changes == []
    assert followed.follower.planting.tally.outcomes["planted"] == 1


@pytest.mark.parametrize("forbidden", ["-eval", "-xlen", "-ttl"])
async def test_a_user_with_fewer_rights_plants_as_well(
    mortal: Redis, merchant: str, forbidden: str
) -> None:
    server = Server(mortal.url)
    mortal.cli("ACL", "SETUSER", "default", forbidden)
    async with following(server.url, max_planted=10) as followed:
        await followed.watch(merchant)
        lifetime_s = int(mortal.cli("PTTL", stream_key(merchant))) / 1000

    assert followed.newest[merchant] is not None
    assert followed.follower.planting.tally.outcomes["planted"] == 1
    assert lifetime_s > STREAM_TTL_S


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_two_processes_that_plant_at_once_tell_nothing(
    mortal: Redis, merchant: str, *, has_scripts: bool
) -> None:
    server = Server(mortal.url)
    if not has_scripts:
        mortal.cli("ACL", "SETUSER", "default", "-eval")
    names = [f"{merchant}-{number}" for number in range(50)]
    one, other = (Followed(server.url, 5 * SECOND, max_planted=100) for _ in range(2))
    tasks = [asyncio.create_task(each.run()) for each in (one, other)]
    try:
        for name in names:
            one.follower.watch(name)
            other.follower.watch(name)
        await until(lambda: len(one.newest) == len(other.newest) == 50, "all to be armed")
        for name in names:
            newest = server.cli("XREVRANGE", stream_key(name), "+", "-").split("\n")[0]
            for each in (one, other):
                await until(partial(has_position, each, name, newest), "the newest position")
        told = server.add(names[7])
        await one.until_newest(told)
        await other.until_newest(told)
    finally:
        for task in tasks:
            await stopped(task)

    for each in (one, other):
        spoken = [change for change in each.changes if change.entries != ()]
        assert [change.newest for change in spoken] == [told]
        assert not spoken[0].is_resync


def has_position(followed: Followed, name: str, newest: str) -> bool:
    changes = [each.newest for each in followed.changes if each.merchant_id == name]
    return newest in map(str, [followed.newest[name], *changes])


async def test_a_redis_that_is_full_is_followed_as_if_nothing_were_ever_planted(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    mortal.cli("CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction")
    async with following(server.url, max_planted=10) as followed:
        await followed.watch(merchant)
        mortal.cli("CONFIG", "SET", "maxmemory", "0")
        added = server.add(merchant)
        changes = await followed.next()

    assert followed.newest[merchant] is None
    assert followed.follower.planting.tally.outcomes["refused"] == 1
    assert changes == [Change(merchant, added)]


async def test_a_planted_stream_that_will_end_soon_is_renewed_by_the_sweep(
    server: Server, merchant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SWEEP_S, "tracking", 0.3)
    key = stream_key(merchant)
    server.cli("XADD", key, "*", "sse_push:planted", "0123456789abcdef")
    server.cli("EXPIRE", key, "100")
    async with following(server.url, max_planted=10) as followed:
        await followed.watch(merchant)
        await until(lambda: int(server.cli("TTL", key)) > STREAM_TTL_S, "a longer lifetime")

    assert followed.changes == []


async def test_an_entry_after_a_planted_one_is_published_with_its_fields(
    server: Server, merchant: str
) -> None:
    async with following(server.url, max_planted=10) as followed:
        await followed.watch(merchant)
        added = server.add(merchant, "topic", "seats")
        (change,) = await followed.next()

    assert [(entry_id, each.topic) for entry_id, each in stripped(change.entries)] == [
        (added, "seats")
    ]


async def test_a_flush_of_another_database_tells_nothing_to_those_who_have_an_entry(
    server: Server, merchant: str
) -> None:
    """Redis announces it to all databases, as a change of every key."""
    quiet, missing, busy = (f"{merchant}-{kind}" for kind in ("quiet", "missing", "busy"))
    server.add(busy)
    async with following(server.url, max_planted=1) as followed:
        await followed.watch(quiet, busy)
        await followed.watch(missing)  # without an entry: one merchant is planted at most

        server.cli("-n", "1", "FLUSHDB")
        await until(lambda: len(followed.changes) >= 1, "the resync of the one without an entry")
        await followed.settle(server, busy)

    # Nothing was armed for a moment, in which a notification may have come and been deleted.
    assert followed.newest[quiet] is not None
    assert followed.changes == [Change(missing, None, is_resync=True)]
