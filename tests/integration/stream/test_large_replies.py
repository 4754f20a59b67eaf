"""Merchants whose entries are too large, and a server that bounds its output: others are served."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import pytest

from sse_push.notification import Change
from sse_push.stream.standing import Standings
from tests.harness.keys import REVOCATIONS_KEY, stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import MB, Followed, following, stripped
from tests.integration.stream.servers import Server, led


def add_large(server: Server, key: str, size: int) -> None:
    """Add an entry of this size to a stream, as a backend may that never calls HTTP."""
    script = (
        "local field = string.rep('x', ARGV[1]) "
        "redis.call('XADD', KEYS[1], '*', 'f0', field, 'f1', field, 'f2', field)"
    )
    server.cli("EVAL", script, "1", key, str(size // 3))


class Clock:
    """The real clock, which may be put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def sent_bytes(server: Server) -> int:
    """Return how much a server has written to all its connections."""
    lines = server.cli("INFO", "stats").splitlines()
    line = next(line for line in lines if line.startswith("total_net_output_bytes:"))
    return int(line.partition(":")[2])


async def assert_delivers(followed: Followed, server: Server, merchants: Sequence[str]) -> None:
    """See that a change of each merchant arrives."""
    newest = {merchant: server.add(merchant) for merchant in merchants}
    await until(
        lambda: {(each.merchant_id, each.newest) for each in followed.changes} >= newest.items(),
        f"a change of each of {len(merchants)} merchants",
    )


@pytest.fixture
def narrow(mortal: Redis) -> Server:
    """A server that ends a connection for which more than 1 MB of output waits."""
    server = Server(mortal.url)
    server.cli("CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0")
    return server


async def test_merchants_whose_replies_together_exceed_the_output_limit_are_read_again(
    narrow: Server, merchant: str
) -> None:
    merchants = [f"{merchant}-{number}" for number in range(300)]
    script = "\n".join(f'XADD {stream_key(each)} * data "{"1" * 8000}"' for each in merchants)
    narrow.cli(script=script)
    async with following(narrow.url) as followed:
        await followed.watch(*merchants)

        narrow.cli("CLIENT", "KILL", "ID", *narrow.clients("tail"))
        await until(lambda: followed.follower.tally.reconnects > 0, "another connection")
        await assert_delivers(followed, narrow, merchants)

    assert followed.follower.tally.reconnects == 1


async def test_merchants_are_served_while_the_large_entry_of_another_is_put_off(
    server: Server, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    others = [f"{merchant}-{number}" for number in range(20)]
    async with following(server.url) as followed:
        await followed.watch(merchant, *others)
        before = sent_bytes(server)

        add_large(server, stream_key(merchant), 40 * MB)
        await until(lambda: Change(merchant, None, is_resync=True) in followed.changes, "a resync")
        await assert_delivers(followed, server, others)
        add_large(server, stream_key(merchant), 40 * MB)
        await until(
            lambda: followed.changes.count(Change(merchant, None, is_resync=True)) == 2,
            "another resync, without a look at the entry",
        )
        await assert_delivers(followed, server, others)

    assert followed.follower.tally.reconnects == 1
    assert followed.follower.tally.tail.resyncs["too_large"] == 2
    assert sent_bytes(server) - before < 20 * MB
    lines = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len([line for line in lines if f"merchant_id={merchant} " in line]) == 1


async def test_a_merchant_is_served_again_once_its_large_entry_is_gone(
    server: Server, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    async with following(server.url) as followed:
        followed.follower._aside.standings = Standings(clock)
        await followed.watch(merchant)
        add_large(server, stream_key(merchant), 4 * MB)
        (at_first,) = await followed.next()

        server.cli("DEL", stream_key(merchant))
        (_, gone) = await followed.next(2)
        clock.ahead_s += 15  # its pause is over
        back = server.add(merchant)
        await followed.until_newest(back)
        clock.ahead_s += 700
        again = server.add(merchant)
        await followed.until_newest(again)
        await until(lambda: not followed.follower._aside.standings.records, "to be trusted")
        last = server.add(merchant)
        await followed.until_newest(last)

    assert at_first == gone == Change(merchant, None, is_resync=True)
    assert [each.newest for each in followed.changes[2:]] == [back, again, last]
    assert [stripped(each.entries)[0][0] for each in followed.changes[3:]] == [again, last]
    assert caplog.records[-1].getMessage() == f"stream is read again merchant_id={merchant}"


async def test_merchants_are_served_if_the_server_refuses_to_send_what_another_has(
    narrow: Server, merchant: str
) -> None:
    """The reply never arrives: of those that were on their way, each is read alone."""
    others = [f"{merchant}-{number}" for number in range(100)]
    async with following(narrow.url, reply_limit_bytes=100 * MB) as followed:
        await followed.watch(merchant, *others)

        add_large(narrow, stream_key(merchant), 3 * MB)
        await assert_delivers(followed, narrow, others)
        await until(lambda: Change(merchant, None, is_resync=True) in followed.changes, "a resync")
        await assert_delivers(followed, narrow, others)

    assert followed.follower.tally.reconnects == 1


async def test_a_process_that_starts_serves_the_merchants_beside_a_large_one(
    server: Server, merchant: str
) -> None:
    others = [f"{merchant}-{number}" for number in range(50)]
    add_large(server, stream_key(merchant), 10 * MB)
    async with following(server.url) as followed:
        await followed.watch(*others[:25], merchant, *others[25:])
        await assert_delivers(followed, server, others)
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        add_large(server, stream_key(merchant), 10 * MB)
        await until(lambda: Change(merchant, None, is_resync=True) in followed.changes, "a resync")

    assert followed.newest[merchant] is None
    assert followed.follower.tally.reconnects <= 1


async def test_merchants_are_served_while_several_others_have_large_entries(
    server: Server, merchant: str
) -> None:
    """Each of the large ones costs one connection, and only once."""
    others = [f"{merchant}-{number}" for number in range(20)]
    large = [f"{merchant}-large-{number}" for number in range(3)]
    async with following(server.url) as followed:
        await followed.watch(*others, *large)
        for _ in range(2):
            for each in large:
                add_large(server, stream_key(each), 3 * MB)
            await until(
                lambda: {each.merchant_id for each in followed.changes} >= set(large), "resyncs"
            )
            followed.changes.clear()
            await assert_delivers(followed, server, others)

    assert followed.follower.tally.reconnects <= len(large)


async def test_a_stream_whose_entries_are_too_large_together_is_read_by_its_newest(
    server: Server, merchant: str
) -> None:
    clock = Clock()
    command = f"XADD {stream_key(merchant)} * at 1"
    command += "".join(f" f{number} {'x' * 9000}" for number in range(20))
    async with following(server.url) as followed:
        followed.follower._aside.standings = Standings(clock)
        await followed.watch(merchant)
        server.add(merchant)
        await followed.next()
        server.cli(script="\n".join(["MULTI", *[command] * 10, "EXEC"]))
        await followed.next(2)
        clock.ahead_s += 15
        last = server.add(merchant)
        await followed.until_newest(last)

    assert [change.is_resync for change in followed.changes] == [False, True, False]


async def test_what_was_missed_of_a_large_stream_is_unknown_and_harms_nobody(
    server: Server, merchant: str
) -> None:
    other = f"{merchant}-other"
    first = server.add(merchant)
    add_large(server, stream_key(merchant), 10 * MB)
    last = server.add(merchant)
    async with following(server.url) as followed:
        await followed.watch(merchant, other)

        missed = await followed.follower.between(merchant, first, last)
        await assert_delivers(followed, server, [other])
        missed_again = await followed.follower.between(merchant, first, last)
        await assert_delivers(followed, server, [other])

    assert missed is None
    assert missed_again is None
    assert followed.follower.tally.reconnects == 1


async def test_merchants_are_served_while_a_revocation_is_too_large(
    clear: Server, merchant: str
) -> None:
    clock = Clock()
    async with following(clear.url) as followed:
        followed.follower._aside.standings = Standings(clock)
        await followed.watch(merchant)
        await followed.until_known()

        add_large(clear, REVOCATIONS_KEY, 10 * MB)
        await until(lambda: not followed.follower.knows_revocations, "not to be known")
        await assert_delivers(followed, clear, [merchant])
        knows = followed.follower.knows_revocations
        clear.cli("DEL", REVOCATIONS_KEY)
        clock.ahead_s += 15
        clear.cli("XADD", REVOCATIONS_KEY, "*", "merchant_id", "7")
        await followed.until_known("7")

    assert not knows
    assert followed.follower.tally.reconnects == 1


async def test_a_large_entry_in_the_stream_of_the_probe_costs_one_connection(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")

        add_large(server, followed.follower.probe.key.decode(), 10 * MB)
        await until(lambda: followed.follower.tally.reconnects > 0, "another connection")
        await until(lambda: followed.follower.probe.age_s < 0.1 * SECOND, "a young probe")
        await assert_delivers(followed, server, [merchant])

    assert followed.follower.tally.reconnects == 1


async def test_a_large_reply_that_arrives_slowly_is_no_silence(
    own_redis: Server, merchant: str
) -> None:
    """It takes longer than a probe may take; of what has arrived, nothing is thrown away."""
    async with (
        led(own_redis.url) as proxy,
        following(proxy.url, probe_deadline_s=0.5 * SECOND) as followed,
    ):
        await followed.watch(merchant)
        proxy.reply_bytes_per_s = 0.3 * MB / SECOND
        add_large(own_redis, stream_key(merchant), int(0.6 * MB))
        (change,) = await followed.next()
        proxy.reply_bytes_per_s = math.inf
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")

    assert not change.is_resync
    assert followed.follower.tally.reconnects == 0
