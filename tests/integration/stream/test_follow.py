"""Following streams of a real Redis and a real Valkey.

The follower runs in this process. Each change is made by ``redis-cli``, as a backend without any
code of ours makes it.
"""

from __future__ import annotations

import asyncio

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, EntryId, Notification
from sse_push.stream import Keys
from sse_push.stream.reads import NEW_ENTRIES
from tests.harness.keys import stream_key
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import Followed, following, stripped
from tests.integration.stream.servers import Server


async def test_a_stream_is_armed_with_its_newest_id_if_it_has_one(
    server: Server, merchant: str
) -> None:
    other = f"{merchant}-other"
    server.add(merchant)
    newest = server.add(merchant)

    async with following(server.url) as followed:
        await followed.watch(merchant, other)

    assert followed.newest == {merchant: newest, other: None}
    assert followed.changes == []


async def test_an_entry_is_published_with_its_fields(server: Server, merchant: str) -> None:
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)
        added = server.add(merchant, "topic", "seats", "data", '{"a": 1}', "by", "tab", "x", "y")
        changes = await followed.next()

    notification = Notification(merchant, "seats", '{"a":1}', "tab")
    ((_, newest, entries, is_resync),) = changes
    assert (newest, is_resync) == (added, False)
    assert stripped(entries) == [(added, notification)]


@pytest.mark.parametrize(
    "script",
    [
        "MULTI\nXADD {key} * topic a\nXADD {key} * topic b\nEXEC",
        "EVAL \"for _, topic in ipairs({{'a', 'b'}}) do "
        "redis.call('XADD', KEYS[1], '*', 'topic', topic) end\" 1 {key}",
    ],
    ids=["MULTI", "Lua"],
)
async def test_entries_that_are_added_together_are_published_together(
    server: Server, merchant: str, script: str
) -> None:
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)
        server.cli(script=script.format(key=stream_key(merchant)))
        (change,) = await followed.next()

    told = stripped(change.entries)
    assert [notification.topic for _, notification in told] == ["a", "b"]
    assert change == Change(merchant, told[-1][0], change.entries)


async def test_more_entries_than_one_answer_holds_are_published_as_the_newest_id(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant, f"{merchant}-marker")
        adds = f"XADD {key} * at 1\n" * (NEW_ENTRIES + 1)
        server.cli(script=f"MULTI\n{adds}EXEC")
        newest = server.cli("XREVRANGE", key, "+", "-", "COUNT", "1").split("\n")[0]
        await followed.next()
        await followed.settle(server, f"{merchant}-marker")

    assert followed.changes == [Change(merchant, EntryId.parse(newest))]


async def test_the_first_entry_of_a_stream_is_published_as_its_id_only(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        await followed.watch(merchant)
        first = server.add(merchant, "topic", "seats")
        changes = await followed.next()

    assert changes == [Change(merchant, first)]


async def test_an_announcement_without_a_new_entry_is_no_change(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    async with following(server.url) as followed:
        server.add(merchant)
        server.add(merchant)
        await followed.watch(merchant, f"{merchant}-marker")

        server.cli("EXPIRE", key, "1000")
        server.cli("PERSIST", key)
        server.cli("XTRIM", key, "MAXLEN", "1")
        await followed.settle(server, f"{merchant}-marker")

    assert followed.changes == []


@pytest.mark.parametrize(
    "script",
    [
        "DEL {key}",
        "PEXPIRE {key} 1",
        "SET {key} 1",
        "RENAME {key} {key}-other",
        "XTRIM {key} MAXLEN 0",
        "FLUSHALL",
        "FLUSHDB ASYNC",
    ],
)
async def test_a_history_that_ends_is_a_resync_and_the_next_entry_is_published_again(
    server: Server, merchant: str, script: str
) -> None:
    key = stream_key(merchant)
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)

        server.cli(script=script.format(key=key))
        await followed.next()
        if script.startswith("SET"):
            server.cli("DEL", key)
            await followed.next(2)
        back = server.add(merchant)
        ended, *between, last = await followed.next(len(followed.changes) + 1)

    assert ended == Change(merchant, None, is_resync=True)
    assert between == [ended] * script.startswith("SET")
    assert last == Change(merchant, back)


@pytest.mark.parametrize(
    "script",
    ["RENAME {key}-other {key}", "MULTI\nDEL {key}\nRENAME {key}-other {key}\nEXEC"],
    ids=["RENAME", "MULTI"],
)
async def test_a_history_that_is_replaced_is_a_resync_with_its_newest_id_though_it_is_lower(
    server: Server, merchant: str, script: str
) -> None:
    key = stream_key(merchant)
    server.cli("XADD", f"{key}-other", "5-5", "at", "1")
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)
        server.cli(script=script.format(key=key))
        changes = await followed.next()

    assert changes == [Change(merchant, EntryId(5, 5), is_resync=True)]


@pytest.mark.parametrize("pause", ["none", "reconnect"])
async def test_an_id_that_is_used_again_after_a_deletion_is_a_resync(
    server: Server, merchant: str, pause: str
) -> None:
    """As two notifications of one millisecond get one ID if their stream is deleted between."""
    key = stream_key(merchant)
    server.cli("XADD", key, "5-1", "topic", "a")
    async with following(server.url) as followed:
        await followed.watch(merchant)
        if pause == "reconnect":
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
        server.cli(script=f"MULTI\nDEL {key}\nXADD {key} 5-1 topic b\nEXEC")
        changes = await followed.next()

    assert changes == [Change(merchant, EntryId(5, 1), is_resync=True)]


async def test_a_key_of_another_type_harms_no_other_merchant(server: Server, merchant: str) -> None:
    bad, good = f"{merchant}-bad", f"{merchant}-good"
    server.cli("SET", stream_key(bad), "1")
    server.add(good)
    async with following(server.url) as followed:
        await followed.watch(bad, good)
        # Both are announced, and read, together.
        server.cli(script=f"MULTI\nSET {stream_key(bad)} 2\nXADD {stream_key(good)} * at 1\nEXEC")
        changes = await followed.next(2)

    assert followed.newest[bad] is None
    assert Change(bad, None, is_resync=True) in changes
    (change,) = [change for change in changes if change.merchant_id == good]
    assert len(stripped(change.entries)) == 1


async def test_a_stream_that_is_watched_no_longer_is_not_published(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        await followed.watch(merchant, f"{merchant}-marker")
        server.add(merchant)
        await followed.next()
        followed.follower.unwatch(merchant)
        server.add(merchant)
        await followed.settle(server, f"{merchant}-marker")
        count = len(followed.changes)
        await followed.watch(merchant)
        again = server.add(merchant)
        await followed.next(2)

    assert count == 1
    assert [change.newest for change in followed.changes[1:]] == [again]


async def test_thousands_of_streams_are_armed_in_a_few_round_trips(
    server: Server, merchant: str
) -> None:
    merchants = [f"{merchant}-{number}" for number in range(3000)]
    async with following(server.url) as followed:
        await followed.watch(*merchants)
        added = server.add(merchants[1234], "topic", "a")
        changes = await followed.next()

    assert changes == [Change(merchants[1234], added)]


async def test_no_entry_is_lost_when_the_tracked_connection_is_killed_again_and_again(
    server: Server, merchant: str
) -> None:
    added = [server.add(merchant)]
    async with following(server.url) as followed:
        await followed.watch(merchant)
        for _ in range(2):
            added.append(server.add(merchant))
            await until(lambda: len(server.clients("tail")) == 1, "the tracked connection")
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
            added.append(server.add(merchant))
            await followed.until_newest(added[-1])

    published = [each.id for change in followed.changes for each in change.entries or ()]
    assert published == added[1:]
    assert followed.follower.tally.reconnects == 2
    assert not any(change.is_resync for change in followed.changes)


async def test_entries_between_two_ids_are_returned_only_if_all_are_known(
    server: Server, merchant: str
) -> None:
    key, other = stream_key(merchant), f"{merchant}-other"
    added = [server.add(merchant, "topic", f"t{number}") for number in range(5)]
    long = [server.add(other) for _ in range(NEW_ENTRIES + 2)]
    follower = Followed(server.url, 5 * SECOND).follower
    before = await follower.between(merchant, added[0], added[-1])

    async with following(server.url) as followed:
        await followed.watch(merchant)  # it is connected
        between = followed.follower.between
        known = await between(merchant, added[1], added[3])
        newest = await between(merchant, added[3], added[4])
        never = await between(merchant, EntryId(1, 1), added[4])
        longest = await between(other, long[2], long[-1])
        too_many = await between(other, long[0], long[-1])
        server.cli("XDEL", key, str(added[0]))
        trimmed = await between(merchant, added[0], added[4])
        server.cli("XDEL", key, str(added[4]))
        beyond = await between(merchant, added[1], added[4])
        server.cli("SET", key, "1")
        refused = await between(merchant, added[1], added[3])

    assert stripped(known) == [
        (added[2], Notification(merchant, "t2")),
        (added[3], Notification(merchant, "t3")),
    ]
    assert stripped(newest) == [(added[4], Notification(merchant, "t4"))]
    assert longest is not None
    assert [each.id for each in longest] == long[3:]
    assert [before, never, too_many, trimmed, beyond, refused] == [None] * 6


async def test_services_with_different_prefixes_share_a_redis_and_hear_nothing_of_each_other(
    server: Server, merchant: str
) -> None:
    """A service that takes another prefix begins another history, which no ID is mistaken for."""
    other = Keys(f"other:{merchant}")
    theirs = Followed(server.url, 5 * SECOND, keys=other)
    async with following(server.url) as ours:
        running = asyncio.create_task(theirs.run())  # which ends as the other one does
        await ours.watch(merchant, f"{merchant}-marker")
        await theirs.watch(merchant)

        added = await theirs.appender.append(Notification(merchant))
        await theirs.until_newest(added.entry_id)
        await theirs.appender.append(Revocation(merchant))
        await theirs.until_known(merchant)
        await ours.settle(server, f"{merchant}-marker")
        heard = list(ours.changes)
        own = await ours.appender.append(Notification(f"{merchant}-marker"))
        assert not running.done()

    assert (heard, ours.revoked_names) == ([], [])
    assert ours.newest[merchant] is None
    assert added.history != own.history
    assert set(theirs.histories) == {added.history}
    assert server.cli("EXISTS", stream_key(merchant), other.stream(merchant)) == "1"
