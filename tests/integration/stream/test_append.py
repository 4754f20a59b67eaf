"""Adding notifications and revocations."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sse_push.access.grant import hash_claim
from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EventId, Notification
from sse_push.stream import Appender
from sse_push.stream.address import Address
from sse_push.stream.outcomes import Waiting
from tests.harness.ids import in_redis
from tests.harness.keys import KEYS, REVOCATIONS_KEY, stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import stopped
from tests.integration.stream.servers import Server, restart

LIFETIME_S = 3600.0


class CountingAppender(Appender):
    """Notes how many notifications went out in each round trip."""

    def __init__(self, url: str, timeout_s: float, max_entries: int, ttl_s: float) -> None:
        super().__init__(
            Address.parse(url),
            KEYS,
            timeout_s=timeout_s,
            stream_max_entries=max_entries,
            stream_ttl_s=ttl_s,
            revocation_lifetime_s=LIFETIME_S,
        )
        self.batches: list[int] = []

    async def _commit(self, batch: list[Waiting]) -> None:
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
        assert not task.done(), "an appender runs for ever"
    finally:
        await stopped(task)


async def test_an_entry_has_the_fields_of_its_notification(server: Server, merchant: str) -> None:
    async with appending(server.url) as appender:
        entry_id = await appender.append(Notification(merchant, "seats", '{"a":1}', "tab"))
        empty_id = await appender.append(Notification(merchant))

    assert server.cli("XRANGE", stream_key(merchant), "-", "+").splitlines() == [
        *(str(entry_id.entry_id), "topic", "seats", "data", '{"a":1}', "by", "tab"),
        *(str(empty_id.entry_id), "topic"),
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


async def test_notifications_that_arrive_during_a_round_trip_are_the_next_batch(
    own_redis: Server, merchant: str
) -> None:
    async with appending(own_redis.url) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        first = asyncio.create_task(appender.append(Notification(merchant)))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        waiting = [
            asyncio.create_task(appender.append_all([Notification(merchant)] * count))
            for count in (1, 1, 1, 3, 1, 1, 1, 1, 1, 1)
        ]
        await asyncio.sleep(0)  # they have begun
        waiting[3].cancel()
        own_redis.cli("CLIENT", "UNPAUSE")
        await asyncio.wait([first, *waiting])

    assert appender.batches == [1, 1, 9]
    assert [task.cancelled() for task in waiting].count(True) == 1
    assert own_redis.length(merchant) == 11


async def test_an_empty_request_has_no_results(own_redis: Server) -> None:
    async with appending(own_redis.url) as appender:
        assert await appender.append_all([]) == []

    assert appender.batches == []


async def test_nothing_of_a_record_is_kept_once_its_caller_has_the_result(
    server: Server, merchant: str
) -> None:
    async with appending(server.url) as appender:
        await appender.append_all([Notification(merchant)] * 2)

        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Waiting)]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_caller_that_leaves_during_the_round_trip_harms_no_other(
    own_redis: Server, merchant: str, *, is_lost: bool
) -> None:
    async with appending(own_redis.url) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        leaving = asyncio.create_task(appender.append(Notification(merchant)))
        staying = asyncio.create_task(appender.append_all([Notification(merchant)]))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        leaving.cancel()
        await asyncio.wait([leaving])
        if is_lost:
            own_redis.cli("CLIENT", "KILL", "ID", *own_redis.clients("append"))
            await asyncio.wait([staying])
        own_redis.cli("CLIENT", "UNPAUSE")
        (result,) = await staying

    assert appender.batches == [1, 2]
    if is_lost:
        assert isinstance(result, StreamUnavailable)
        assert result.outcome == "unknown"
    else:
        assert isinstance(result, EventId)
        assert own_redis.length(merchant) == 3


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
    assert isinstance(first, EventId)
    assert isinstance(second, EventId)
    assert isinstance(refused, StreamUnavailable)
    assert refused.outcome == "not_published"
    assert appender.tally.faults == {"exhausted": 0, "not_a_stream": 2}
    assert server.length(merchant) == 2


GREATEST = f"{2**64 - 1}-{2**64 - 1}"


async def test_a_stream_with_the_greatest_id_takes_nothing_until_what_the_error_says_is_done(
    server: Server, merchant: str
) -> None:
    """Somebody has added it by hand; no ID is higher."""
    key = stream_key(merchant)
    server.cli("XADD", key, GREATEST, "at", "1")
    async with appending(server.url) as appender:
        with pytest.raises(StreamUnavailable, match="exhausted") as refused:
            await appender.append(Notification(merchant))
        assert str(refused.value).endswith(f"; DEL {key} in Redis ends that")

        server.cli("DEL", key)
        await appender.append(Notification(merchant))

    assert refused.value.outcome == "not_published"
    assert appender.tally.faults == {"exhausted": 1, "not_a_stream": 0}


async def test_revocations_that_can_not_be_added_say_what_to_do(server: Server) -> None:
    server.cli("DEL", REVOCATIONS_KEY)
    server.cli("XADD", REVOCATIONS_KEY, GREATEST, "merchant_id", "43")
    async with appending(server.url) as appender:
        with pytest.raises(StreamUnavailable, match=f"exhausted.*; DEL {REVOCATIONS_KEY} in Redis"):
            await appender.append(Revocation("44"))
        server.cli("DEL", REVOCATIONS_KEY)
        await appender.append(Revocation("44"))

    assert appender.tally.faults == {"exhausted": 1, "not_a_stream": 0}


async def test_a_revocation_goes_out_with_the_notifications_that_wait(
    clear: Server, merchant: str
) -> None:
    async with appending(clear.url) as appender:
        first, revoked, second = await appender.append_all(
            [Notification(merchant), Revocation.naming("42", "t", "u"), Notification(merchant)]
        )

    assert appender.batches == [3]
    assert appender.tally.outcomes == {"stored": 2, "not_published": 0, "unknown": 0}
    assert isinstance(first, EventId)
    assert isinstance(second, EventId)
    assert isinstance(revoked, EventId)
    assert clear.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines() == [
        *(str(revoked.entry_id), "merchant_id", "42"),
        *("jti_hash", hash_claim("t").hex(), "sub_hash", hash_claim("u").hex()),
    ]
    assert LIFETIME_S * 1000 < int(clear.cli("PTTL", REVOCATIONS_KEY)) <= LIFETIME_S * 1000 + 60_000
    assert clear.length(merchant) == 2


async def test_revocations_are_trimmed_by_the_time_of_redis_once_they_have_expired(
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
        *(str(newest.entry_id), "merchant_id", "new"),
    ]
    assert left.count("old") < 200  # approximately: whole nodes only


async def test_revocations_are_trimmed_to_the_newest_once_they_are_too_many(
    clear: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.contract.REVOCATIONS_MAX", 300)
    clear.cli(script=f"XADD {REVOCATIONS_KEY} * merchant_id old\n" * 1000)
    async with appending(clear.url) as appender:
        await appender.append_all([Revocation("new")] * 2)

    length = int(clear.cli("XLEN", REVOCATIONS_KEY))
    assert 300 <= length <= 400, "approximately: whole nodes only"


async def test_a_revocation_is_added_without_trimming_if_redis_refuses_its_time(
    own_redis: Server, merchant: str
) -> None:
    own_redis.cli("DEL", REVOCATIONS_KEY)
    own_redis.cli(script=f"XADD {REVOCATIONS_KEY} 1-* merchant_id old\n" * 500)
    own_redis.cli("ACL", "SETUSER", "timeless", "on", ">pw", "~*", "&*", "+@all", "-time")
    url = own_redis.url.replace("redis://", "redis://timeless:pw@")
    async with appending(url) as appender:
        results = await appender.append_all([Revocation("new"), Notification(merchant)])

    assert [type(result) for result in results] == [EventId, EventId]
    assert own_redis.cli("XLEN", REVOCATIONS_KEY) == "501"


async def test_a_revocation_that_waits_for_the_time_is_not_published(mortal: Redis) -> None:
    async with appending(mortal.url, timeout_s=0.3 * SECOND) as appender:
        await appender.append(Revocation("a"))
        with (
            frozen(mortal.process.pid),
            pytest.raises(StreamUnavailable, match="expected an answer from Redis") as failure,
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

    assert isinstance(taken, EventId)
    assert isinstance(refused, StreamUnavailable)
    assert refused.outcome == "not_published"


async def test_a_stream_is_trimmed_to_about_its_limit(server: Server, merchant: str) -> None:
    async with appending(server.url, max_entries=100) as appender:
        results = await appender.append_all([Notification(merchant)] * 1000)

    assert 100 <= server.length(merchant) < 200
    newest = server.cli("XREVRANGE", stream_key(merchant), "+", "-", "COUNT", "1").splitlines()[0]
    assert isinstance(results[-1], EventId)
    assert newest == str(results[-1].entry_id)


async def test_a_lifetime_is_renewed_now_and_then_and_not_with_each_entry(
    server: Server, merchant: str
) -> None:
    server.cli("CONFIG", "RESETSTAT")
    async with appending(server.url, ttl_s=1000) as appender:
        for _ in range(5):
            await appender.append(Notification(merchant))
        await appender.append_all([Notification(merchant)] * 5)
        await appender.append(Notification(f"{merchant}-other"))

    assert server.calls("xadd") == 11
    assert server.calls("expire") == 3, "several entries at once get a lifetime, see Appender"
    assert 1000 < int(server.cli("TTL", stream_key(merchant))) <= 1100
    assert 1000 < int(server.cli("TTL", stream_key(f"{merchant}-other"))) <= 1100


@pytest.mark.parametrize("loss", [["DEL"], ["FLUSHALL"], ["PEXPIRE", "0"]])
async def test_a_stream_that_begins_anew_has_a_lifetime_whoever_deleted_it(
    mortal: Redis, merchant: str, loss: list[str]
) -> None:
    server = Server(mortal.url)
    key = stream_key(merchant)
    name, *arguments = loss
    async with appending(server.url, ttl_s=1000) as appender:
        await appender.append(Notification(merchant))
        server.cli(name, *([] if name == "FLUSHALL" else [key]), *arguments)
        entry_id = await appender.append(Notification(merchant, "again"))
        lifetime_s = int(server.cli("TTL", key))
        next_id = await appender.append(Notification(merchant))

    assert 1000 < lifetime_s <= 1100
    assert server.cli("XRANGE", key, "-", "+").splitlines() == [
        *(str(entry_id.entry_id), "topic", "again"),
        *(str(next_id.entry_id), "topic"),
    ]


async def test_entries_of_a_stream_that_is_gone_keep_their_order_among_others(
    server: Server, merchant: str
) -> None:
    other = f"{merchant}-other"
    async with appending(server.url, ttl_s=1000) as appender:
        await appender.append_all([Notification(merchant), Notification(other)])
        server.cli("DEL", stream_key(merchant))
        results = await appender.append_all(
            [
                Notification(merchant, "1"),
                Notification(other),
                Notification(merchant, "2"),
                Notification(merchant, "3"),
            ]
        )

    ids = [results[number] for number in (0, 2, 3)]
    assert server.cli("XRANGE", stream_key(merchant), "-", "+").splitlines() == [
        text
        for number, each in enumerate(ids, 1)
        for text in (in_redis(str(each)), "topic", str(number))
    ]
    assert server.length(other) == 2
    assert 1000 < int(server.cli("TTL", stream_key(merchant))) <= 1100


async def test_a_stream_that_is_gone_holds_up_no_other_of_its_round_trip(
    server: Server, merchant: str
) -> None:
    names = [f"{merchant}-{number}" for number in range(3)]
    async with appending(server.url, ttl_s=1000) as appender:
        await appender.append_all([Notification(name) for name in names])
        server.cli("DEL", stream_key(names[1]))
        server.cli("CONFIG", "RESETSTAT")
        results = await appender.append_all([Notification(name) for name in names])

    assert all(isinstance(result, EventId) for result in results)
    assert [server.length(name) for name in names] == [2, 1, 2]
    assert (server.calls("xadd"), server.calls("expire")) == (4, 1)


async def test_an_entry_of_a_stream_that_is_gone_stays_before_those_that_arrived_later(
    own_redis: Server, merchant: str
) -> None:
    async with appending(own_redis.url, ttl_s=1000) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("DEL", stream_key(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        first = asyncio.create_task(appender.append(Notification(merchant, "1")))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        second = asyncio.create_task(appender.append(Notification(merchant, "2")))
        await asyncio.sleep(0)  # it has begun
        own_redis.cli("CLIENT", "UNPAUSE")
        assert (await first).entry_id < (await second).entry_id

    assert own_redis.length(merchant) == 2


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
        connection = appender._pool.at_hand
        assert connection is not None
        server.cli("CLIENT", "KILL", "ID", *server.clients("append"))
        await until(lambda: not connection.is_quiet, "the end of the connection")
        await appender.append(Notification(merchant))

    assert server.length(merchant) == 2


async def test_the_outcome_is_unknown_if_the_connection_is_lost_after_sending(
    own_redis: Server, merchant: str
) -> None:
    async with appending(own_redis.url) as appender:
        await appender.append(Notification(merchant))
        own_redis.cli("CLIENT", "PAUSE", "60000", "WRITE")
        sent = asyncio.create_task(appender.append(Notification(merchant)))
        await until(lambda: appender.is_on_its_way, "the batch to be sent")
        own_redis.cli("CLIENT", "KILL", "ID", *own_redis.clients("append"))
        with pytest.raises(
            StreamUnavailable, match="expected an answer from Redis, got none"
        ) as failure:
            await sent
        own_redis.cli("CLIENT", "UNPAUSE")
        await appender.append(Notification(merchant))

    assert failure.value.outcome == "unknown"
    assert own_redis.length(merchant) == 2


async def test_notifications_are_refused_without_redis_and_stored_once_it_is_back(
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


async def test_a_notification_that_was_answered_not_published_is_never_stored(
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


async def test_more_notifications_than_may_wait_are_refused_at_once(
    own_redis: Server, merchant: str
) -> None:
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
