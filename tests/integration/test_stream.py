"""Adding entries and being told of changes, against a real Redis and a real Valkey.

``sse_push.stream`` runs in this process; whatever changes a stream is done by ``redis-cli``, as a
backend without any of our code does it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import Change, Entry, EntryId, Notification
from sse_push.runtime.embedded import embedded_server
from sse_push.stream import Appender, Finding, Follower, examine
from sse_push.stream.append import _Waiting
from sse_push.stream.connection import (
    Announcement,
    connection_pool,
    read_reply,
    read_reply_or_announcement,
    start_tracking,
)
from sse_push.stream.contract import REVOCATIONS_KEY, revoke_commands, stream_key
from sse_push.stream.follow import Deaf
from sse_push.stream.reads import NEW_ENTRIES, PAGE_ENTRIES
from sse_push.stream.revocations import Knowledge
from sse_push.stream.schedule import Schedule
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, program, until

LIFETIME_S = 3600.0


@dataclass(frozen=True)
class Server:
    """A Redis or a Valkey, wherever it listens."""

    url: str

    def cli(self, *words: str, script: str | None = None) -> str:
        """Run one command, or the lines of a script over one connection."""
        scheme, _, path = self.url.partition("://")
        address = ["-s", path] if scheme == "unix" else ["-u", self.url]
        done = subprocess.run(
            [program("redis-cli", "valkey-cli"), *address, *words],
            input=script,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def add(self, merchant: str, *fields: str) -> EntryId:
        return EntryId.parse(self.cli("XADD", stream_key(merchant), "*", *(fields or ("at", "1"))))

    def length(self, merchant: str) -> int:
        return int(self.cli("XLEN", stream_key(merchant)))

    def calls(self, command: str) -> int:
        """Return how often a command was executed since CONFIG RESETSTAT."""
        lines = self.cli("INFO", "commandstats").splitlines()
        line = next((each for each in lines if each.startswith(f"cmdstat_{command}:")), "calls=0,")
        return int(line.partition("calls=")[2].partition(",")[0])

    def clients(self, name: str) -> list[str]:
        """Return the IDs of this process's connections of a name."""
        wanted = f"name=sse_push-{name}-{os.getpid()}"
        lines = self.cli("CLIENT", "LIST").splitlines()
        return [line.split()[0].removeprefix("id=") for line in lines if wanted in line.split()]


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A Redis that may be flushed, and whose statistics are of this file only."""
    started = Redis.start(tmp_path_factory.mktemp("own_redis"))
    yield Server(started.url)
    started.stop()


@pytest.fixture(scope="module")
def own_valkey() -> Generator[Server]:
    with embedded_server() as url:
        yield Server(url)


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two, the test once with either."""
    either: Server = request.getfixturevalue(f"own_{request.param}")
    return either


@pytest.fixture
def mortal(tmp_path: Path) -> Generator[Redis]:
    """A Redis for one test, which may break it."""
    started = Redis.start(tmp_path)
    yield started
    started.kill()


def restart(redis: Redis) -> None:
    """Come back on the same port, with what was saved or nothing."""
    redis.process = Redis.start(redis.folder, port=redis.port).process


# -- a tracked connection


@asynccontextmanager
async def tracked(url: str) -> AsyncGenerator[AbstractConnection]:
    pool = connection_pool(url, connect_timeout_s=5 * SECOND, name="test")
    connection = pool.make_connection()
    try:
        await connection.connect()
        await start_tracking(connection)
        yield connection
    finally:
        await connection.disconnect(nowait=True)


async def ask(connection: AbstractConnection, *words: str) -> object:
    await connection.send_command(*words)
    return await read_reply(connection)


async def announced_until_now(connection: AbstractConnection) -> list[Announcement]:
    """Return every announcement that was made before this."""
    await connection.send_command("PING", "until now")
    got: list[Announcement] = []
    async with asyncio.timeout(5 * SECOND):
        while isinstance(reply := await read_reply_or_announcement(connection), Announcement):
            got.append(reply)
    assert reply == b"until now"
    return got


async def test_the_private_push_handler_of_the_library_is_where_we_expect_it(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    async with tracked(server.url) as connection:
        assert type(connection._parser) is _AsyncHiredisParser
        await ask(connection, "XRANGE", key, "-", "+")
        server.add(merchant)
        async with asyncio.timeout(5 * SECOND):
            changed = await read_reply_or_announcement(connection)
            server.cli("FLUSHALL")
            flushed = await read_reply_or_announcement(connection)

    assert changed == Announcement([key.encode()])
    assert flushed == Announcement(None)


@pytest.mark.parametrize(
    "script",
    [
        "XADD {key} * topic a",
        "MULTI\nXADD {key} * topic a\nXADD {key} * topic b\nEXEC",
        "EVAL \"redis.call('XADD', KEYS[1], '*', 'topic', 'a')\" 1 {key}",
        "EXPIRE {key} 1000",
        "PEXPIRE {key} 1",
        "DEL {key}",
        "UNLINK {key}",
        "SET {key} 1",
        "RENAME {key} {key}-other",
        "XTRIM {key} MAXLEN 0",
    ],
)
async def test_a_change_is_announced_once_whoever_makes_it_and_however(
    server: Server, merchant: str, script: str
) -> None:
    key = stream_key(merchant)
    server.add(merchant)
    async with tracked(server.url) as connection:
        await ask(connection, "XRANGE", key, "-", "+")

        server.cli(script=script.format(key=key))
        first = await announced_until_now(connection)
        for _ in range(20):
            server.cli("XADD", f"{key}-other", "*", "at", "1")
        server.cli(script=f"DEL {key}\nXADD {key} * at 1\n" * 20)
        rest = await announced_until_now(connection)

    assert first == [Announcement([key.encode()])]
    assert rest == []


async def test_a_read_that_fails_arms_the_key_too(server: Server, merchant: str) -> None:
    key = stream_key(merchant)
    server.cli("SET", key, "1")
    async with tracked(server.url) as connection:
        refused = await ask(connection, "XRANGE", key, "-", "+")
        server.cli("SET", key, "2")
        announced = await announced_until_now(connection)

    assert isinstance(refused, ResponseError)
    assert str(refused).startswith("WRONGTYPE")
    assert announced == [Announcement([key.encode()])]


# -- the follower


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel it and all that it began, until it ends; that once is enough has its own test."""
    async with asyncio.timeout(5 * SECOND):
        while not task.done():
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await asyncio.wait([task], timeout=0.2 * SECOND)


class Followed:
    """A follower, and all that it has told."""

    def __init__(self, url: str, probe_deadline_s: float) -> None:
        self.armed: dict[str, EntryId | None] = {}
        self.changes: list[Change] = []
        self.revoked: list[tuple[Revocation, float]] = []
        self.follower = Follower(
            url,
            on_armed=self.armed.__setitem__,
            on_change=self.changes.append,
            on_revoked=lambda revocation, at: self.revoked.append((revocation, at)),
            data_limit_bytes=8192,
            probe_interval_s=0.05 * SECOND,
            probe_deadline_s=probe_deadline_s,
            deaf_limit_s=2 * probe_deadline_s,
        )

    @property
    def revoked_names(self) -> list[str]:
        return [revocation.merchant_id for revocation, _ in self.revoked]

    async def until_known(self, *names: str) -> None:
        """Wait until these were told, and that all that there is was."""
        await until(
            lambda: set(names) <= set(self.revoked_names) and self.follower.knows_revocations,
            f"{names} in {self.revoked_names}",
        )

    async def watch(self, *merchants: str) -> None:
        for merchant in merchants:
            self.armed.pop(merchant, None)
            self.follower.watch(merchant)
        await until(lambda: self.armed.keys() >= set(merchants), "the streams to be armed")

    async def next(self, count: int = 1) -> list[Change]:
        await until(lambda: len(self.changes) >= count, f"{count} changes in {self.changes}")
        return self.changes

    async def until_newest(self, newest: EntryId) -> None:
        await until(
            lambda: any(change.newest == newest for change in self.changes),
            f"the newest ID in {self.changes}",
        )

    async def settle(self, server: Server, marker: str) -> None:
        """Let everything be heard that was done until now; the marker is a merchant of its own."""
        await self.until_newest(server.add(marker))
        self.changes[:] = [change for change in self.changes if change.merchant_id != marker]


@asynccontextmanager
async def following(url: str, probe_deadline_s: float = 5 * SECOND) -> AsyncGenerator[Followed]:
    followed = Followed(url, probe_deadline_s)
    task = asyncio.create_task(followed.follower.run())
    try:
        yield followed
        assert not task.done(), "it follows for ever"
    finally:
        await stopped(task)


def entry(entry_id: EntryId, merchant: str, topic: str | None = None) -> Entry:
    return Entry(entry_id, Notification(merchant, topic))


async def test_a_stream_is_armed_with_its_newest_id_or_none(server: Server, merchant: str) -> None:
    other = f"{merchant}-other"
    server.add(merchant)
    newest = server.add(merchant)

    async with following(server.url) as followed:
        await followed.watch(merchant, other)

    assert followed.armed == {merchant: newest, other: None}
    assert followed.changes == []


async def test_an_entry_is_told_with_its_fields(server: Server, merchant: str) -> None:
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)
        added = server.add(merchant, "topic", "seats", "data", '{"a": 1}', "by", "tab", "x", "y")
        changes = await followed.next()

    notification = Notification(merchant, "seats", '{"a":1}', "tab")
    assert changes == [Change(merchant, added, (Entry(added, notification),))]


@pytest.mark.parametrize(
    "script",
    [
        "MULTI\nXADD {key} * topic a\nXADD {key} * topic b\nEXEC",
        "EVAL \"for _, topic in ipairs({{'a', 'b'}}) do "
        "redis.call('XADD', KEYS[1], '*', 'topic', topic) end\" 1 {key}",
    ],
    ids=["MULTI", "Lua"],
)
async def test_entries_that_are_added_together_are_told_together(
    server: Server, merchant: str, script: str
) -> None:
    server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant)
        server.cli(script=script.format(key=stream_key(merchant)))
        (change,) = await followed.next()

    assert [each.notification.topic for each in change.entries] == ["a", "b"]
    assert change == Change(merchant, change.entries[-1].id, change.entries)


async def test_of_more_entries_than_are_told_one_by_one_the_newest_id_is_told(
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


async def test_the_first_entry_of_a_stream_says_nothing_but_its_id(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        await followed.watch(merchant)
        first = server.add(merchant, "topic", "seats")
        changes = await followed.next()

    assert changes == [Change(merchant, first)]


async def test_an_announcement_of_what_changes_nothing_is_no_change(
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
async def test_a_history_that_ends_is_a_resync_and_the_next_entry_is_told_again(
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


async def test_a_key_of_another_type_harms_no_other_merchant(server: Server, merchant: str) -> None:
    bad, good = f"{merchant}-bad", f"{merchant}-good"
    server.cli("SET", stream_key(bad), "1")
    server.add(good)
    async with following(server.url) as followed:
        await followed.watch(bad, good)
        # Both are announced, and read, together.
        server.cli(script=f"MULTI\nSET {stream_key(bad)} 2\nXADD {stream_key(good)} * at 1\nEXEC")
        changes = await followed.next(2)

    assert followed.armed[bad] is None
    assert min(changes) == Change(bad, None, is_resync=True)
    assert [(change.merchant_id, len(change.entries)) for change in sorted(changes)[1:]] == [
        (good, 1)
    ]


async def test_nobody_is_told_of_a_stream_that_is_watched_no_more(
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


async def test_nothing_is_lost_when_the_tracked_connection_is_killed_again_and_again(
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

    told = [each.id for change in followed.changes for each in change.entries]
    assert told == added[1:]
    assert followed.follower.tally.reconnects == 2
    assert not any(change.is_resync for change in followed.changes)


async def test_entries_between_two_ids_are_known_or_nothing_is(
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

    assert known == (entry(added[2], merchant, "t2"), entry(added[3], merchant, "t3"))
    assert newest == (entry(added[4], merchant, "t4"),)
    assert longest is not None
    assert [each.id for each in longest] == long[3:]
    assert [before, never, too_many, trimmed, beyond, refused] == [None] * 6


async def test_the_probe_has_an_age_once_a_write_of_ours_came_back(server: Server) -> None:
    followed = Followed(server.url, 5 * SECOND)
    assert followed.follower.probe_age_s == math.inf

    async with following(server.url) as followed:
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        lifetime_s = int(server.cli("TTL", followed.follower._probe_key))

    assert 0 < lifetime_s <= 60


# -- the follower, and what stands before a Redis


@asynccontextmanager
async def proxied(url: str, change: Callable[[bytes], bytes]) -> AsyncGenerator[str]:
    """Stand before a Redis, and change what it says."""
    target = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, do: Callable[[bytes], bytes]
    ) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(do(data))
        except ConnectionError:
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection(target.hostname, target.port)
        tasks.add(asyncio.create_task(pump(reader, redis_writer, bytes)))
        tasks.add(asyncio.create_task(pump(redis_reader, writer, change)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"redis://{host}:{port}/0"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def without_announcements(data: bytes) -> bytes:
    pattern = rb">2\r\n\$10\r\ninvalidate\r\n(_\r\n|\*1\r\n\$[0-9]+\r\n[^\r]*\r\n)"
    return re.sub(pattern, b"", data)


async def test_a_connection_that_is_told_nothing_is_given_up_until_one_is_told(
    own_redis: Server, merchant: str
) -> None:
    is_deaf = True

    def change(data: bytes) -> bytes:
        return without_announcements(data) if is_deaf else data

    async with (
        proxied(own_redis.url, change) as url,
        following(url, probe_deadline_s=0.3 * SECOND) as followed,
    ):
        await followed.watch(merchant)
        missed = own_redis.add(merchant)
        await followed.until_newest(missed)  # read again on the next connection
        age_s = followed.follower.probe_age_s
        is_deaf = False
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        told = own_redis.add(merchant)
        await followed.until_newest(told)

    assert age_s == math.inf
    assert [change.newest for change in followed.changes] == [missed, told]


async def test_who_is_told_nothing_though_redis_takes_its_writes_gives_up(
    own_redis: Server, merchant: str
) -> None:
    async with (
        proxied(own_redis.url, without_announcements) as url,
        following(url, probe_deadline_s=0.3 * SECOND) as followed,
    ):
        await followed.watch(merchant)
        with pytest.raises(Deaf, match="no write of ours was announced for"):
            async with asyncio.timeout(10 * SECOND):
                await followed.follower.give_up_if_deaf()


@pytest.mark.parametrize("state", ["well", "paused", "full"])
async def test_nobody_gives_up_who_hears_or_whose_redis_takes_no_writes(
    mortal: Redis, merchant: str, state: str
) -> None:
    async with following(mortal.url, probe_deadline_s=0.2 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe_age_s < math.inf, "a probe to come back")
        watchdog = asyncio.create_task(followed.follower.give_up_if_deaf())
        if state == "full":
            mortal.cli("CONFIG", "SET", "maxmemory", "1")
        with frozen(mortal.process.pid) if state == "paused" else nullcontext():
            began_at = time.monotonic()
            await until(lambda: time.monotonic() - began_at > 2 * SECOND, "five times its limit")
            gave_up = watchdog.done()
        watchdog.cancel()
        await asyncio.wait([watchdog])

    assert not gave_up


# -- the follower's end, and a Redis that breaks


async def test_a_follower_that_is_canceled_ends_whatever_it_is_doing(
    server: Server, merchant: str
) -> None:
    """A process that stops waits for it."""
    for steps in range(12):
        followed = Followed(server.url, 30 * SECOND)
        task = asyncio.create_task(followed.follower.run())
        await followed.watch(merchant)
        followed.follower.watch(f"{merchant}-other")
        for _ in range(steps):
            await asyncio.sleep(0)

        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=SECOND)
        await stopped(task)

        assert ended == {task}, f"canceled {steps} steps after it was told to watch"


async def test_a_follower_that_is_canceled_as_its_connection_is_lost_ends(
    server: Server, merchant: str
) -> None:
    """A whole machine that stops, stops Redis and the service at the same time."""
    for steps in range(10):
        followed = Followed(server.url, 30 * SECOND)
        task = asyncio.create_task(followed.follower.run())
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe_age_s < math.inf, "a quiet connection")  # noqa: B023
        server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
        for _ in range(steps):
            await asyncio.sleep(0)

        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=SECOND)
        await stopped(task)

        assert ended == {task}, f"canceled {steps} steps after its connection was lost"


async def test_a_connection_that_is_lost_while_it_is_written_to_is_made_anew(
    server: Server, merchant: str
) -> None:
    for steps in range(3):
        first, second = f"{merchant}-{steps}-first", f"{merchant}-{steps}-second"
        async with following(server.url) as followed:
            await followed.watch(first)
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
            for _ in range(steps):
                await asyncio.sleep(0)
            await followed.watch(second)
            await followed.until_newest(server.add(first))


async def test_a_connection_that_is_lost_right_after_it_was_written_to_is_made_anew(
    server: Server, merchant: str
) -> None:
    for steps in range(3):
        first, second = f"{merchant}-{steps}-first", f"{merchant}-{steps}-second"
        async with following(server.url) as followed:
            await followed.watch(first)
            followed.follower.watch(second)
            for _ in range(steps):
                await asyncio.sleep(0)
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
            await followed.until_newest(server.add(first))


async def test_a_restart_without_persistence_is_a_resync_for_every_live_merchant(
    mortal: Redis, merchant: str
) -> None:
    server, other = Server(mortal.url), f"{merchant}-other"
    server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant, other)

        mortal.kill()
        restart(mortal)
        changes = sorted(await followed.next(2))
        back = server.add(merchant)
        await followed.next(3)

    assert changes == [
        Change(merchant, None, is_resync=True),
        Change(other, None, is_resync=True),
    ]
    assert followed.changes[2] == Change(merchant, back)
    assert followed.follower.tally.tail.resyncs == {
        "server_changed": 2,
        "history_lost": 0,
        "stream_gone": 0,
        "not_a_stream": 0,
    }


async def test_a_server_that_was_restarted_may_have_lost_what_we_never_saw(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    newest = server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant)

        server.cli("SAVE")
        mortal.kill()
        restart(mortal)
        changes = await followed.next()

    assert changes == [Change(merchant, newest, is_resync=True)]


async def test_a_question_whose_answer_was_lost_is_answered_with_none(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    first, last = server.add(merchant), server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        with frozen(mortal.process.pid):
            asked = asyncio.create_task(followed.follower.between(merchant, first, last))
            await until(lambda: bool(followed.follower._in_flight), "the question to be sent")
            mortal.kill()
            async with asyncio.timeout(5 * SECOND):
                answer = await asked

    assert answer is None


async def test_a_connection_without_a_word_is_given_up_and_made_anew(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    server.add(merchant)
    async with following(mortal.url, probe_deadline_s=0.5 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        before = server.clients("tail")
        with frozen(mortal.process.pid):
            await until(lambda: followed.follower.probe_age_s > SECOND, "an old probe")
        added = server.add(merchant)
        (change,) = await followed.next()
        await until(lambda: followed.follower.probe_age_s < 0.5 * SECOND, "a young probe")
        after = server.clients("tail")

    assert change == Change(merchant, added, (entry(added, merchant),))
    assert len(before) == len(after) == 1
    assert before != after


async def test_a_redis_that_takes_no_writes_is_not_ready_but_is_followed(
    mortal: Redis, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = Server(mortal.url)
    server.add(merchant)
    async with following(mortal.url, probe_deadline_s=0.3 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        before = server.clients("tail")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: followed.follower.probe_age_s > SECOND, "an old probe")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        added = server.add(merchant)
        await followed.next()
        await until(lambda: followed.follower.probe_age_s < 0.3 * SECOND, "a young probe")
        after = server.clients("tail")

    assert followed.changes == [Change(merchant, added, (entry(added, merchant),))]
    assert before == after
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "tail connected merchants=1"
    assert said[1].startswith("redis takes no writes cause=NOREPLICAS ")
    assert re.fullmatch(r"redis takes writes again after_s=\d+\.\d", said[2])


async def test_a_tail_that_was_away_says_so_once_and_once_that_it_is_back(
    mortal: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with following(mortal.url) as followed:
        for round_ in (1, 2):
            await until(lambda: len(caplog.records) == 2 * round_ - 1, "connected")  # noqa: B023
            mortal.kill()
            # Several attempts: one line.
            await until(lambda: len(caplog.records) == 2 * round_, "interrupted")  # noqa: B023
            refused = followed.follower.probe_age_s
            await until(
                lambda: followed.follower.probe_age_s > refused + SECOND / 2,  # noqa: B023
                "some attempts",
            )
            restart(mortal)
        await until(lambda: len(caplog.records) == 5, "connected again")

    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "tail connected merchants=0"
    for away, back in (said[1:3], said[3:5]):
        assert away.startswith("tail interrupted, reconnecting cause=")
        assert len(away) > len("tail interrupted, reconnecting cause=")
        found = re.fullmatch(r"tail connected merchants=0 away_s=(\d+\.\d)", back)
        assert found is not None
        assert float(found[1]) >= SECOND / 2 - 0.1
    assert followed.follower.tally.reconnects == 2


async def test_the_clock_of_redis_is_known_within_a_round_trip(own_redis: Server) -> None:
    async with following(own_redis.url) as followed:
        followed.follower._redis_ahead_s += 1000  # ours is wrong
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        before = followed.follower.redis_time_s
        seconds, microseconds = own_redis.cli("TIME").split()
        after = followed.follower.redis_time_s

    assert before - 0.05 * SECOND < int(seconds) + int(microseconds) / 1e6 < after + 0.05 * SECOND


async def test_a_user_that_may_not_ask_for_the_time_is_followed_all_the_same(
    mortal: Redis, merchant: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-time")
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        newest = Server(mortal.url).add(merchant)
        await followed.until_newest(newest)

    assert followed.follower.redis_time_s == pytest.approx(newest.ms / 1000, abs=5 * SECOND)


# -- the follower: revocations


def revoke(server: Server, *names: str, at: str = "*") -> list[EntryId]:
    """Add revocations of these merchants as one command each, all in one go."""
    adds = "".join(f"XADD {REVOCATIONS_KEY} {at} merchant_id {name}\n" for name in names)
    return [EntryId.parse(line) for line in server.cli(script=adds).splitlines()]


@pytest.fixture
def clear(server: Server) -> Server:
    """A server without a revocation."""
    server.cli("DEL", REVOCATIONS_KEY)
    return server


async def test_revocations_are_told_from_the_first_one_on_and_since_when(clear: Server) -> None:
    ids = revoke(clear, "a", "b")
    async with following(clear.url) as followed:
        assert not followed.follower.knows_revocations
        await followed.until_known("a", "b")
        fields = ("merchant_id", "c", "jti", "t", "sub", "u", "x", "y")
        ids += [EntryId.parse(clear.cli("XADD", REVOCATIONS_KEY, "*", *fields))]
        await followed.until_known("c")

    assert followed.revoked == [
        (Revocation("a"), ids[0].ms / 1000),
        (Revocation("b"), ids[1].ms / 1000),
        (Revocation("c", "t", "u"), ids[2].ms / 1000),
    ]


async def test_without_any_revocation_that_is_known(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        revoke(clear, "a")
        await followed.until_known("a")


async def test_more_revocations_than_one_answer_holds_are_all_told(clear: Server) -> None:
    names = [f"m{number}" for number in range(2 * PAGE_ENTRIES + 10)]
    revoke(clear, *names)
    async with following(clear.url) as followed:
        await followed.until_known(*names)
        more = [f"n{number}" for number in range(2 * PAGE_ENTRIES)]
        revoke(clear, *more)
        await followed.until_known(*more)

    assert followed.revoked_names == names + more


async def test_an_entry_that_is_no_revocation_is_passed_over(
    clear: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clear.cli("XADD", REVOCATIONS_KEY, "*", "jti", "t")
    async with following(clear.url) as followed:
        await followed.until_known()
        revoke(clear, "a")
        await followed.until_known("a")

    assert followed.revoked_names == ["a"]
    assert "malformed revocation ignored" in caplog.text


@pytest.mark.parametrize("script", ["DEL {key}", "FLUSHALL", "XTRIM {key} MAXLEN 0"])
async def test_when_the_stream_is_lost_what_follows_is_told_all_the_same(
    clear: Server, script: str
) -> None:
    revoke(clear, "a")
    async with following(clear.url) as followed:
        await followed.until_known("a")
        clear.cli(script=script.format(key=REVOCATIONS_KEY))
        revoke(clear, "b")
        await followed.until_known("b")
        clear.cli("DEL", REVOCATIONS_KEY)
        revoke(clear, "c", at="1-1")  # another history, by another clock
        await followed.until_known("c")


async def test_what_is_revoked_while_we_are_away_is_told_when_we_are_back(
    mortal: Redis,
) -> None:
    server = Server(mortal.url)
    revoke(server, "a")
    async with following(mortal.url, probe_deadline_s=SECOND) as followed:
        await followed.until_known("a")
        mortal.cli("SAVE")
        mortal.kill()
        await until(lambda: not followed.follower.knows_revocations, "the loss")
        restart(mortal)
        revoke(server, "b")
        await followed.until_known("b")

    assert followed.revoked_names == ["a", "b"]


async def test_while_redis_does_not_answer_nothing_is_known(mortal: Redis) -> None:
    async with following(mortal.url, probe_deadline_s=0.5 * SECOND) as followed:
        await followed.until_known()
        with frozen(mortal.process.pid):
            await until(lambda: not followed.follower.knows_revocations, "the silence")
        await followed.until_known()


async def test_what_was_proved_too_long_ago_is_not_known(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        follower = followed.follower
        follower._probed_at = time.monotonic() - 6 * SECOND
        assert follower.knows_revocations, "they were read lately"
        follower._revocations_read_at = follower._probed_at
        assert not follower.knows_revocations
        await followed.until_known()  # the next probe


async def test_who_asks_while_they_are_read_waits_a_moment(clear: Server) -> None:
    revoke(clear, "a")
    async with following(clear.url) as followed:
        assert not followed.follower.knows_revocations
        assert await followed.follower.wait_for_revocations(5 * SECOND)
        assert followed.revoked_names == ["a"]


async def test_who_asks_while_redis_is_away_waits_no_longer(mortal: Redis) -> None:
    async with following(mortal.url, probe_deadline_s=SECOND) as followed:
        await followed.until_known()
        mortal.kill()
        await until(lambda: not followed.follower.knows_revocations, "the loss")
        began_at = time.monotonic()
        assert not await followed.follower.wait_for_revocations(0.2)
        took_s = time.monotonic() - began_at
        restart(mortal)
        assert await followed.follower.wait_for_revocations(5 * SECOND)

    assert 0.2 <= took_s < 0.2 + SECOND


async def test_while_redis_takes_no_writes_revocations_are_read_and_known(mortal: Redis) -> None:
    """Nothing proves then that a change is announced, so they are read again and again."""
    server = Server(mortal.url)
    async with following(mortal.url, probe_deadline_s=0.3 * SECOND) as followed:
        await followed.until_known()
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: followed.follower.probe_age_s > SECOND, "an old probe")
        is_known = followed.follower.knows_revocations
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        revoke(server, "a")
        await followed.until_known("a")

    assert is_known


async def test_a_key_that_is_no_stream_is_unknown_and_said_once_and_read_when_it_is_one(
    clear: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clear.cli("SET", REVOCATIONS_KEY, "1")
    async with following(clear.url) as followed:
        await until(
            lambda: followed.follower._revocations.knowledge is Knowledge.UNREADABLE, "an error"
        )
        await until(lambda: followed.follower.probe_age_s < SECOND, "a probe to come back")
        is_known = followed.follower.knows_revocations
        clear.cli("SET", REVOCATIONS_KEY, "2")
        await until(
            lambda: followed.follower._revocations.schedule is Schedule.IDLE, "another read"
        )
        clear.cli("DEL", REVOCATIONS_KEY)
        revoke(clear, "a")
        await followed.until_known("a")

    assert not is_known
    assert caplog.text.count("revocations can't be read cause=WRONGTYPE") == 1


async def test_an_announcement_of_another_key_means_nothing(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        followed.follower._announced(Announcement([b"sse_push:another"]))

        assert followed.follower._revocations.schedule is Schedule.IDLE
        assert followed.follower.knows_revocations


async def test_what_may_not_be_read_is_tried_again_until_it_may(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-xrange")
    async with following(mortal.url) as followed:
        await until(
            lambda: followed.follower._revocations.knowledge is Knowledge.UNREADABLE, "an error"
        )
        mortal.cli("ACL", "SETUSER", "default", "+xrange")  # which nothing announces
        await followed.until_known()


async def test_a_revocation_that_was_not_announced_is_found_by_the_sweep(
    clear: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.follow._SWEEP_S", 0.5 * SECOND)
    async with following(clear.url) as followed:
        await followed.until_known()
        monkeypatch.setattr(followed.follower, "_announced", lambda _announcement: None)
        revoke(clear, "a")
        await until(lambda: followed.revoked_names == ["a"], "the sweep")


@pytest.mark.parametrize("seed", range(3))
async def test_none_is_overlooked_whatever_becomes_of_the_stream_and_the_connection(
    clear: Server, seed: int
) -> None:
    """Adds as our own appender makes them, single or many; losses, and connections killed."""
    chance = random.Random(seed)
    said: list[str] = []
    lost: set[str] = set()

    def add(count: int) -> None:
        names = [f"m{len(said) + number}" for number in range(count)]
        adds = [revoke_commands(Revocation(name), now_s=0, lifetime_s=60) for name in names]
        clear.cli(script="\n".join(" ".join(map(str, each)) for both in adds for each in both))
        said.extend(names)

    async with following(clear.url) as followed:
        for _ in range(60):
            kind = chance.choices(["add", "burst", "lose", "trim", "kill"], [8, 2, 1, 1, 2])[0]
            if kind in ("add", "burst"):
                add(1 if kind == "add" else chance.choice([2, PAGE_ENTRIES, PAGE_ENTRIES + 1]))
            elif kind == "kill":
                tails = clear.clients("tail")
                if tails:
                    clear.cli("CLIENT", "KILL", "ID", tails[0])
            else:
                # Nobody could know what is lost before it was read.
                lost.update(set(said) - set(followed.revoked_names))
                script = "DEL {}" if kind == "lose" else "XTRIM {} MAXLEN 1"
                clear.cli(script=script.format(REVOCATIONS_KEY))
            await asyncio.sleep(0)
        add(1)
        await until(
            lambda: (
                set(said) - lost <= set(followed.revoked_names)
                and followed.follower.knows_revocations
            ),
            "all that was said",
        )


# -- the appender


class CountingAppender(Appender):
    """Notes how many notifications went out in each round trip."""

    def __init__(self, url: str, timeout_s: float, max_entries: int, ttl_s: float) -> None:
        super().__init__(
            url,
            timeout_s=timeout_s,
            stream_max_entries=max_entries,
            stream_ttl_s=ttl_s,
            revocation_lifetime_s=LIFETIME_S,
        )
        self.batches: list[int] = []

    async def _commit(self, batch: list[_Waiting]) -> None:
        self.batches.append(len(batch))
        await super()._commit(batch)

    @property
    def is_on_its_way(self) -> bool:
        """The last round trip's commands have been sent."""
        return any(not each.done() for each in self._sent)


@asynccontextmanager
async def appending(
    url: str,
    *,
    timeout_s: float = 5 * SECOND,
    max_entries: int = 100,
    ttl_s: float = 604_800,
) -> AsyncGenerator[CountingAppender]:
    appender = CountingAppender(url, timeout_s, max_entries, ttl_s)
    task = asyncio.create_task(appender.run())
    try:
        yield appender
        assert not task.done(), "it runs for ever"
    finally:
        await stopped(task)


async def test_an_entry_has_the_fields_of_its_notification(server: Server, merchant: str) -> None:
    async with appending(server.url) as appender:
        entry_id = await appender.append(Notification(merchant, "seats", '{"a":1}', "tab"))
        empty_id = await appender.append(Notification(merchant))

    assert server.cli("XRANGE", stream_key(merchant), "-", "+").splitlines() == [
        *(str(entry_id), "topic", "seats", "data", '{"a":1}', "by", "tab"),
        *(str(empty_id), "topic"),
    ]


async def test_notifications_that_arrive_together_go_out_together(
    server: Server, merchant: str
) -> None:
    server.cli("CONFIG", "RESETSTAT")
    async with appending(server.url) as appender:
        ids = await asyncio.gather(*(appender.append(Notification(merchant)) for _ in range(64)))

    assert ids == sorted(set(ids))
    assert server.length(merchant) == 64
    assert server.calls("xadd") == sum(appender.batches) == 64
    assert len(appender.batches) <= 2


async def test_whatever_arrives_while_one_batch_is_on_its_way_is_the_next_and_who_left_is_not(
    own_redis: Server, merchant: str
) -> None:
    async with appending(own_redis.url) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        first = asyncio.create_task(appender.append(Notification(merchant)))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        waiting = [asyncio.create_task(appender.append(Notification(merchant))) for _ in range(10)]
        await asyncio.sleep(0)  # they have begun
        waiting[3].cancel()
        own_redis.cli("CLIENT", "UNPAUSE")
        await asyncio.wait([first, *waiting])

    assert appender.batches == [1, 1, 9]
    assert [task.cancelled() for task in waiting].count(True) == 1
    assert own_redis.length(merchant) == 11


async def test_an_error_reply_fails_its_own_notification_only(
    server: Server, merchant: str
) -> None:
    bad = f"{merchant}-bad"
    server.cli("SET", stream_key(bad), "1")
    async with appending(server.url) as appender:
        first, refused, second = await appender.append_all(
            [Notification(merchant), Notification(bad), Notification(merchant)]
        )
        with pytest.raises(StreamUnavailable, match="Redis refused the entry: WRONGTYPE"):
            await appender.append(Notification(bad))

    assert appender.batches == [3, 1]
    assert appender.tally.outcomes == {"stored": 2, "not_published": 2, "unknown": 0}
    assert isinstance(first, EntryId)
    assert isinstance(second, EntryId)
    assert isinstance(refused, StreamUnavailable)
    assert refused.outcome == "not_published"
    assert server.length(merchant) == 2


async def test_a_revocation_goes_out_with_the_notifications_that_wait(
    clear: Server, merchant: str
) -> None:
    async with appending(clear.url) as appender:
        first, revoked, second = await appender.append_all(
            [Notification(merchant), Revocation("42", "t", "u"), Notification(merchant)]
        )

    assert appender.batches == [3]
    assert appender.tally.outcomes == {"stored": 2, "not_published": 0, "unknown": 0}
    assert isinstance(first, EntryId)
    assert isinstance(second, EntryId)
    assert isinstance(revoked, EntryId)
    assert clear.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines() == [
        *(str(revoked), "merchant_id", "42", "jti", "t", "sub", "u")
    ]
    assert LIFETIME_S * 1000 < int(clear.cli("PTTL", REVOCATIONS_KEY)) <= LIFETIME_S * 1000 + 60_000
    assert clear.length(merchant) == 2


async def test_revocations_are_trimmed_by_the_time_of_redis_and_none_before_its_time(
    clear: Server,
) -> None:
    seconds = int(clear.cli("TIME").splitlines()[0])
    young_ms = int((seconds - LIFETIME_S + 30) * 1000)
    adds = "XADD {0} {1}-* merchant_id old\n" * 500 + "XADD {0} {2}-* merchant_id young\n"
    clear.cli(script=adds.format(REVOCATIONS_KEY, young_ms - 60_000, young_ms))
    async with appending(clear.url) as appender:
        newest = await appender.append(Revocation("new"))

    left = clear.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines()
    assert left[-6:] == [
        f"{young_ms}-0",
        *("merchant_id", "young"),
        *(str(newest), "merchant_id", "new"),
    ]
    assert left.count("old") < 200  # approximately: whole nodes only


async def test_if_redis_refuses_to_say_the_time_a_revocation_is_added_and_nothing_trimmed(
    own_redis: Server, merchant: str
) -> None:
    own_redis.cli("DEL", REVOCATIONS_KEY)
    own_redis.cli(script=f"XADD {REVOCATIONS_KEY} 1-* merchant_id old\n" * 500)
    own_redis.cli("ACL", "SETUSER", "timeless", "on", ">pw", "~*", "&*", "+@all", "-time")
    url = own_redis.url.replace("redis://", "redis://timeless:pw@")
    async with appending(url) as appender:
        results = await appender.append_all([Revocation("new"), Notification(merchant)])

    assert [type(result) for result in results] == [EntryId, EntryId]
    assert own_redis.cli("XLEN", REVOCATIONS_KEY) == "501"


async def test_a_revocation_that_waits_for_the_time_was_not_published(mortal: Redis) -> None:
    async with appending(mortal.url, timeout_s=0.3 * SECOND) as appender:
        await appender.append(Revocation("a"))
        with (
            frozen(mortal.process.pid),
            pytest.raises(StreamUnavailable, match="expected an answer of Redis") as failure,
        ):
            await appender.append(Revocation("b"))
        await until(mortal.answers, "the server")
        await appender.append(Revocation("c"))

    assert failure.value.outcome == "not_published"
    assert "b" not in mortal.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines()


async def test_a_revocation_that_redis_refuses_fails_alone(clear: Server, merchant: str) -> None:
    clear.cli("SET", REVOCATIONS_KEY, "1")
    async with appending(clear.url) as appender:
        refused, taken = await appender.append_all([Revocation("42"), Notification(merchant)])
    clear.cli("DEL", REVOCATIONS_KEY)

    assert isinstance(taken, EntryId)
    assert isinstance(refused, StreamUnavailable)
    assert refused.outcome == "not_published"


async def test_a_stream_keeps_about_as_many_entries_as_it_may(
    server: Server, merchant: str
) -> None:
    async with appending(server.url, max_entries=100) as appender:
        results = await appender.append_all([Notification(merchant)] * 1000)

    assert 100 <= server.length(merchant) < 200
    newest = server.cli("XREVRANGE", stream_key(merchant), "+", "-", "COUNT", "1")
    assert newest.splitlines()[0] == str(results[-1])


async def test_a_lifetime_goes_along_now_and_then_and_not_with_each_entry(
    server: Server, merchant: str
) -> None:
    server.cli("CONFIG", "RESETSTAT")
    async with appending(server.url, ttl_s=1000) as appender:
        for _ in range(5):
            await appender.append(Notification(merchant))
        await appender.append_all([Notification(merchant)] * 5)
        await appender.append(Notification(f"{merchant}-other"))

    assert server.calls("xadd") == 11
    assert server.calls("expire") == 2
    assert 1000 < int(server.cli("TTL", stream_key(merchant))) <= 1100
    assert 1000 < int(server.cli("TTL", stream_key(f"{merchant}-other"))) <= 1100


async def test_a_quiet_stream_expires_and_a_later_entry_renews_it(
    own_redis: Server, merchant: str
) -> None:
    key = stream_key(merchant)

    def lifetime_ms() -> int:
        return int(own_redis.cli("PTTL", key))

    async with appending(own_redis.url, ttl_s=1) as appender:
        await appender.append(Notification(merchant))
        await until(lambda: lifetime_ms() < 1800, "its lifetime to run down")
        await appender.append(Notification(merchant))
        renewed_ms = lifetime_ms()

    assert renewed_ms > 1800
    await until(lambda: own_redis.cli("EXISTS", key) == "0", "the stream to expire")


async def test_a_connection_that_redis_closed_meanwhile_is_made_anew_unnoticed(
    server: Server, merchant: str
) -> None:
    async with appending(server.url) as appender:
        await appender.append(Notification(merchant))
        reader = appender._connection._reader
        assert reader is not None
        server.cli("CLIENT", "KILL", "ID", *server.clients("append"))
        await until(reader.at_eof, "the end of the connection")
        await appender.append(Notification(merchant))

    assert server.length(merchant) == 2


async def test_what_was_sent_when_the_connection_was_lost_is_unknown(
    own_redis: Server, merchant: str
) -> None:
    async with appending(own_redis.url) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        sent = asyncio.create_task(appender.append(Notification(merchant)))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        own_redis.cli("CLIENT", "KILL", "ID", *own_redis.clients("append"))
        with pytest.raises(StreamUnavailable, match="Redis did not answer, or was lost") as failure:
            await sent
        own_redis.cli("CLIENT", "UNPAUSE")
        await appender.append(Notification(merchant))

    assert failure.value.outcome == "unknown"
    assert own_redis.length(merchant) == 2


async def test_without_redis_nothing_is_sent_and_with_it_again_everything(
    mortal: Redis, merchant: str
) -> None:
    async with appending(mortal.url) as appender:
        mortal.kill()
        results = await appender.append_all([Notification(merchant)] * 3)
        restart(mortal)
        await appender.append(Notification(merchant))

    outcomes = [each.outcome for each in results if isinstance(each, StreamUnavailable)]
    assert outcomes == ["not_published"] * 3
    assert Server(mortal.url).length(merchant) == 1


async def test_a_redis_that_hangs_leaves_what_was_sent_unknown_and_the_rest_unpublished(
    mortal: Redis, merchant: str
) -> None:
    async with appending(mortal.url, timeout_s=0.3 * SECOND) as appender:
        await appender.append(Notification(merchant))
        with frozen(mortal.process.pid):
            sent = asyncio.create_task(appender.append_all([Notification(merchant)]))
            await until(lambda: appender.is_on_its_way, "the batch to be sent")
            waiting = asyncio.create_task(appender.append_all([Notification(merchant)] * 2))
            async with asyncio.timeout(2 * 0.3 * SECOND):
                results = [*await sent, *await waiting]

    outcomes = [each.outcome for each in results if isinstance(each, StreamUnavailable)]
    assert outcomes == ["unknown", "not_published", "not_published"]
    assert appender.tally.outcomes == {"stored": 1, "not_published": 2, "unknown": 1}


async def test_what_was_said_to_be_unpublished_is_never_stored(
    mortal: Redis, merchant: str
) -> None:
    server, given_up = Server(mortal.url), f"{merchant}-given-up"
    async with appending(mortal.url, timeout_s=0.3 * SECOND) as appender:
        await appender.append(Notification(merchant))
        with frozen(mortal.process.pid):
            sent = asyncio.create_task(appender.append_all([Notification(merchant)]))
            await until(lambda: appender.is_on_its_way, "the batch to be sent")
            # It waits for the first to fail, and then, no longer, for a new connection.
            with pytest.raises(StreamUnavailable) as failure:
                await appender.append(Notification(given_up))
            await sent
        await appender.append(Notification(merchant))  # what was before it has been dealt with

    assert failure.value.outcome == "not_published"
    assert server.length(given_up) == 0


async def test_more_than_can_wait_is_refused_at_once(own_redis: Server, merchant: str) -> None:
    async with appending(own_redis.url) as appender:
        results = await appender.append_all([Notification(merchant)] * 20_001)

    assert {str(each) for each in results} == {
        "expected fewer than 20000 notifications waiting for Redis"
    }
    assert {each.outcome for each in results if isinstance(each, StreamUnavailable)} == {
        "not_published"
    }
    assert appender.tally.outcomes == {"stored": 0, "not_published": 20_001, "unknown": 0}
    assert own_redis.length(merchant) == 0


# -- what an operator should know


APPENDONLY_OFF = Finding(
    "warning",
    "appendonly is off: when Redis crashes, notifications since its last snapshot are lost, "
    "and every connected browser refetches",
)


async def test_a_server_is_examined_for_its_version_and_its_announcements(server: Server) -> None:
    info = server.cli("INFO", "server")
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.partition(f"{name}_version:")[2].split()[0]

    found, announces, evicts, persists = await examine(server.url, timeout_s=SECOND)

    assert found == Finding("ok", f"{name} {version}")
    assert announces.level == "ok"
    assert announces.text.startswith("a change is announced, ")
    assert evicts == Finding("ok", "nothing is evicted (maxmemory-policy noeviction)")
    assert persists == APPENDONLY_OFF
    assert server.clients("check") == []


async def test_eviction_is_warned_of_and_persistence_is_not(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    mortal.cli("CONFIG", "SET", "appendonly", "yes")

    _, announces, evicts, persists = await examine(mortal.url, timeout_s=SECOND)

    assert announces.level == "ok"
    assert evicts == Finding(
        "warning",
        "maxmemory-policy is allkeys-lru: whole streams may vanish, and their browsers refetch; "
        "expected noeviction",
    )
    assert persists == Finding(
        "ok", "the append-only file is on: a crash of Redis loses no notification"
    )


async def test_a_policy_without_a_limit_evicts_nothing(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "allkeys-lru")

    _, _, evicts, _ = await examine(mortal.url, timeout_s=SECOND)

    assert evicts == Finding("ok", "nothing is evicted (maxmemory-policy allkeys-lru)")


async def test_what_does_not_announce_a_change_will_not_do(own_redis: Server) -> None:
    async with proxied(own_redis.url, without_announcements) as url:
        _, announces, _, _ = await examine(url, timeout_s=0.2 * SECOND)

    assert announces == Finding(
        "failure",
        f"a change was not announced within {0.2 * SECOND:g} s: is this a proxy, or does the user "
        "lack rights? CLIENT TRACKING must reach the server itself",
    )


async def test_a_server_that_is_too_old_will_not_do(own_redis: Server) -> None:
    def older(data: bytes) -> bytes:
        return re.sub(rb"(?<=redis_version:)[0-9]", b"5", data)

    async with proxied(own_redis.url, older) as url:
        found, announces, _, _ = await examine(url, timeout_s=SECOND)

    assert found.level == "failure"
    assert re.fullmatch(r"redis 5\.[0-9.]+ is too old: expected 6\.2 or newer", found.text)
    assert announces.level == "ok"


async def test_a_server_that_does_not_answer_cannot_be_examined(mortal: Redis) -> None:
    with (
        frozen(mortal.process.pid),
        pytest.raises(StreamUnavailable, match="expected a Redis that answers, got: "),
    ):
        await examine(mortal.url, timeout_s=0.2 * SECOND)
    mortal.kill()
    with pytest.raises(StreamUnavailable, match=r"got: Error 111 connecting to 127\.0\.0\.1"):
        await examine(mortal.url, timeout_s=0.2 * SECOND)
