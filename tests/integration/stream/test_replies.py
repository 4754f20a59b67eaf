"""Error replies that say nothing of a stream: no right, a busy server, a server that is loading."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.notification import Notification
from sse_push.stream.replies import WHOSE, Whose
from tests.harness import plain_http
from tests.harness.keys import REVOCATIONS_KEY, stream_key
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.waiting import SECOND, program, until, wait_for
from tests.integration.stream.following import following, stripped
from tests.integration.stream.servers import Server, led
from tests.integration.stream.test_append import appending

READS = ["xrange", "xrevrange"]

OF_ANOTHER_SERVER = [
    f"{code} 1 b:1" for code, whose in WHOSE.items() if whose is Whose.WRONG_SERVER
]


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each for each in caplog.messages if each.startswith("redis refuses reads")]


@contextmanager
def busy(redis: Redis) -> Generator[None]:
    """Have a script run for as long as the context lasts."""
    redis.cli("CONFIG", "SET", "busy-reply-threshold", "20")
    command = [program("redis-cli", "valkey-cli"), "-p", str(redis.port)]
    with subprocess.Popen(
        [*command, "EVAL", "while true do end", "0"], stdout=subprocess.DEVNULL
    ) as script:
        wait_for(lambda: "BUSY" in redis.cli("GET", "x"), "the script")
        try:
            yield
        finally:
            redis.cli("SCRIPT", "KILL")
            script.wait(5 * SECOND)


@pytest.mark.parametrize("right", READS)
async def test_a_service_that_may_not_read_is_not_ready_and_says_so(
    mortal: Redis, merchant: str, tmp_path: Path, right: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", f"-{right}")
    uds = tmp_path / "push.sock"
    with Service.start(
        tmp_path, mortal.url, uds=uds, settings={"probe_interval_s": 0.1}
    ) as started:
        async with plain_http.at_socket(uds) as client:
            browser = client.stream("GET", "/events", params={"merchant_id": merchant})
            async with browser as opened:
                head = await anext(opened.aiter_text())
                Server(mortal.url).add(merchant)
                await until(lambda: "redis refuses reads" in started.log, "the warning")
                while (await client.get("/readyz")).status_code == 200:
                    assert "redis answers reads again" not in started.log
                mortal.cli("ACL", "SETUSER", "default", f"+{right}")
                await until(lambda: "redis answers reads again" in started.log, "the end of it")

    assert head
    assert started.log.count('message="redis refuses reads" cause="NOPERM') == 1, started.log


@pytest.mark.parametrize("right", READS)
async def test_a_read_that_is_refused_concludes_nothing_and_is_sent_again(
    mortal: Redis, merchant: str, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    caplog.set_level(logging.INFO)
    server, late = Server(mortal.url), f"{merchant}-late"
    server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.age_s < SECOND, "a probe")
        mortal.cli("ACL", "SETUSER", "default", f"-{right}")
        followed.follower.watch(late)
        added = server.add(merchant)
        await until(lambda: bool(followed.follower._refusals), "a refusal")
        age_s = followed.follower.age_s
        mortal.cli("ACL", "SETUSER", "default", f"+{right}")
        await followed.until_newest(added)
        await until(lambda: late in followed.newest, "the stream to be armed")
        await until(lambda: followed.follower.age_s < SECOND, "a probe")

    assert age_s == float("inf")
    (change,) = followed.changes
    assert stripped(change.entries) == [(added, Notification(merchant))]
    assert len(refusals(caplog)) == 1
    assert refusals(caplog)[0].startswith("redis refuses reads cause=NOPERM ")
    assert any(each.startswith("redis answers reads again after_s=") for each in caplog.messages)
    assert followed.follower.tally.reconnects == 0


async def test_a_probe_that_may_not_be_read_is_forgotten_with_its_connection(
    mortal: Redis,
) -> None:
    server = Server(mortal.url)
    async with following(mortal.url) as followed:
        await until(lambda: followed.follower.age_s < SECOND, "a probe")
        mortal.cli("ACL", "SETUSER", "default", "-xrevrange")
        await until(lambda: bool(followed.follower._refusals), "a refusal")
        (before,) = server.clients("tail")
        mortal.cli("CLIENT", "KILL", "ID", before)
        await until(lambda: before not in server.clients("tail") != [], "another connection")
        mortal.cli("ACL", "SETUSER", "default", "+xrevrange")
        await until(lambda: followed.follower.age_s < SECOND, "a probe")


async def test_a_stream_that_may_not_be_read_and_is_left_is_of_no_interest(
    mortal: Redis, merchant: str
) -> None:
    mortal.cli(
        "ACL", "SETUSER", "default", "resetkeys", f"~{stream_key(merchant)}", f"~{REVOCATIONS_KEY}"
    )
    mortal.cli("ACL", "SETUSER", "default", "~sse_push:{~*")
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        followed.follower.watch("no")
        await until(lambda: bool(followed.follower._refusals), "a refusal")
        newest = Server(mortal.url).add(merchant)
        await followed.until_newest(newest)
        followed.follower.unwatch("no")
        await until(lambda: followed.follower.age_s < SECOND, "a probe")


async def test_revocations_that_may_not_be_read_are_unknown_until_they_may(
    mortal: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    mortal.cli("ACL", "SETUSER", "default", "resetkeys", "~sse_push:{*")
    async with following(mortal.url) as followed:
        await until(lambda: bool(followed.follower._refusals), "a refusal")
        is_known = followed.follower.knows_revocations
        mortal.cli("ACL", "SETUSER", "default", "allkeys")
        Server(mortal.url).cli("XADD", REVOCATIONS_KEY, "*", "merchant_id", "42")
        await followed.until_known("42")
        await until(lambda: followed.follower.age_s < SECOND, "a probe")

    assert not is_known
    assert len(refusals(caplog)) == 1
    assert followed.follower.tally.reconnects == 0


async def test_a_busy_script_is_no_change_of_a_stream(
    mortal: Redis, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, late = Server(mortal.url), f"{merchant}-late"
    server.add(merchant)
    async with following(mortal.url, probe_deadline_s=10 * SECOND) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.age_s < SECOND, "a probe")
        with busy(mortal):
            followed.follower.watch(late)
            await until(lambda: bool(followed.follower._refusals), "a refusal")
        await until(lambda: late in followed.newest, "the stream to be armed")
        added = server.add(merchant)
        await followed.until_newest(added)

    assert followed.newest[late] is None
    (change,) = followed.changes
    assert stripped(change.entries) == [(added, Notification(merchant))]
    assert refusals(caplog)[0].startswith("redis refuses reads cause=BUSY ")
    assert len(refusals(caplog)) == 1


@pytest.mark.parametrize("reply", OF_ANOTHER_SERVER)
async def test_a_read_that_another_server_should_take_goes_over_a_new_connection(
    own_redis: Server, merchant: str, caplog: pytest.LogCaptureFixture, reply: str
) -> None:
    server, is_wrong = own_redis, True
    newest = server.add(merchant)

    def change(data: bytes) -> bytes:
        is_read = str(newest).encode() in data
        return f"-{reply}\r\n".encode() if is_wrong and is_read else data

    async with led(server.url) as proxy, following(proxy.url) as followed:
        proxy.change = change
        followed.follower.watch(merchant)
        await until(lambda: followed.follower.tally.reconnects > 1, "new connections")
        is_armed = merchant in followed.newest
        is_wrong = False
        await until(lambda: merchant in followed.newest, "the stream to be armed")

    assert not is_armed
    assert followed.changes == []
    told = [each for each in caplog.messages if each.startswith("tail interrupted")]
    assert told[0] == f"tail interrupted, reconnecting cause={reply}"


async def test_an_append_to_a_server_that_became_a_replica_is_not_published_and_the_next_is_stored(
    mortal: Redis, own_redis: Server, merchant: str
) -> None:
    async with led(mortal.url) as proxy, appending(proxy.url) as appender:
        await appender.append(Notification(merchant))
        mortal.cli("REPLICAOF", *own_redis.url.removeprefix("redis://").split("/")[0].split(":"))
        proxy.lead_to(own_redis.url)
        with pytest.raises(StreamUnavailable, match="READONLY") as failure:
            await appender.append(Notification(merchant))
        stored = await appender.append(Notification(merchant))

    assert failure.value.outcome == "not_published"
    assert str(stored.entry_id) in own_redis.cli("XRANGE", stream_key(merchant), "-", "+")
    assert own_redis.length(merchant) == 1


@pytest.mark.parametrize("reply", OF_ANOTHER_SERVER)
async def test_an_append_that_another_server_should_take_was_certainly_not_published(
    own_redis: Server, merchant: str, reply: str
) -> None:
    async with led(own_redis.url) as proxy, appending(proxy.url) as appender:
        await appender.append(Notification(merchant))
        of_each_command = f"-{reply}\r\n" * len(("XADD", "EXPIRE", "PUBLISH"))
        proxy.change = lambda _data: of_each_command.encode()
        with pytest.raises(StreamUnavailable, match=f"refused the entry: {reply}") as failure:
            await appender.append(Notification(f"{merchant}-other"))
        is_connected = appender._pool.at_hand is not None

    assert failure.value.outcome == "not_published"
    assert not is_connected
