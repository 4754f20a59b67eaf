"""The proof that changes are announced, and what follows if there is none."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from contextlib import nullcontext

import pytest

from sse_push.notification import Notification
from sse_push.stream.probe import Deaf
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import Followed, following, stripped
from tests.integration.stream.servers import Server, proxied, without_announcements


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
            await until(lambda: followed.follower.probe.age_s > SECOND, "an old probe")
        added = server.add(merchant)
        (change,) = await followed.next()
        await until(lambda: followed.follower.probe.age_s < 0.5 * SECOND, "a young probe")
        after = server.clients("tail")

    assert change.newest == added
    assert stripped(change.entries) == [(added, Notification(merchant))]
    assert len(before) == len(after) == 1
    assert before != after


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
    assert messages[1].startswith("redis takes no writes cause=NOREPLICAS ")
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
