"""The service on a cluster: its primaries, slots that move under it, and nodes that go."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import plain_http
from tests.harness.cluster import Cluster, Node, clustered, slot_of
from tests.harness.keys import REVOCATIONS_KEY, stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Kind
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, Stream, open_stream, publishing
from tests.harness.tokens import SECRET, token_of
from tests.harness.waiting import SECOND, Deadline, until

TIMES = {"heartbeat_s": 1, "probe_interval_s": 1, "probe_deadline_s": 2 * SECOND, "sweep_s": 3600}
"""Without a sweep, whose reads would meet MOVED, and so find what has moved."""

SOON_AWAY = {**TIMES, "probe_deadline_s": 1 * SECOND}

PROMISE_S = 5 * SECOND
"""How long a merchant may be silent after a slot has moved."""

ENOUGH_S = 30 * SECOND
"""A replica that finds its primary dead is elected, and the service finds it."""


@pytest.fixture(scope="module", params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    either: Kind = request.param
    return either


on_redis = pytest.mark.parametrize("kind", ["redis"], indirect=True)
"""For what begins a cluster of its own. In what a server has a say, ``tests/integration/stream``
has Valkey do the same: a node that is added and removed, PUBLISH through all nodes."""


@pytest.fixture(scope="module")
def shared(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """Each of both, for tests that leave all nodes as they are."""
    with clustered(tmp_path_factory.mktemp(kind), kind, replicas=1) as started:
        yield started


@pytest.fixture
def cluster(shared: Cluster) -> Generator[Cluster]:
    """The same, whole before the next test."""
    yield shared
    shared.wait_whole()


@pytest.fixture(scope="module")
def on_both(shared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """It plants nothing, so that a merchant that nobody has notified has no stream."""
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, shared.url, settings=TIMES, max_planted=0) as started:
        yield started


class Shop:
    """Browsers of some merchants, and a backend that notifies them."""

    def __init__(self, backend: Publisher, streams: dict[str, Stream]) -> None:
        self.backend = backend
        self.streams = streams

    async def tell(self, *merchants: str) -> None:
        """Notify once each; the browsers of these merchants are told in time."""
        for merchant in merchants or self.streams:
            await self.until_told(merchant, await self.backend.notify(merchant))

    async def until_told(self, merchant: str, event_id: str) -> None:
        """Wait until the browser of a merchant is told of an entry.

        The history in an ID is that of the slot's owner, and may be another one by then.
        """
        entry_id = event_id.partition(".")[0].encode()
        await until(lambda: entry_id in self.streams[merchant].body, merchant, PROMISE_S)

    async def tell_at_last(self, merchant: str) -> None:
        """Notify again and again, as a backend does, until that is taken; the browser is told."""
        deadline = Deadline(ENOUGH_S)
        while (
            answer := await self.backend.post(json={"merchant_id": merchant})
        ).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert not await deadline.is_missed(), answer.text
        await self.until_told(merchant, answer.json()["id"])


@asynccontextmanager
async def open_shop(service: Service, merchants: Sequence[str]) -> AsyncGenerator[Shop]:
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(publishing(service.url))
        streams = {}
        for merchant in merchants:
            streams[merchant] = await stack.enter_async_context(open_stream(service.url, merchant))
            await streams[merchant].next("ready")
        yield Shop(backend, streams)


_used: set[str] = set()


def new_at(node: Node, cluster: Cluster, count: int = 1) -> list[str]:
    """Return merchants, which nobody has notified before, whose streams a node owns."""
    found: list[str] = []
    skip = 0
    while len(found) < count:
        name = cluster.name_at(node, stream_key, skip)
        skip += 1
        if name not in _used:
            _used.add(name)
            found.append(name)
    return found


class Pair(NamedTuple):
    """Two merchants of one primary, and a shop for both."""

    shop: Shop
    owner: Node
    other: Node
    """Another primary."""
    known: str
    """Has a stream."""
    unknown: str
    """Has none."""


@asynccontextmanager
async def open_pair(cluster: Cluster, service: Service) -> AsyncGenerator[Pair]:
    owner, other, *_ = cluster.primaries()
    known, unknown = new_at(owner, cluster, 2)
    async with open_shop(service, [known, unknown]) as shop:
        await shop.tell(known)
        yield Pair(shop, owner, other, known, unknown)


def slots_of(merchants: Sequence[str]) -> list[int]:
    return sorted({slot_of(stream_key(each)) for each in merchants})


def ready(service: Service) -> tuple[int, set[str]]:
    """Return the status of the readiness, and the primaries that are away."""
    answer = plain_http.get(f"{service.url}/readyz")
    return answer.status_code, set(answer.json()["primaries_away"])


async def test_three_merchants_on_three_primaries_are_served_by_one_url(
    cluster: Cluster, on_both: Service
) -> None:
    primaries = cluster.primaries()
    assert len(primaries) == 3
    merchants = [name for node in primaries for name in new_at(node, cluster)]

    async with open_shop(on_both, merchants) as shop:
        await shop.tell()
        await shop.tell()

    for merchant, owner in zip(merchants, primaries, strict=True):
        assert owner.cli("XLEN", stream_key(merchant)) == "2"
        assert 1 <= owner.connections("tail") <= 8


async def test_merchants_are_told_after_their_slots_have_moved(
    cluster: Cluster, on_both: Service
) -> None:
    async with open_pair(cluster, on_both) as (shop, owner, other, known, unknown):
        last_event_id = shop.streams[known].refreshes[-1].id

        cluster.move_slots(slots_of([known, unknown]), other)

        await shop.tell(unknown)
        await shop.tell(known)
        assert cluster.owner_of(stream_key(unknown)) is other
        async with open_stream(on_both.url, known, last_event_id) as returning:
            await returning.next("refresh")
        cluster.move_slots(slots_of([known, unknown]), owner)
        await shop.tell()


async def test_merchants_without_a_stream_are_told_whose_slots_have_moved(
    cluster: Cluster, on_both: Service
) -> None:
    """Nothing was announced, and nobody asks for them until the slots are compared."""
    owner, other, *_ = cluster.primaries()
    merchants = new_at(owner, cluster, 5)
    async with open_shop(on_both, merchants) as shop:
        cluster.move_slots(slots_of(merchants), other)
        # Not by us: our appender would be answered MOVED, and the move would be known by that.
        added_at = time.monotonic()
        ids = {each: other.cli("XADD", stream_key(each), "*", "at", "1") for each in merchants}

        for merchant, entry_id in ids.items():
            await shop.until_told(merchant, entry_id)
        assert time.monotonic() - added_at < PROMISE_S
        await shop.tell()


async def test_a_merchant_is_told_while_its_slot_is_being_moved(
    cluster: Cluster, on_both: Service
) -> None:
    async with open_pair(cluster, on_both) as (shop, owner, other, known, unknown):
        cluster.begin_move(slots_of([known, unknown]), other)
        async with open_shop(on_both, new_at(owner, cluster)) as later:
            for _ in range(3):
                await shop.tell()
            await later.tell()
        assert other.keys(slots_of([unknown])) == [stream_key(unknown)]
        cluster.migrate([stream_key(known)], owner, other)
        await shop.tell()

        cluster.end_move(slots_of([known, unknown]), owner, other)
        await shop.tell()


async def test_merchants_are_told_after_a_move_that_was_given_up(
    cluster: Cluster, on_both: Service
) -> None:
    async with open_pair(cluster, on_both) as (shop, owner, other, known, unknown):
        (late,) = new_at(owner, cluster)
        slots = slots_of([known, unknown, late])
        cluster.begin_move(slots, other)
        await shop.tell()
        # Its owner has never answered a read of it without ASK, so nothing is announced there.
        async with open_shop(on_both, [late]) as opened:
            await opened.streams[late].next("refresh")

            cluster.abort_move(slots, owner, other)

            entry_id = owner.cli("XADD", stream_key(late), "*", "at", "1")
            await opened.until_told(late, entry_id)
        await shop.tell()
        assert cluster.owner_of(stream_key(unknown)) is owner


async def test_merchants_are_told_after_their_slots_were_taken(
    cluster: Cluster, on_both: Service
) -> None:
    async with open_pair(cluster, on_both) as (shop, _, other, known, unknown):
        before = len(shop.streams[known].refreshes)

        cluster.take_slots(slots_of([known, unknown]), other)

        # Its entries are gone with its stream: what the browser knows may be out of date.
        await shop.streams[known].next("refresh", before + 1)
        await shop.tell()
        assert other.cli("XLEN", stream_key(known)) == "1"


async def test_merchants_are_told_after_their_primary_has_handed_over(
    cluster: Cluster, on_both: Service
) -> None:
    async with open_pair(cluster, on_both) as (shop, owner, _, known, unknown):
        (replica,) = cluster.replicas_of(owner)

        cluster.failover(replica)

        await shop.tell(known)
        await shop.tell(unknown)
        await until(lambda: owner.connections("tail") == 0, "the replica to be left", PROMISE_S)
        assert replica.connections("tail") == 1


async def test_a_primary_that_was_frozen_and_replaced_is_left(
    cluster: Cluster, on_both: Service
) -> None:
    owner, *others = cluster.primaries()
    known, unknown, *elsewhere = [*new_at(owner, cluster, 2), *new_at(others[0], cluster)]
    async with open_shop(on_both, [known, unknown, *elsewhere]) as shop:
        await shop.tell(known)
        (replica,) = cluster.replicas_of(owner)

        with frozen(owner.process.pid):
            await shop.tell(*elsewhere)
            cluster.wait_promoted(replica)
            await shop.tell_at_last(known)
            await shop.tell_at_last(unknown)
            await shop.tell(*elsewhere)

        await shop.tell()
        await until(lambda: owner.connections("tail") == 0, "the replica to be left", PROMISE_S)


@on_redis
async def test_a_primary_without_a_replica_takes_only_its_own_merchants_with_it(
    kind: Kind, tmp_path: Path
) -> None:
    with (
        clustered(tmp_path, kind, password="of-the-cluster") as cluster,
        serving(tmp_path, cluster.url, settings=SOON_AWAY, notify_timeout_s=1) as service,
    ):
        first, lost, last = cluster.primaries()
        merchants = [*new_at(first, cluster), *new_at(last, cluster)]
        (harmed,) = new_at(lost, cluster)
        async with open_shop(service, [*merchants, harmed]) as shop:
            await shop.tell()
            assert ready(service) == (200, set())

            lost.kill()

            said = set()

            def is_named() -> bool:
                status, away = ready(service)
                said.add(status)
                return away == {f"{lost.host}:{lost.port}"}

            for _ in range(5):
                await shop.tell(*merchants)
                answer = await shop.backend.post(json={"merchant_id": harmed})
                assert answer.status_code == 503
                assert "Retry-After" in answer.headers
            await until(is_named, "the primary by name", ENOUGH_S)
            assert said == {200}, "also while a note of its age was not renewed yet"

            cluster.restart(lost)
            await shop.tell_at_last(harmed)
            await shop.tell()
            await until(lambda: ready(service) == (200, set()), "a cluster that is whole", ENOUGH_S)

            for each in cluster.nodes:
                each.kill()
            all_away = (503, {f"{each.host}:{each.port}" for each in cluster.nodes})
            await until(lambda: ready(service) == all_away, "all primaries by name", ENOUGH_S)
            counted = plain_http.get(f"{service.url}/metrics").text
            assert "\nsse_push_primaries_away 3.0\n" in counted


@on_redis
async def test_a_node_is_added_and_the_one_that_the_url_names_first_is_removed(
    kind: Kind, tmp_path: Path
) -> None:
    with (
        clustered(tmp_path, kind) as cluster,
        serving(tmp_path, cluster.url, settings=TIMES) as service,
    ):
        first, *others = cluster.primaries()
        merchants = [name for node in (first, *others) for name in new_at(node, cluster, 3)]
        async with open_shop(service, merchants) as shop:
            await shop.tell(*merchants[1:])

            new = cluster.add_node()
            await shop.tell(*merchants[1:])
            cluster.move_slots(sorted(cluster.sees()[first.id].slots), new)
            await shop.tell()
            await until(lambda: new.connections("tail") == 1, "the new node", PROMISE_S)
            cluster.wait_whole()
            cluster.remove_node(first)

            await shop.tell()
            async with open_shop(service, new_at(new, cluster)) as later:
                await later.tell()


async def is_put_off(service: Service, query: str) -> bool:
    """Return whether a browser is told to come again later."""
    async with open_stream(service.url, query=query) as stream:
        assert stream.status == 200
        return "x-sse-push-soft-answer" in stream.headers


async def test_streams_by_token_are_put_off_while_the_owner_of_revocations_is_away(
    tmp_path: Path,
) -> None:
    given = {**SOON_AWAY, "notify_timeout_s": 1, "token_keys": SECRET}
    words = ("--subscribe-auth", "token")
    with (
        clustered(tmp_path, "redis") as cluster,
        serving(tmp_path, cluster.url, *words, settings=given) as service,
    ):
        lost = cluster.owner_of(REVOCATIONS_KEY)
        other = next(each for each in cluster.primaries() if each is not lost)
        (merchant,) = new_at(other, cluster)
        query = f"token={token_of(merchant, aud=..., iss=...)}"
        async with (
            open_stream(service.url, query=query) as stream,
            publishing(service.url) as backend,
        ):
            shop = Shop(backend, {merchant: stream})
            await shop.tell()

            lost.kill()

            await shop.tell()
            deadline = Deadline(ENOUGH_S)
            while not await is_put_off(service, query):
                assert not await deadline.is_missed()
            await shop.tell()
            cluster.restart(lost)
            deadline = Deadline(ENOUGH_S)
            while await is_put_off(service, query):
                assert not await deadline.is_missed()
            await shop.tell()


@on_redis
async def test_merchants_are_told_on_a_cluster_by_the_bell(kind: Kind, tmp_path: Path) -> None:
    with (
        clustered(tmp_path, kind, replicas=1) as cluster,
        serving(tmp_path, cluster.url, settings=TIMES, bell="pubsub") as service,
    ):
        primaries = cluster.primaries()
        merchants = [name for node in primaries for name in new_at(node, cluster, 2)]
        async with open_shop(service, merchants) as shop:
            await shop.tell(*merchants[::2])

            cluster.move_slots(slots_of(merchants[:2]), primaries[1])
            await shop.tell()
            (replica,) = cluster.replicas_of(primaries[1])
            cluster.failover(replica)
            await shop.tell()
            (replica,) = cluster.replicas_of(primaries[2])
            primaries[2].kill()
            cluster.wait_promoted(replica)
            await shop.tell_at_last(merchants[-1])
            await shop.tell()
