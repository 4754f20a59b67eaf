"""The proof that changes are announced, and what follows if there is none."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import pytest

from sse_push.notification import Notification
from sse_push.stream.proof import Deaf
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import open_stream, publishing
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import Followed, following, stripped
from tests.integration.stream.servers import Server, led, proxied, without_announcements


async def test_the_probe_has_an_age_once_a_write_was_announced(server: Server) -> None:
    followed = Followed(server.url, 5 * SECOND)
    assert followed.follower.probe.age_s == math.inf

    async with following(server.url) as followed:
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        lifetime_s = int(server.cli("TTL", followed.follower.probe.key.decode()))

    assert 0 < lifetime_s <= 60


async def test_connections_without_announcements_are_replaced_until_one_has_them(
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
        age_s = followed.follower.probe.age_s
        is_deaf = False
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        announced = own_redis.add(merchant)
        await followed.until_newest(announced)

    assert age_s == math.inf
    assert [change.newest for change in followed.changes] == [missed, announced]


async def test_a_process_without_announcements_gives_up_while_redis_takes_writes(
    own_redis: Server, merchant: str
) -> None:
    async with (
        proxied(own_redis.url, without_announcements) as url,
        following(url, probe_deadline_s=0.3 * SECOND) as followed,
    ):
        await followed.watch(merchant)
        with pytest.raises(Deaf, match="no write of ours was announced for"):
            async with asyncio.timeout(10 * SECOND):
                await followed.follower.probe.give_up_if_deaf()
        assert not followed.follower.probe.is_well


async def test_a_process_gives_up_after_as_many_whole_probes_as_make_up_the_limit(
    own_redis: Server,
) -> None:
    deadline_s = 0.3 * SECOND
    async with (
        proxied(own_redis.url, without_announcements) as url,
        following(url, probe_deadline_s=deadline_s) as followed,
    ):
        followed.follower.probe._deaf_limit_s = 2.5 * deadline_s
        began_at = time.monotonic()
        with pytest.raises(Deaf, match=f"was announced for {3 * deadline_s:.0f} s"):
            async with asyncio.timeout(10 * SECOND):
                await followed.follower.probe.give_up_if_deaf()
        took_s = time.monotonic() - began_at

    assert took_s > 3 * deadline_s
    assert followed.follower.tally.reconnects == 2


@pytest.mark.parametrize("state", ["well", "paused", "full"])
async def test_a_process_does_not_give_up_while_all_is_well_or_redis_takes_no_writes(
    mortal: Redis, merchant: str, state: str
) -> None:
    async with following(mortal.url, probe_deadline_s=0.2 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < math.inf, "a probe to come back")
        watchdog = asyncio.create_task(followed.follower.probe.give_up_if_deaf())
        if state == "full":
            mortal.cli("CONFIG", "SET", "maxmemory", "1")
        with frozen(mortal.process.pid) if state == "paused" else nullcontext():
            began_at = time.monotonic()
            await until(lambda: time.monotonic() - began_at > 2 * SECOND, "five times its limit")
            gave_up = watchdog.done()
        watchdog.cancel()
        await asyncio.wait([watchdog])

    assert not gave_up


async def test_a_connection_that_is_silent_is_given_up_and_made_anew(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    server.add(merchant)
    async with following(mortal.url, probe_deadline_s=0.5 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        before = server.clients("tail")
        with frozen(mortal.process.pid):
            await until(lambda: followed.follower.probe.age_s > 2 * SECOND, "an old probe")
            is_well = followed.follower.probe.is_well  # by three deadlines after the last one
        added = server.add(merchant)
        (change,) = await followed.next()
        await until(lambda: followed.follower.probe.age_s < 0.5 * SECOND, "a young probe")
        after = server.clients("tail")

    assert change.newest == added
    assert stripped(change.entries) == [(added, Notification(merchant))]
    assert len(before) == len(after) == 1
    assert before != after
    assert is_well, "another process would do no better"


async def test_a_redis_that_takes_no_writes_makes_the_probe_old_and_is_followed(
    mortal: Redis, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = Server(mortal.url)
    server.add(merchant)
    async with following(mortal.url, probe_deadline_s=0.3 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        before = server.clients("tail")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: followed.follower.probe.age_s > SECOND, "an old probe")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        added = server.add(merchant)
        await followed.next()
        await until(lambda: followed.follower.probe.age_s < 0.3 * SECOND, "a young probe")
        after = server.clients("tail")

    (change,) = followed.changes
    assert change.newest == added
    assert stripped(change.entries) == [(added, Notification(merchant))]
    assert before == after
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "tail connected merchants=1"
    refused = "redis takes no writes cause=Redis refused the entry: NOREPLICAS "
    assert messages[1].startswith(refused)
    assert re.fullmatch(r"redis takes writes again after_s=\d+\.\d", messages[2])


async def test_the_clock_of_redis_is_known_within_a_round_trip(own_redis: Server) -> None:
    async with following(own_redis.url) as followed:
        followed.follower.probe._redis_ahead_s += 1000  # ours is wrong
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        before = followed.follower.probe.redis_time_s
        seconds, microseconds = own_redis.cli("TIME").split()
        after = followed.follower.probe.redis_time_s

    assert before - 0.05 * SECOND < int(seconds) + int(microseconds) / 1e6 < after + 0.05 * SECOND


async def test_a_user_without_the_right_to_ask_for_the_time_can_follow(
    mortal: Redis, merchant: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-time")
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        newest = Server(mortal.url).add(merchant)
        await followed.until_newest(newest)

    assert followed.follower.probe.redis_time_s == pytest.approx(newest.ms / 1000, abs=5 * SECOND)


@pytest.fixture
def other(tmp_path: Path) -> Generator[Redis]:
    """Another Redis, to which the address may lead."""
    folder = tmp_path / "other"
    folder.mkdir()
    started = Redis.start(folder)
    yield started
    started.kill()


@pytest.mark.parametrize("moved", ["append", "tail", "none"])
async def test_every_connection_follows_the_address_to_another_server(
    mortal: Redis, other: Redis, merchant: str, caplog: pytest.LogCaptureFixture, moved: str
) -> None:
    """Whichever connection notices by itself that the address leads elsewhere by now."""
    other.cli("REPLICAOF", "127.0.0.1", str(mortal.port))
    async with led(mortal.url) as proxy, following(proxy.url) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.age_s < SECOND, "a probe")
        other.cli("REPLICAOF", "NO", "ONE")
        proxy.lead_to(other.url)
        server = Server(mortal.url)
        if moved != "none":
            server.cli("CLIENT", "KILL", "ID", *server.clients(moved))
        await until(lambda: len(Server(other.url).clients("tail")) == 1, "the tail to move")
        before = len(followed.changes)
        stored = (await followed.appender.append(Notification(merchant))).entry_id
        # Stored by the server that is left, an entry reaches nobody: a resync stands for it then.
        await until(
            lambda: any(
                change.newest == stored or change.is_resync for change in followed.changes[before:]
            ),
            "the change, or a resync",
        )
        await until(lambda: followed.follower.age_s < 0.5 * SECOND, "a young probe")
        await until(
            lambda: not any(server.clients(name) for name in ("tail", "append", "probe")),
            "nobody at the server that was left",
        )

    assert followed.follower.server_id == followed.appender.server_id
    assert len([each for each in caplog.messages if each.startswith("tail interrupted")]) == 1


async def test_an_address_that_led_elsewhere_for_a_moment_is_a_resync(
    mortal: Redis, other: Redis, merchant: str
) -> None:
    """Between two probes: an entry was stored where nobody reads it."""
    here, there = Server(mortal.url), Server(other.url)
    here.add(merchant)
    async with led(mortal.url) as proxy, following(proxy.url) as followed:
        await followed.watch(merchant)
        probe = followed.follower.probe
        probe.interval_s = SECOND
        before = probe.passed_at
        await until(lambda: probe.passed_at > before, "the last probe before it")
        proxy.lead_to(other.url)
        followed.appender.renew()
        await followed.appender.append(Notification(merchant))
        proxy.lead_to(mortal.url)
        followed.appender.renew()
        await followed.next()

    assert there.length(merchant) == 1
    assert [change.is_resync for change in followed.changes] == [True]
    assert followed.follower.server_id == followed.appender.server_id


async def test_no_browser_is_behind_a_server_that_was_left_while_it_froze(
    mortal: Redis, other: Redis, tmp_path: Path
) -> None:
    """The appender alone gives up the frozen server, and notices that another one is there."""
    other.cli("REPLICAOF", "127.0.0.1", str(mortal.port))
    settings = {"probe_interval_s": 0.2 * SECOND, "notify_timeout_s": SECOND}
    async with led(mortal.url) as proxy, AsyncExitStack() as stack:
        service = await asyncio.to_thread(Service.start, tmp_path, proxy.url, settings=settings)
        stack.callback(service.kill)
        publisher = await stack.enter_async_context(publishing(service.url))
        browsers = [await stack.enter_async_context(open_stream(service.url)) for _ in range(5)]
        for browser in browsers:
            await browser.next("refresh")
        await publisher.notify("42")
        other.cli("REPLICAOF", "NO", "ONE")
        proxy.lead_to(other.url)
        with frozen(mortal.process.pid):
            lost = await publisher.post(json={"merchant_id": "42"})
        told = await publisher.notify("42")
        for browser in browsers:
            await until(lambda: browser.refreshes[-1].id == told, "the refresh")  # noqa: B023

    assert lost.json()["outcome"] == "unknown"
