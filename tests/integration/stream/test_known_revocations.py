"""Following the stream of revocations."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import EntryId
from sse_push.stream.connection import (
    Announcement,
)
from sse_push.stream.contract import RevokeCommands
from sse_push.stream.reads import PAGE_ENTRIES
from sse_push.stream.revocations import Knowledge
from sse_push.stream.rounds import SWEEP_S
from sse_push.stream.schedule import Schedule
from tests.harness.keys import REVOCATIONS_KEY
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, restart


def revoke(server: Server, *names: str, at: str = "*") -> list[EntryId]:
    """Add revocations of these merchants as one command each, all in one go."""
    adds = "".join(f"XADD {REVOCATIONS_KEY} {at} merchant_id {name}\n" for name in names)
    return [EntryId.parse(line) for line in server.cli(script=adds).splitlines()]


async def test_revocations_are_passed_on_from_the_oldest_with_their_times(clear: Server) -> None:
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
        (Revocation.naming("c", "t", "u"), ids[2].ms / 1000),
    ]


async def test_a_missing_stream_of_revocations_is_known_to_be_empty(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        revoke(clear, "a")
        await followed.until_known("a")


async def test_more_revocations_than_one_answer_holds_are_all_passed_on(clear: Server) -> None:
    names = [f"m{number}" for number in range(2 * PAGE_ENTRIES + 10)]
    revoke(clear, *names)
    async with following(clear.url) as followed:
        await followed.until_known(*names)
        more = [f"n{number}" for number in range(2 * PAGE_ENTRIES)]
        revoke(clear, *more)
        await followed.until_known(*more)

    assert followed.revoked_names == names + more


async def test_a_stream_as_long_as_it_may_be_revokes_all_that_is_older(
    clear: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.revocations.REVOCATIONS_MAX", 70)
    ids = revoke(clear, *[f"m{number}" for number in range(70)])
    async with following(clear.url) as followed:
        await followed.until_known("m0", "m69")

    assert followed.dropped == [ids[0].ms / 1000]


async def test_a_malformed_revocation_is_skipped(
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
async def test_revocations_after_a_loss_of_the_stream_are_passed_on(
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


async def test_a_revocation_during_an_interruption_is_passed_on_after_it(
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


async def test_revocations_are_unknown_while_redis_does_not_answer(mortal: Redis) -> None:
    async with following(mortal.url, probe_deadline_s=0.5 * SECOND) as followed:
        await followed.until_known()
        with frozen(mortal.process.pid):
            await until(lambda: not followed.follower.knows_revocations, "the silence")
        await followed.until_known()


async def test_revocations_are_unknown_if_the_last_proof_is_too_old(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        follower = followed.follower
        follower.probe.passed_at = time.monotonic() - 6 * SECOND
        assert follower.knows_revocations, "they were read lately"
        follower.revocations._read_at = follower.probe.passed_at
        assert not follower.knows_revocations
        await followed.until_known()  # the next probe


async def test_a_caller_waits_while_revocations_are_read(clear: Server) -> None:
    revoke(clear, "a")
    async with following(clear.url) as followed:
        assert not followed.follower.knows_revocations
        assert await followed.follower.wait_for_revocations(5 * SECOND)
        assert followed.revoked_names == ["a"]
        assert await followed.follower.wait_for_revocations(0), "they are known already"


async def test_a_caller_waits_for_revocations_no_longer_than_its_timeout(mortal: Redis) -> None:
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


async def test_revocations_are_known_while_redis_takes_no_writes(mortal: Redis) -> None:
    """Nothing proves then that a change is announced, so they are read again and again."""
    server = Server(mortal.url)
    async with following(mortal.url, probe_deadline_s=0.3 * SECOND) as followed:
        await followed.until_known()
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: followed.follower.probe.age_s > SECOND, "an old probe")
        is_known = followed.follower.knows_revocations
        mortal.cli("CONFIG", "SET", "min-replicas-to-write", "0")
        revoke(server, "a")
        await followed.until_known("a")

    assert is_known


async def test_a_key_of_another_type_makes_revocations_unknown_and_is_logged_once(
    clear: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clear.cli("SET", REVOCATIONS_KEY, "1")
    async with following(clear.url) as followed:
        await until(
            lambda: followed.follower.revocations._tail.knowledge is Knowledge.UNREADABLE,
            "an error",
        )
        await until(lambda: followed.follower.probe.age_s < SECOND, "a probe to come back")
        is_known = followed.follower.knows_revocations
        clear.cli("SET", REVOCATIONS_KEY, "2")
        await until(
            lambda: followed.follower.revocations._tail.schedule is Schedule.IDLE, "another read"
        )
        clear.cli("DEL", REVOCATIONS_KEY)
        revoke(clear, "a")
        await followed.until_known("a")

    assert not is_known
    assert caplog.text.count("revocations can't be read cause=WRONGTYPE") == 1


async def test_an_announcement_of_an_unknown_key_is_ignored(clear: Server) -> None:
    async with following(clear.url) as followed:
        await followed.until_known()
        followed.follower._heard.announced(Announcement([b"sse_push:another"]))

        assert followed.follower.revocations._tail.schedule is Schedule.IDLE
        assert followed.follower.knows_revocations


async def test_revocations_without_the_right_to_read_are_tried_again(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-xrange")
    async with following(mortal.url) as followed:
        await until(
            lambda: followed.follower.revocations._tail.knowledge is Knowledge.UNREADABLE,
            "an error",
        )
        mortal.cli("ACL", "SETUSER", "default", "+xrange")  # which nothing announces
        await followed.until_known()


async def test_a_revocation_that_was_not_announced_is_found_by_the_sweep(
    clear: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SWEEP_S, "tracking", 0.5 * SECOND)
    async with following(clear.url) as followed:
        await followed.until_known()
        pipeline = followed.follower._pipeline
        monkeypatch.setattr(pipeline, "_on_announcement", lambda _announcement: None)
        revoke(clear, "a")
        await until(lambda: followed.revoked_names == ["a"], "the sweep")


async def test_a_revocation_whose_id_was_used_before_is_passed_on(clear: Server) -> None:
    key = REVOCATIONS_KEY
    clear.cli("XADD", key, "5-1", "merchant_id", "a")
    async with following(clear.url) as followed:
        await followed.until_known("a")
        clear.cli(script=f"MULTI\nDEL {key}\nXADD {key} 5-1 merchant_id b\nEXEC")
        await until(lambda: followed.revoked_names == ["a", "b"], "the second revocation")


@pytest.mark.parametrize("seed", range(3))
async def test_no_revocation_is_overlooked_in_losses_and_interruptions(
    clear: Server, seed: int
) -> None:
    """Adds as our own appender makes them, single or many; losses, and connections killed."""
    chance = random.Random(seed)
    commands = RevokeCommands(REVOCATIONS_KEY, 60)
    added: list[str] = []
    lost: set[str] = set()

    def add(count: int) -> None:
        names = [f"m{len(added) + number}" for number in range(count)]
        adds = [commands.of(Revocation(name), now_s=0) for name in names]
        clear.cli(script="\n".join(" ".join(map(str, each)) for both in adds for each in both))
        added.extend(names)

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
                lost.update(set(added) - set(followed.revoked_names))
                script = "DEL {}" if kind == "lose" else "XTRIM {} MAXLEN 1"
                clear.cli(script=script.format(REVOCATIONS_KEY))
            await asyncio.sleep(0)
        add(1)
        await until(
            lambda: (
                set(added) - lost <= set(followed.revoked_names)
                and followed.follower.knows_revocations
            ),
            "all revocations",
        )
