"""What Redis 7.0.15 and Valkey 9.1.2 announce when a cluster changes: what the service relies on.

Each test asks a node on a connection with CLIENT TRACKING. What a node announces because of a
command is on its way before the answers to later ones: a PING shows that nothing was announced.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import hiredis
import pytest

from tests.harness.cluster import Cluster, Node, clustered, slot_of
from tests.harness.keys import stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Kind
from tests.harness.waiting import SECOND, wait_for

MANY = 5000
"""How many streams a slot has that is moved at once."""

_numbers = itertools.count()


class Tracked:
    """A connection on which a node announces each key that was read on it."""

    def __init__(self, node: Node) -> None:
        self.heard: list[str] = []
        self._socket = socket.create_connection((node.host, node.port), timeout=10 * SECOND)
        self._reader = hiredis.Reader(notEnoughData=...)
        self.ask("HELLO", "3")
        self.ask("CLIENT", "TRACKING", "ON")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, *words: str) -> object:
        """Run a command, and return its reply, an error's text if it is one."""
        self.send(*words)
        reply = self._next()
        return str(reply) if isinstance(reply, hiredis.ReplyError) else reply

    def send(self, *words: str) -> None:
        """Send a command, whose reply is read later."""
        # until hiredis > 3.5: its stub says that a command is one word
        self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]

    def read(self, key: str) -> object:
        """Read the newest entry of a stream."""
        return self.ask("XREVRANGE", key, "+", "-", "COUNT", "1")

    def hears(self, key: str) -> bool:
        """Return whether a key was announced by now; what has been is announced once."""
        assert self.ask("PING") == b"PONG"
        is_heard = key in self.heard
        self.heard.clear()
        return is_heard

    def until_heard(self, *keys: str) -> None:
        """Wait until each of these keys has been announced."""
        missing = set(keys)

        def are_heard() -> bool:
            self.ask("PING")
            missing.difference_update(self.heard)
            self.heard.clear()
            return not missing

        wait_for(are_heard, "the announcements", 30 * SECOND)

    def _next(self) -> object:
        while True:
            reply = self._reader.gets()
            if reply is ...:
                self._reader.feed(self._socket.recv(65_536))
            elif isinstance(reply, hiredis.PushNotification):
                self._note(reply)
            else:
                return reply

    def _note(self, push: hiredis.PushNotification) -> None:
        if push[0] == b"invalidate":
            self.heard += [each.decode() for each in push[1] or ()]
        elif push[0] == b"message":
            self.heard.append(push[2].decode())


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with clustered(tmp_path_factory.mktemp("redis"), "redis", replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with clustered(tmp_path_factory.mktemp("valkey"), "valkey", replicas=1) as cluster:
        yield cluster


@pytest.fixture(params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    either: Kind = request.param
    return either


@pytest.fixture
def cluster(request: pytest.FixtureRequest, kind: Kind) -> Generator[Cluster]:
    """Each of the two, the test once with either, and whole before the next one."""
    either: Cluster = request.getfixturevalue(f"{kind}_cluster")
    yield either
    either.wait_whole()


@contextmanager
def hearing(cluster: Cluster) -> Generator[tuple[Tracked, Node, Node, str, str]]:
    """Arm two keys of one slot: yield the connection, the owner, another primary, and the keys.

    The first key exists, the second one does not.
    """
    owner, other, *_ = cluster.primaries()
    prefix = f"t{next(_numbers)}"  # slots move from test to test, so numbers alone are not enough

    def key(name: str) -> str:
        return stream_key(prefix + name)

    existing = key(cluster.name_at(owner, key))
    missing = f"{existing}:missing"
    assert slot_of(existing) == slot_of(missing)
    add(owner, existing)
    with Tracked(owner) as tracked:
        assert tracked.read(existing)
        assert tracked.read(missing) == []
        yield tracked, owner, other, existing, missing


def add(node: Node, *keys: str) -> None:
    for key in keys:
        said = node.cli("XADD", key, "*", "at", "1")
        assert said[:1].isdigit(), said


def test_each_server_is_of_the_version_that_was_tried(cluster: Cluster, kind: Kind) -> None:
    said = cluster.nodes[0].cli("INFO", "server")
    assert ("valkey_version:9.1" if kind == "valkey" else "redis_version:7.0") in said


def test_a_slot_that_is_moved_announces_the_keys_that_it_has(cluster: Cluster) -> None:
    with hearing(cluster) as (tracked, _, other, existing, missing):
        cluster.move_slot(slot_of(existing), other)

        assert tracked.ask("PING") == b"PONG"
        assert tracked.heard == [existing]
        assert not tracked.hears(missing)
        add(other, existing, missing)
        assert not tracked.hears(existing)
        assert not tracked.hears(missing)
        assert str(tracked.read(existing)).startswith("MOVED ")
        assert str(tracked.read(missing)).startswith("MOVED ")


def test_an_atomic_move_announces_the_keys_that_the_slot_has(valkey_cluster: Cluster) -> None:
    cluster = valkey_cluster
    with hearing(cluster) as (tracked, _, other, existing, missing):
        cluster.move_atomically(slot_of(existing), slot_of(existing), other)

        tracked.until_heard(existing)
        add(other, existing, missing)
        assert not tracked.hears(existing)
        assert not tracked.hears(missing)
        assert str(tracked.read(missing)).startswith("MOVED ")


def test_an_atomic_move_of_many_streams_announces_one_key_after_another(
    valkey_cluster: Cluster,
) -> None:
    cluster = valkey_cluster
    owner, other, *_ = cluster.primaries()
    tag = cluster.name_at(owner, stream_key, skip=next(_numbers))
    keys = [f"many:{{{tag}}}:{number}" for number in range(MANY)]
    owner.send(("XADD", key, "*", "at", "1") for key in keys)
    with Tracked(owner) as tracked:
        for key in keys:
            tracked.read(key)

        cluster.move_atomically(slot_of(tag), slot_of(tag), other)

        tracked.until_heard(*keys)


def test_slots_that_are_taken_are_announced_by_valkey_only(cluster: Cluster, kind: Kind) -> None:
    with hearing(cluster) as (tracked, owner, other, existing, missing):
        cluster.take_slots([slot_of(existing)], other)

        wait_for(lambda: not owner.keys([slot_of(existing)]), "the keys to be dropped")
        assert tracked.hears(existing) == (kind == "valkey")
        add(other, existing, missing)
        assert not tracked.hears(existing)
        assert not tracked.hears(missing)
        assert str(tracked.read(existing)).startswith("MOVED ")


def test_a_primary_that_hands_over_announces_what_is_replicated_to_it(cluster: Cluster) -> None:
    with hearing(cluster) as (tracked, owner, _, existing, missing):
        (replica,) = cluster.replicas_of(owner)

        cluster.failover(replica)

        wait_for(lambda: "role:slave" in owner.cli("INFO", "replication"), "a replica")
        cluster.wait_whole()
        tracked.ask("PING")
        tracked.heard.clear()
        assert str(tracked.read(existing)).startswith("MOVED ")
        add(replica, existing, missing)
        tracked.until_heard(existing, missing)
        assert str(tracked.read(missing)).startswith("MOVED ")


def test_a_frozen_primary_comes_back_as_a_replica_and_announces_what_it_missed(
    cluster: Cluster,
) -> None:
    with hearing(cluster) as (tracked, owner, _, existing, missing):
        (replica,) = cluster.replicas_of(owner)

        with frozen(owner.process.pid):
            cluster.wait_promoted(replica)
            add(replica, existing, missing)

        tracked.until_heard(existing, missing)
        assert str(tracked.read(existing)).startswith("MOVED ")


def test_an_answer_of_ask_arms_nothing_and_asking_does(cluster: Cluster) -> None:
    with hearing(cluster) as (_, owner, other, existing, _), Tracked(owner) as asked:
        new = f"{existing}:new"
        slot = slot_of(new)
        assert cluster.begin_move([slot], other) is owner
        assert asked.read(new) == f"ASK {slot} {other.host}:{other.port}"
        with Tracked(other) as importing:
            assert str(importing.read(new)).startswith("MOVED ")
            importing.ask("ASKING")
            assert importing.read(new) == []
            importing.ask("ASKING")
            importing.ask("XADD", new, "*", "at", "1")
            assert importing.hears(new)
            importing.ask("ASKING")
            assert importing.read(new)

            cluster.end_move([slot], owner, other)
            add(other, new)

            assert not asked.hears(new)
            assert importing.hears(new)


def test_a_key_that_the_owner_still_has_is_armed_while_its_slot_is_moved(cluster: Cluster) -> None:
    with hearing(cluster) as (_, owner, other, existing, _), Tracked(owner) as armed:
        cluster.begin_move([slot_of(existing)], other)
        assert armed.read(existing)

        add(owner, existing)
        assert armed.hears(existing)
        assert armed.read(existing)
        cluster.end_move([slot_of(existing)], owner, other)

        assert armed.hears(existing)


def test_after_a_move_that_was_given_up_nobody_announces_what_asking_armed(
    cluster: Cluster,
) -> None:
    with hearing(cluster) as (_, owner, other, existing, _), Tracked(other) as importing:
        new = f"{existing}:new"
        slot = slot_of(new)
        before = owner.cli("CLUSTER", "SLOTS")
        cluster.begin_move([slot], other)
        importing.ask("ASKING")
        assert importing.read(new) == []

        cluster.abort_move([slot], owner, other)
        add(owner, new)

        assert not importing.hears(new)
        assert owner.cli("CLUSTER", "SLOTS") == before


def test_an_answer_of_clusterdown_arms_nothing(cluster: Cluster) -> None:
    with hearing(cluster) as (tracked, owner, _, existing, _):
        new, slot = f"{existing}:new", str(slot_of(existing))
        owner.do("CLUSTER", "DELSLOTS", slot)
        assert tracked.read(new) == "CLUSTERDOWN Hash slot not served"
        assert str(tracked.ask("XADD", new, "*", "at", "1")).startswith("CLUSTERDOWN ")

        owner.do("CLUSTER", "ADDSLOTS", slot)
        assert owner.cli("EXISTS", new) == "0"
        add(owner, new)

        assert not tracked.hears(new)


def test_an_append_that_is_answered_moved_or_ask_is_stored_nowhere(cluster: Cluster) -> None:
    with hearing(cluster) as (tracked, owner, other, existing, _), Tracked(other) as elsewhere:
        new, slot = f"{existing}:new", slot_of(existing)
        address = f"{slot} {owner.host}:{owner.port}"
        assert elsewhere.ask("XADD", new, "*", "at", "1") == f"MOVED {address}"
        cluster.begin_move([slot], other)
        said = str(tracked.ask("XADD", new, "*", "at", "1"))
        cluster.end_move([slot], owner, other)

        assert said == f"ASK {slot} {other.host}:{other.port}"
        assert other.cli("EXISTS", new) == "0"


def test_the_new_owner_is_known_to_the_old_one_as_soon_as_it_answers_moved(
    cluster: Cluster,
) -> None:
    with hearing(cluster) as (tracked, owner, other, existing, _):
        cluster.move_slot(slot_of(existing), other)

        assert tracked.read(existing) == f"MOVED {slot_of(existing)} {other.host}:{other.port}"
        assert slot_of(existing) in owner.sees()[other.id].slots


def shard_of(slot: int, seen_by: Node) -> list[tuple[str, str, str]]:
    """Return the ID, role and health of each node in the shard that has a slot."""
    shards = json.loads(seen_by.cli("--json", "CLUSTER", "SHARDS"))
    return [
        (node["id"], node["role"], node["health"])
        for shard in shards
        for first, last in batched(shard["slots"])
        if first <= slot <= last
        for node in shard["nodes"]
    ]


def batched(ends: list[int]) -> list[tuple[int, int]]:
    return list(zip(ends[::2], ends[1::2], strict=True))


def test_a_shard_may_name_two_primaries_the_failed_one_first(cluster: Cluster, kind: Kind) -> None:
    """Valkey leaves the one that has failed in the shard of its successor."""
    old, other, *_ = cluster.primaries()
    slot = min(cluster.sees()[old.id].slots)
    (replica,) = cluster.replicas_of(old)

    with frozen(old.process.pid):
        cluster.wait_promoted(replica)
        shard = shard_of(slot, other)

    failed = [(old.id, "master", "fail")] if kind == "valkey" else []
    assert sorted(shard) == sorted([*failed, (replica.id, "master", "online")])
    cluster.wait_whole()


def test_a_failed_primary_without_a_successor_keeps_its_slots_in_its_shard(
    kind: Kind, tmp_path: Path
) -> None:
    with clustered(tmp_path, kind) as cluster:
        old, other, last = cluster.primaries()
        own, lost = (stream_key(cluster.name_at(each, stream_key)) for each in (other, old))
        slot = slot_of(lost)
        with Tracked(other) as asked:
            old.kill()
            wait_for(
                lambda: shard_of(slot, other) == [(old.id, "master", "fail")],
                "the primary to be known as failed",
                30 * SECOND,
            )
            assert asked.read(lost) == f"MOVED {slot} {old.host}:{old.port}"
            assert asked.read(own) == []

            last.kill()

            # One of three is no majority, and serves not even its own slots.
            wait_for(
                lambda: asked.read(own) == "CLUSTERDOWN The cluster is down",
                "a cluster that is down",
                30 * SECOND,
            )


def test_a_message_is_heard_at_every_node(cluster: Cluster) -> None:
    with Tracked(cluster.nodes[-1]) as subscribed:
        subscribed.send("SUBSCRIBE", "bell")
        subscribed.ask("PING")  # the reply to SUBSCRIBE is a push, and so are messages
        for number, node in enumerate(cluster.nodes):
            node.cli("PUBLISH", "bell", f"from {number}")
        subscribed.until_heard(*(f"from {number}" for number in range(len(cluster.nodes))))
