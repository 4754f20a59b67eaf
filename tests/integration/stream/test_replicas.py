"""Notifications that are answered only once replicas have them, and replicas that lag."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EventId, Notification
from sse_push.stream import Appender
from sse_push.stream.address import Address
from sse_push.stream.keys import probe_merchant
from sse_push.stream.outcomes import Record, Waiting
from sse_push.stream.pool import Pool
from sse_push.stream.reads import ProbeEntry
from sse_push.stream.replicas import Replicas
from tests.harness.cluster import clustered
from tests.harness.documents import text
from tests.harness.keys import KEYS, REVOCATIONS_KEY, stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import serving
from tests.harness.stream import publishing
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import following, stopped
from tests.integration.stream.in_cluster import in_cluster
from tests.integration.stream.servers import Server, follow

LAG_S = 0.5 * SECOND
"""How long a caller waits where a replica lags on purpose."""

ENOUGH_S = 60 * SECOND
"""How long a caller waits where nothing is to fail."""

AT_ONCE = 2
"""So many connections wait at a time."""

OPERATIONS = text("sse_push/docs/operations.md")

PROBE = ProbeEntry(probe_merchant("0"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Redis]]:
    """A primary and two replicas, which are to be well again after each test."""
    started = [Redis.start(tmp_path_factory.mktemp(name)) for name in ("primary", "one", "two")]
    started[0].cli("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    for replica in started[1:]:
        follow(replica, started[0])
    yield started
    for each in started:
        each.kill()


@pytest.fixture
def primary(servers: list[Redis]) -> Server:
    return Server(servers[0].url)


@asynccontextmanager
async def appending(url: str, count: int, timeout_s: float = ENOUGH_S) -> AsyncGenerator[Appender]:
    appender = Appender(
        Address.parse(url),
        KEYS,
        timeout_s=timeout_s,
        stream_max_entries=100,
        stream_ttl_s=1000,
        revocation_lifetime_s=1000,
        wait_replicas=count,
    )
    task = asyncio.create_task(appender.run())
    try:
        yield appender
        assert not task.done(), "an appender runs for ever"
    finally:
        await stopped(task)


@asynccontextmanager
async def lagging(*servers: Redis) -> AsyncGenerator[None]:
    """Freeze replicas, and see them go on again."""
    first, *others = servers
    with frozen(first.process.pid):
        if others:
            async with lagging(*others):
                yield
        else:
            yield
    await until(first.answers, "the replica to go on")


async def outcome_of(appender: Appender, record: Record) -> str:
    (result,) = await appender.append_all([record])
    return result.outcome if isinstance(result, StreamUnavailable) else "stored"


async def until_length(server: Server, merchant: str, length: int) -> None:
    await until(lambda: server.length(merchant) == length, f"{length} entries of {merchant}")


def task_of(appender: Appender, merchant: str) -> asyncio.Task[str]:
    return asyncio.create_task(outcome_of(appender, Notification(merchant)))


@pytest.mark.parametrize("record", [Notification("w"), Revocation("w")], ids=["notify", "revoke"])
async def test_what_is_answered_is_in_all_replicas_that_are_asked_for(
    servers: list[Redis], record: Record
) -> None:
    key = REVOCATIONS_KEY if isinstance(record, Revocation) else stream_key("w")
    async with appending(servers[0].url, 2) as appender:
        for _ in range(20):
            event_id = await appender.append(record)
            for replica in servers[1:]:
                newest = replica.cli("XREVRANGE", key, "+", "-", "COUNT", "1").splitlines()[0]
                assert newest == str(event_id.entry_id)


async def test_without_the_setting_nobody_waits(primary: Server, merchant: str) -> None:
    primary.cli("CONFIG", "RESETSTAT")
    async with appending(primary.url, 0) as appender:
        await appender.append_all([Notification(merchant)] * 3)
        assert len(primary.clients("append")) == 1

    assert (primary.calls("xadd"), primary.calls("wait")) == (3, 0)


async def test_records_that_go_out_together_wait_once_and_a_probe_does_not(
    primary: Server, merchant: str
) -> None:
    primary.cli("CONFIG", "RESETSTAT")
    async with appending(primary.url, 1) as appender:
        await appender.append_all([Notification(merchant)] * 50)
        await appender.append(PROBE)
        assert len(primary.clients("append")) == 1

    assert (primary.calls("xadd"), primary.calls("wait")) == (51, 1)


async def test_an_entry_that_a_replica_lacks_is_unknown_and_stored_once(
    servers: list[Redis], primary: Server, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with appending(primary.url, 2, 3 * LAG_S) as appender:
        assert await outcome_of(appender, Notification(merchant)) == "stored"
        async with lagging(servers[2]):
            results = [
                *await appender.append_all([Notification(merchant)]),
                *await appender.append_all([Notification(merchant)]),
            ]
        await until_length(Server(servers[2].url), merchant, 3)
        assert await outcome_of(appender, Notification(merchant)) == "stored"

    text = "expected 2 replica(s) to have the entry in time, got 1"
    assert [str(each) for each in results] == [text] * 2
    assert appender.tally.outcomes == {"stored": 2, "not_published": 0, "unknown": 2}
    assert primary.length(merchant) == 4
    said = [each for each in caplog.messages if "replica" in each]
    assert said[0] == "too few replicas have new entries expected=2 got=1"
    assert said[1].startswith("replicas have new entries again after_s=")
    assert len(said) == 2


async def test_a_replica_more_than_is_asked_for_may_lag(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 1) as appender, lagging(servers[1]):
        async with asyncio.timeout(ENOUGH_S / 4):
            await appender.append(Notification(merchant))

    assert Server(servers[2].url).length(merchant) == 1


async def test_others_are_added_while_some_wait_up_to_a_bound_and_the_rest_is_not_published(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    late = f"{merchant}-late"
    async with appending(primary.url, 2, 3 * LAG_S) as appender, lagging(servers[1]):
        waiting = []
        for number in range(1, AT_ONCE + 1):
            waiting.append(task_of(appender, merchant))
            await until_length(primary, merchant, number)
        appender._timeout_s = LAG_S / 5
        assert await outcome_of(appender, Notification(late)) == "not_published"
        appender._timeout_s = 3 * LAG_S
        await appender.append(PROBE)
        assert not any(each.done() for each in waiting)
        assert len(primary.clients("append")) == AT_ONCE + 1
        outcomes = [await each for each in waiting]
        assert outcomes == ["unknown"] * AT_ONCE
        assert await outcome_of(appender, Notification(merchant)) == "unknown"

    assert primary.length(late) == 0
    assert primary.length(merchant) == AT_ONCE + 1


async def test_a_worker_has_few_connections_however_many_notifications_wait_for_replicas(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    adding: list[int] = []
    in_all: list[int] = []
    async with following(primary.url, ENOUGH_S, bell="pubsub", wait_replicas=2) as followed:
        await followed.watch(merchant)
        async with lagging(servers[1]):
            waiting = []
            for _ in range(20):
                waiting.append(task_of(followed.appender, merchant))
                await followed.appender.append(PROBE)
                clients = primary.cli("CLIENT", "LIST")
                adding.append(clients.count(f" name=sse_push-append-{os.getpid()} "))
                in_all.append(len(re.findall(f" name=sse_push-[a-z]+-{os.getpid()} ", clients)))
        outcomes = [await each for each in waiting]

    assert outcomes == ["stored"] * 20
    assert max(adding) == AT_ONCE + 1 == 3
    assert "A worker has up to three connections to add entries" in " ".join(OPERATIONS.split())
    assert max(in_all) <= 8


async def test_a_lagging_replica_does_not_make_the_service_deaf_nor_its_browsers_wait(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with following(primary.url, 2 * SECOND, bell="pubsub", wait_replicas=2) as followed:
        await followed.watch(merchant)
        async with lagging(servers[1]):
            waiting = []
            for number in range(1, AT_ONCE + 1):
                waiting.append(task_of(followed.appender, merchant))
                await until_length(primary, merchant, number)
                await followed.next(number)
            asked_at = followed.follower.probe.passed_at
            await until(lambda: followed.follower.probe.passed_at > asked_at, "a proof")
            assert not any(each.done() for each in waiting)
        outcomes = [await each for each in waiting]

    assert set(outcomes) <= {"stored", "unknown"}
    assert primary.length(merchant) == AT_ONCE


async def test_an_error_reply_is_answered_at_once_and_the_others_wait(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    bad = f"{merchant}-bad"
    primary.cli("SET", stream_key(bad), "1")
    async with appending(primary.url, 2, 3 * LAG_S) as appender, lagging(servers[1]):
        good = task_of(appender, merchant)
        async with asyncio.timeout(2 * LAG_S):
            assert await outcome_of(appender, Notification(bad)) == "not_published"
        assert not good.done()
        assert await good == "unknown"


async def test_a_stream_that_is_gone_is_begun_anew_while_others_wait(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    other = f"{merchant}-other"
    async with appending(primary.url, 2, 3 * LAG_S) as appender:
        await appender.append_all([Notification(merchant), Notification(other)])
        primary.cli("DEL", stream_key(merchant))
        async with lagging(servers[1]):
            both = asyncio.create_task(
                appender.append_all([Notification(merchant), Notification(other)])
            )
            await until_length(primary, merchant, 1)
            assert not both.done()
            results = await both

    assert [getattr(each, "outcome", "stored") for each in results] == ["unknown"] * 2
    assert (primary.length(merchant), primary.length(other)) == (1, 2)


@pytest.mark.parametrize("loss", ["connection", "primary", "service"])
async def test_what_waits_is_unknown_when_its_connection_ends(
    tmp_path: Path, merchant: str, loss: str
) -> None:
    (tmp_path / "primary").mkdir()
    (tmp_path / "replica").mkdir()
    primary, replica = Redis.start(tmp_path / "primary"), Redis.start(tmp_path / "replica")
    try:
        primary.cli("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        follow(replica, primary)
        server = Server(primary.url)
        timeout_s = 4 * LAG_S if loss == "service" else ENOUGH_S
        async with appending(primary.url, 1, timeout_s) as appender, lagging(replica):
            waiting = task_of(appender, merchant)
            await until_length(server, merchant, 1)
            await until(lambda: bool(appender._replicas._tasks), "a wait for the replica")
            if loss == "connection":
                server.cli("CLIENT", "KILL", "ID", *server.clients("append"))
            elif loss == "primary":  # as after a failover
                server.cli("REPLICAOF", replica.host, str(replica.port))
            else:
                await appender._replicas.stop()
            assert await waiting == "unknown"
            await until(lambda: not appender._replicas._tasks, "its end")
            await until(lambda: not server.clients("append"), "no connection that waits")
        assert server.length(merchant) == 1
    finally:
        primary.kill()
        replica.kill()


async def test_a_primary_that_hangs_while_replicas_are_waited_for_leaves_it_unknown(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 2, 3 * LAG_S) as appender, lagging(servers[1]):
        waiting = task_of(appender, merchant)
        await until_length(primary, merchant, 1)
        async with lagging(servers[0]):
            assert await waiting == "unknown"
            await until(lambda: appender._replicas.has_room and not appender._pool._lent, "its end")
        assert await outcome_of(appender, PROBE) == "stored"


async def test_a_caller_that_leaves_while_replicas_are_waited_for_harms_no_other(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 2) as appender:
        async with lagging(servers[1]):
            leaving = task_of(appender, merchant)
            await until_length(primary, merchant, 1)
            staying = task_of(appender, merchant)
            await until_length(primary, merchant, 2)
            leaving.cancel()
            await asyncio.wait([leaving])
        assert await staying == "stored"


async def test_a_caller_that_gives_up_before_others_of_its_round_trip_knows_that_it_was_sent(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 2) as appender:
        async with lagging(servers[1]):
            hasty, patient = (
                asyncio.create_task(appender.try_all([Notification(merchant)], within_s=seconds))
                for seconds in (LAG_S, ENOUGH_S)
            )
            (given_up,) = await hasty
            assert not patient.done()
        (stored,) = await patient

    assert isinstance(given_up, StreamUnavailable)
    assert given_up.outcome == "unknown"
    assert isinstance(stored, EventId)
    assert primary.length(merchant) == 2


async def test_connections_that_waited_are_used_again_unless_all_are_replaced(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 2) as appender:
        async with lagging(servers[1]):
            both = [task_of(appender, merchant)]
            await until_length(primary, merchant, 1)
            both.append(task_of(appender, merchant))
            await until_length(primary, merchant, 2)
        assert [await each for each in both] == ["stored"] * 2
        first = primary.clients("append")
        assert len(first) == 2
        await appender.append(Notification(merchant))
        assert primary.clients("append") == first

        appender.renew()
        assert isinstance(await appender.append(Notification(merchant)), EventId)
        second = primary.clients("append")
        assert len(second) == 1
        assert not set(first) & set(second)


async def test_idle_connections_that_redis_closed_are_passed_over(
    servers: list[Redis], primary: Server, merchant: str
) -> None:
    async with appending(primary.url, 2) as appender:
        async with lagging(servers[1]):
            waiting = []
            for number in range(1, AT_ONCE + 1):
                waiting.append(task_of(appender, merchant))
                await until_length(primary, merchant, number)
        assert [await each for each in waiting] == ["stored"] * AT_ONCE
        for each in primary.clients("append"):
            primary.cli("CLIENT", "KILL", "ID", each)
        idle = appender._pool._idle
        await until(lambda: not any(each.is_quiet for each in idle), "the end of all")
        for _ in range(4):
            await appender.append(Notification(merchant))

    assert primary.length(merchant) == AT_ONCE + 4


async def test_a_service_whose_replica_lags_stays_ready_and_answers_503(
    servers: list[Redis], tmp_path: Path
) -> None:
    with serving(
        tmp_path,
        servers[0].url,
        wait_replicas=2,
        notify_timeout_s=2 * LAG_S,
        probe_interval_s=0.2,
        probe_deadline_s=LAG_S,
    ) as service:
        async with publishing(service.url) as backend:
            assert (await backend.post(json={"merchant_id": "42"})).status_code == 200
            async with lagging(servers[1]):
                answer = await backend.post(json={"merchant_id": "42"})
                ready = await backend.client.get("/readyz")
            assert (await backend.post(json={"merchant_id": "42"})).status_code == 200

    assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown")
    assert ready.status_code == 200


async def test_each_primary_of_a_cluster_has_replicas_of_its_own(tmp_path: Path) -> None:
    with clustered(tmp_path, "redis", replicas=1) as cluster:
        first, second, *_ = cluster.primaries()
        lags, goes_on = (cluster.name_at(each, KEYS.stream) for each in (first, second))
        await until(lambda: len(cluster.replicas_of(first)) == 1, "its replica to be seen")
        (replica,) = cluster.replicas_of(first)
        async with in_cluster(cluster.url, wait_replicas=1) as followed:
            both = [Notification(lags), Notification(goes_on)]
            before = await followed.appender.append_all(both)
            with frozen(replica.process.pid):
                results = await followed.appender.append_all(both)

    assert [getattr(each, "outcome", "stored") for each in before] == ["stored"] * 2
    assert [getattr(each, "outcome", "stored") for each in results] == ["unknown", "stored"]


async def test_a_wait_has_an_end_however_late_it_begins() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool(Address("nowhere"), KEYS.prefix)
    replicas = Replicas(1, pool, timeout_s=1, on_free=lambda: None)
    late = Waiting(Notification("42"), loop.create_future(), loop.time() - 5)

    assert replicas.commands([late]) == [("WAIT", 1, 1)], "0 would be for ever"
