"""A real cluster, followed as one: slots that move, primaries that come and go."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, Notification
from sse_push.stream.address import Place
from sse_push.stream.proof import Deaf
from sse_push.stream.slots import SlotMap, slot_of
from sse_push.stream.survey import Ask
from tests.harness.cluster import Cluster, Node, clustered
from tests.harness.documents import text
from tests.harness.keys import KEYS, stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Kind
from tests.harness.waiting import SECOND, free_port, until
from tests.integration.stream.following import stopped
from tests.integration.stream.in_cluster import InCluster, in_cluster


@pytest.fixture(scope="module", params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


on_redis = pytest.mark.parametrize("kind", ["redis"], indirect=True)
"""For what no server has a say in: how long one is silent that is gone, or that we do not hear."""

SOON_S = 1 * SECOND
"""How long a primary is silent until it counts as away, where that is to happen."""


@pytest.fixture(scope="module")
def three(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries without replicas; a test leaves no slot on its way."""
    with clustered(tmp_path_factory.mktemp("cluster"), kind) as servers:
        yield servers


def other_than(cluster: Cluster, node: Node) -> Node:
    return next(each for each in cluster.primaries() if each is not node)


OPERATIONS = text("sse_push/docs/operations.md")

_tests = itertools.count()


def one_of_each(cluster: Cluster) -> list[str]:
    """Return a merchant of each primary, whom no other test has."""
    prefix = f"t{next(_tests)}"

    def key(name: str) -> str:
        return stream_key(prefix + name)

    return [prefix + cluster.name_at(node, key) for node in cluster.primaries()]


async def test_merchants_of_all_primaries_are_followed(three: Cluster) -> None:
    merchants = one_of_each(three)
    async with in_cluster(three.url) as followed:
        await followed.until_armed(*merchants)

        notifications = [Notification(each) for each in merchants]
        added = await followed.appender.append_all(notifications)

        for merchant_id, event_id in zip(merchants, added, strict=True):
            assert not isinstance(event_id, Exception)
            await followed.until_heard(event_id, merchant_id)
        assert len({history for _, history in followed.changes}) == 3
        assert followed.cluster.knows_revocations
        assert followed.cluster.primaries_away == ()
        assert followed.appender.tally.outcomes["stored"] == 3
        assert not any(each.is_resync for each, _ in followed.changes)


@pytest.mark.parametrize("with_keys", [True, False])
async def test_a_stream_whose_slot_moves_is_followed_at_its_new_owner(
    three: Cluster, *, with_keys: bool
) -> None:
    merchant_id = one_of_each(three)[0]
    slot = slot_of(stream_key(merchant_id))
    owner = three.owner_of(slot)
    async with in_cluster(three.url) as followed:
        await followed.appender.append(Notification(merchant_id))
        await followed.until_armed(merchant_id)

        await asyncio.to_thread(
            three.move_slot, slot, other_than(three, owner), with_keys=with_keys
        )
        await followed.until_resync(merchant_id)

        await followed.until_heard(
            await followed.appender.append(Notification(merchant_id)), merchant_id
        )


async def test_what_the_nodes_said_before_they_sent_an_entry_elsewhere_sends_it_nowhere(
    three: Cluster,
) -> None:
    merchant_id = one_of_each(three)[0]
    slot = slot_of(stream_key(merchant_id))
    async with in_cluster(three.url) as followed:
        cluster, is_answered, may_arrive = followed.cluster, asyncio.Event(), asyncio.Event()
        ask = cluster._survey.ask

        async def ask_slowly(primaries: Mapping[Place, Ask]) -> SlotMap:
            answer = await ask(primaries)
            is_answered.set()
            await may_arrive.wait()
            return answer

        cluster._survey.ask = ask_slowly  # type: ignore[method-assign]
        await is_answered.wait()
        await asyncio.to_thread(three.move_slot, slot, other_than(three, three.owner_of(slot)))
        adding = asyncio.create_task(followed.appender.append(Notification(merchant_id)))
        await until(cluster._doubted.is_set, "the node to send it elsewhere")
        may_arrive.set()

        added = await adding
        owner = cluster.appender_of(stream_key(merchant_id))
        assert owner is not None
        assert added.history == owner.history


async def test_an_entry_that_is_sent_elsewhere_has_the_nodes_asked_at_once(three: Cluster) -> None:
    merchant_id = one_of_each(three)[0]
    slot = slot_of(stream_key(merchant_id))
    async with in_cluster(three.url) as followed:
        cluster = followed.cluster
        cluster.terms = replace(cluster.terms, probe_interval_s=1000)
        await cluster.news()
        await asyncio.to_thread(three.move_slot, slot, other_than(three, three.owner_of(slot)))

        await followed.appender.append(Notification(merchant_id))


async def test_a_merchant_without_a_stream_moves_with_its_slot(three: Cluster) -> None:
    merchant_id = one_of_each(three)[1]
    slot = slot_of(stream_key(merchant_id))
    async with in_cluster(three.url) as followed:
        await followed.until_armed(merchant_id)

        to = other_than(three, three.owner_of(slot))
        await asyncio.to_thread(three.move_slot, slot, to)
        # By a backend of its own, which asks nobody: the service has no reply that says anything.
        await asyncio.to_thread(to.cli, "XADD", stream_key(merchant_id), "*", "topic", "t")

        await followed.until_resync(merchant_id)
        await followed.until_heard(
            await followed.appender.append(Notification(merchant_id)), merchant_id
        )


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_a_stream_on_its_way_is_heard_on_both_sides(
    three: Cluster, *, is_given_up: bool
) -> None:
    merchant_id = one_of_each(three)[0]
    slot = slot_of(stream_key(merchant_id))
    owner = three.owner_of(slot)
    to = other_than(three, owner)
    async with in_cluster(three.url) as followed:
        await followed.until_armed(merchant_id)
        await asyncio.to_thread(three.begin_move, [slot], to)

        # The owner answers ASK for a key that it has not.
        for _ in range(2):
            event_id = await followed.appender.append(Notification(merchant_id))
            await followed.until_heard(event_id, merchant_id)
            assert {history for _, history in followed.changes} == {event_id.history}
        assert owner.cli("EXISTS", stream_key(merchant_id)).startswith("ASK")

        if is_given_up:
            await asyncio.to_thread(three.abort_move, [slot], owner, to)
        else:
            await asyncio.to_thread(three.end_move, [slot], owner, to)
            await followed.until_resync(merchant_id)
        last = await followed.appender.append(Notification(merchant_id))
        await followed.until_heard(last, merchant_id)
        assert followed.appender.tally.outcomes == {"stored": 3, "not_published": 0, "unknown": 0}


async def test_the_stream_of_revocations_is_read_where_it_is(three: Cluster) -> None:
    slot = slot_of(KEYS.revocations)
    async with in_cluster(three.url) as followed:
        await followed.appender.append(Revocation("42"))
        await until(lambda: followed.revoked == [Revocation("42")], "the revocation")

        owner = three.owner_of(slot)
        await asyncio.to_thread(three.move_slot, slot, other_than(three, owner))
        await followed.appender.append(Revocation("43"))

        await until(lambda: Revocation("43") in followed.revoked, "the next one")
        await until(lambda: followed.cluster.knows_revocations, "the proof")


async def test_a_slot_that_nobody_has_is_one_whose_merchants_wait(three: Cluster) -> None:
    merchant_id = one_of_each(three)[2]
    slot = slot_of(stream_key(merchant_id))
    owner = three.owner_of(slot)
    async with in_cluster(three.url) as followed:
        await followed.until_armed(merchant_id)
        await asyncio.to_thread(three.disown_slot, slot)
        await until(lambda: not followed.cluster.slots.owner_of(slot), "the loss to be known")

        with pytest.raises(Exception, match="expected a primary of the cluster"):
            await followed.appender.append(Notification(merchant_id))
        assert await followed.cluster.between(merchant_id, EntryId(1, 0), EntryId(2, 0)) is None
        assert followed.cluster.age_s < 2 * SECOND

        await asyncio.to_thread(owner.do, "CLUSTER", "ADDSLOTS", str(slot))
        await followed.until_resync(merchant_id)
        await asyncio.to_thread(three.wait_whole)


@on_redis
async def test_without_any_node_nothing_is_proved_until_one_answers(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with clustered(tmp_path, kind, primaries=1) as servers:
        (node,) = servers.nodes
        place = f"{node.host}:{node.port}"
        async with in_cluster(servers.url, probe_deadline_s=SOON_S) as followed:
            with frozen(node.process.pid):
                await until(
                    lambda: any(each.startswith("no node of") for each in caplog.messages),
                    "the log",
                    30 * SECOND,
                )
                await until(
                    lambda: followed.cluster.primaries_away == (place,),
                    "the primary to be away",
                    30 * SECOND,
                )
                assert followed.cluster.age_s == math.inf
                news = followed.cluster._news
                asked = news._asked
                await until(lambda: news._asked > asked + 1, "further questions", 30 * SECOND)
            await until(lambda: followed.cluster.age_s < SECOND, "the proof", 30 * SECOND)
            again = "nodes of the cluster answer again"
            await until(lambda: again in caplog.messages, "the log", 30 * SECOND)
    assert [each.startswith("no node of") for each in caplog.messages].count(True) == 1


@on_redis
async def test_what_takes_entries_and_announces_none_ends_the_process(three: Cluster) -> None:
    """As with one server: only a new process may help, and its browsers go on at another one."""
    followed = InCluster(three.url, deaf_limit_s=SOON_S, probe_deadline_s=SOON_S)
    running = asyncio.create_task(followed.cluster.run())
    try:
        await until(lambda: followed.cluster.age_s < SECOND, "the first proof", 10 * SECOND)
        member = next(iter(followed.cluster._members.values()))
        member.follower.probe.announced = lambda: None  # type: ignore[method-assign]

        with pytest.raises(Deaf):
            await asyncio.wait_for(asyncio.shield(running), 30 * SECOND)
        assert followed.cluster.age_s > SECOND
    finally:
        await stopped(running)


@on_redis
async def test_a_primary_that_is_away_harms_its_merchants_alone(kind: Kind, tmp_path: Path) -> None:
    with clustered(tmp_path, kind) as servers:
        dead = servers.primaries()[1]
        merchants = one_of_each(servers)
        async with in_cluster(servers.url, probe_deadline_s=SOON_S) as followed:
            await followed.until_armed(*merchants)
            dead.kill()
            dead.is_away = True

            async def refuses() -> bool:
                (result,) = await followed.appender.append_all([Notification(merchants[1])])
                return isinstance(result, StreamUnavailable)

            assert await refuses()
            for merchant_id in (merchants[0], merchants[2]):
                event_id = await followed.appender.append(Notification(merchant_id))
                await followed.until_heard(event_id, merchant_id)
            place = f"{dead.host}:{dead.port}"
            await until(lambda: followed.cluster.primaries_away == (place,), "the one", 30 * SECOND)
            assert followed.cluster.age_s < 2 * SECOND
            assert followed.cluster.is_well

            await asyncio.to_thread(servers.restart, dead)
            dead.is_away = False
            await followed.until_resync(merchants[1])
            await until(lambda: followed.cluster.primaries_away == (), "all", 30 * SECOND)


async def test_a_promoted_replica_is_followed_and_one_that_was_demoted_is_left(
    kind: Kind, tmp_path: Path
) -> None:
    with clustered(tmp_path, kind, replicas=1) as servers:
        before = servers.primaries()[0]
        (merchant_id, *_) = one_of_each(servers)
        async with in_cluster(servers.url) as followed:
            await followed.until_armed(merchant_id)
            replica = servers.replicas_of(before)[0]

            await asyncio.to_thread(servers.failover, replica)
            await followed.until_resync(merchant_id)
            await followed.until_heard(
                await followed.appender.append(Notification(merchant_id)), merchant_id
            )
            assert before.id not in followed.cluster.slots.nodes

            replica.kill()
            replica.is_away = True
            await asyncio.to_thread(servers.wait_promoted, before)
            await followed.until_resync(merchant_id, 2)
            await followed.until_heard(
                await followed.appender.append(Notification(merchant_id)), merchant_id
            )


async def test_changes_are_heard_by_publish_where_that_is_said(three: Cluster) -> None:
    merchants = one_of_each(three)
    async with in_cluster(three.url, bell="pubsub") as followed:
        assert followed.cluster.bell == "pubsub"
        await followed.until_armed(*merchants)
        slot = slot_of(stream_key(merchants[0]))
        await asyncio.to_thread(three.move_slot, slot, other_than(three, three.owner_of(slot)))

        for merchant_id in merchants:
            event_id = await followed.appender.append(Notification(merchant_id))
            await followed.until_heard(event_id, merchant_id)


async def note_ages(followed: InCluster, ages: list[float]) -> None:
    """Note what the process says of itself whenever the nodes have answered."""
    while True:
        await followed.cluster.news()
        ages.append(followed.cluster.age_s)


async def test_a_node_without_slots_takes_records_as_soon_as_one_is_on_its_way(
    kind: Kind, tmp_path: Path
) -> None:
    with clustered(tmp_path, kind, primaries=1) as servers:
        (merchant_id,) = one_of_each(servers)
        slot = slot_of(stream_key(merchant_id))
        async with in_cluster(servers.url) as followed:
            await followed.until_armed(merchant_id)
            added = await asyncio.to_thread(servers.add_node)
            await asyncio.to_thread(servers.wait_whole)
            owner = await asyncio.to_thread(servers.begin_move, [slot], added)

            event_id = await followed.appender.append(Notification(merchant_id))
            await followed.until_heard(event_id, merchant_id)

            ages: list[float] = []
            noting = asyncio.create_task(note_ages(followed, ages))
            await asyncio.to_thread(servers.end_move, [slot], owner, added)
            await followed.until_resync(merchant_id)
            noting.cancel()
            assert len(followed.cluster.slots.nodes) == 2
            assert max(ages) < 2 * SECOND, "a new primary has a while to be reached"

            await asyncio.to_thread(servers.move_slot, slot, owner)
            await followed.until_resync(merchant_id, 2)
            await asyncio.to_thread(servers.remove_node, added)
            await followed.until_heard(
                await followed.appender.append(Notification(merchant_id)), merchant_id
            )
            assert followed.cluster.tally.tail.resyncs["server_changed"] == 2
            assert followed.appender.tally.outcomes["stored"] == 2


async def test_before_any_node_has_answered_nothing_is_known_and_nobody_is_at_fault() -> None:
    followed = InCluster("redis+cluster://127.0.0.1:1")
    cluster = followed.cluster

    assert (cluster.age_s, cluster.bell, cluster.primaries_away) == (math.inf, "tracking", ())
    assert cluster.is_well
    assert abs(cluster.redis_time_s - time.time()) < SECOND
    assert not await cluster.wait_for_revocations(0.01)
    cluster.watch("42")
    assert cluster.tally.reconnects == 0
    running = [
        asyncio.create_task(each) for each in (followed.appender.run(), cluster.give_up_if_deaf())
    ]
    done, _ = await asyncio.wait(running, timeout=0.01)
    assert not done
    for each in running:
        each.cancel()
    cluster.unwatch("42")


async def test_a_notification_in_the_first_moment_waits_until_the_slots_are_known(
    three: Cluster,
) -> None:
    merchants = one_of_each(three)
    followed = InCluster(three.url)
    running = asyncio.create_task(followed.cluster.run())
    try:
        results = await followed.appender.append_all([Notification(each) for each in merchants])
    finally:
        await stopped(running)

    assert [each for each in results if isinstance(each, StreamUnavailable)] == []


async def test_the_rights_that_the_documentation_gives_are_enough(
    three: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    further = re.findall(
        r"`(\+[^`]+)`", next(line for line in OPERATIONS.splitlines() if "At each node of" in line)
    )
    line = next(line for line in OPERATIONS.splitlines() if line.startswith("ACL SETUSER "))
    words = [*line.split()[3:], *further]
    for node in three.nodes:
        said = [">secret" if word.startswith(">") else word for word in words]
        node.do("ACL", "SETUSER", "guarded", *said)
    (merchant_id, *_) = one_of_each(three)
    slot = slot_of(stream_key(merchant_id))
    url = three.url.replace("://", "://guarded:secret@")
    async with in_cluster(url) as followed:
        await followed.until_armed(merchant_id)
        to = other_than(three, three.owner_of(slot))
        owner = await asyncio.to_thread(three.begin_move, [slot], to)
        await followed.until_heard(
            await followed.appender.append(Notification(merchant_id)), merchant_id
        )
        await asyncio.to_thread(three.end_move, [slot], owner, to)
        await followed.until_resync(merchant_id)
        assert "NOPERM" not in caplog.text


async def test_a_record_that_is_elsewhere_costs_no_connection(three: Cluster) -> None:
    here, there, _ = one_of_each(three)
    async with in_cluster(three.url) as followed:
        await followed.appender.append(Notification(here))
        appender = followed.cluster.appender_of(stream_key(here))
        assert appender is not None
        connection = appender._pool.at_hand

        (result,) = await appender.try_all([Notification(there)], within_s=5 * SECOND)

        assert "MOVED" in str(result)
        assert await followed.appender.append(Notification(here))
        assert appender._pool.at_hand is connection


async def test_a_primary_that_is_a_member_no_more_answers_what_it_was_sent(three: Cluster) -> None:
    (merchant_id, *_) = one_of_each(three)
    owner = three.owner_of(stream_key(merchant_id))
    async with in_cluster(three.url) as followed:
        await followed.appender.append(Notification(merchant_id))
        appender = followed.cluster.appender_of(stream_key(merchant_id))
        assert appender is not None
        slots = followed.cluster.slots
        others = {node_id: node for node_id, node in slots.nodes.items() if node_id != owner.id}
        sent = appender._sent
        with frozen(owner.process.pid):
            appending = asyncio.create_task(followed.appender.append(Notification(merchant_id)))
            await until(lambda: appender._sent is not sent, "the record to be sent")
            followed.cluster._settle(replace(slots, nodes=others))
            assert owner.id not in followed.cluster._members

        assert (await appending).entry_id > EntryId(1, 0)


async def test_connections_to_redis_depend_on_neither_merchants_nor_notifications(
    three: Cluster,
) -> None:
    def connections() -> list[int]:
        names = f" name=sse_push-(append|aside|asking|bell|probe|tail)-{os.getpid()} "
        return [len(re.findall(names, node.cli("CLIENT", "LIST"))) for node in three.nodes]

    async with in_cluster(three.url, bell="pubsub") as followed:
        await followed.until_armed(*one_of_each(three))
        before = connections()
        merchants = [f"many{number}" for number in range(300)]
        await followed.until_armed(*merchants)
        await followed.appender.append_all([Notification(each) for each in merchants])

        # A probe makes one for a moment.
        assert max(connections()) <= min(before) + 1
        assert min(before) >= 3
        assert max(before) <= 8


@on_redis
async def test_a_primary_that_moves_to_another_address_is_followed_there(
    kind: Kind, tmp_path: Path
) -> None:
    with clustered(tmp_path, kind) as servers:
        (merchant_id, *_) = one_of_each(servers)
        node = servers.primaries()[0]
        async with in_cluster(servers.url) as followed:
            await followed.until_armed(merchant_id)
            node.kill()
            node.port = free_port()
            await asyncio.to_thread(servers.restart, node)

            await until(
                lambda: followed.cluster.slots.nodes[node.id].place.port == node.port,
                "the new address",
                30 * SECOND,
            )
            await asyncio.to_thread(servers.wait_whole)
            await followed.until_heard(
                await followed.appender.append(Notification(merchant_id)), merchant_id
            )
