"""The simulation's model of a cluster's nodes, held against real ones.

Chance makes a sequence of operations on three primaries; the real ones and the model carry it out.
After each operation every reply is compared, what each node announces on a tracked connection, and
what each says of the slots: their owners, which are on their way, and whose epoch is newer.

Real nodes meet when they like. So the model's meet after each operation, all of them, and the real
ones get time until they say the same. A node that hears no other one is tried where a server can be
told not to listen.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from sse_push.notification import EntryId, Notification
from sse_push.stream.address import Place
from sse_push.stream.contract import ASKING, parse_entries, read_command
from sse_push.stream.reads import Read
from sse_push.stream.replies import ErrorReply
from sse_push.stream.seeds import NodeAddress
from sse_push.stream.slots import parse_nodes
from tests.harness.cluster import Cluster, Node, clustered
from tests.harness.keys import stream_key
from tests.harness.redis import Kind
from tests.harness.waiting import SECOND, Deadline
from tests.simulation.model import NEVER
from tests.simulation.nodes import KINDS, MERCHANTS, SLOTS, Elsewhere, ModelNode
from tests.simulation.test_model import Message, RealRedis, connected, data_of

SEQUENCES = 20
OPERATIONS = 40
AGREE_S = 5 * SECOND
DEAF_FOR = 6
"""So many operations."""

CAN_BE_DEAF = {"redis": False, "valkey": True}
"""Whether a node can be told to drop all that others say; Redis 7.0 drops one kind of packets."""


SETTINGS = {"enable-debug-command": "yes", "cluster-node-timeout": str(round(2000 * SECOND))}


class View(NamedTuple):
    """What a node says of the slots that merchants have."""

    owners: dict[int, str]
    epochs: dict[str, int]
    """Those of the primaries."""
    moving: tuple[str, ...]
    """Which slots are on their way to or from the node itself."""

    def __str__(self) -> str:
        return re.sub("0{30,}", "", repr(self))

    @classmethod
    def of(cls, text: str, asked: Place) -> View:
        nodes = parse_nodes(text.encode(), asked)
        primaries = [node for node in nodes if node.is_primary]
        owners = {
            slot: node.id
            for node in primaries
            for first, last in node.slots
            for slot in sorted(MERCHANTS)
            if first <= slot <= last
        }
        moving = re.findall(r"\[\d+-[<>]-\w+\]", text)
        epochs = {node.id: node.epoch for node in primaries}
        return cls(owners, epochs, tuple(sorted(moving)))


class Pair(NamedTuple):
    """A real node and its model."""

    node: Node
    real: RealRedis
    model: ModelNode


class Comparison:
    """One sequence of operations on both."""

    def __init__(self, seed: int, kind: Kind, reached: Sequence[tuple[Node, RealRedis]]) -> None:
        self.chance = random.Random(seed)
        self.can_be_deaf = CAN_BE_DEAF[kind]
        reached = sorted(reached, key=lambda each: each[0].id)
        models = [ModelNode(self.chance, number + 1) for number in range(len(reached))]
        self.pairs = [Pair(*each, model) for each, model in zip(reached, models, strict=True)]
        self.chance.shuffle(self.pairs)  # in the order of their epochs, oldest first
        self.names: dict[str, str] = {}
        before, last = (each.model for each in self.pairs[-2:])
        owners = {slot: self.chance.choice([before, last]) for slot in MERCHANTS}
        owners[self.chance.choice([*MERCHANTS])] = last
        for node, _, model in self.pairs:
            self.names |= {node.id: model.id, f"{node.host}:{node.port}": str(model.place)}
            model.kind = KINDS[kind]
            model.is_ordered = True  # RESP3
            model.nodes = models
            model.epochs = dict.fromkeys(models, 0)
            model.owners = dict(owners)
            model.connect()
        self.deaf: Pair | None = None
        """The node that hears no other one."""
        self.serial = 0
        self.history: list[str] = []

    def add_replica(self, node: Node, real: RealRedis, primary: Pair) -> Pair:
        """Have a replica take part, whose primary has begun to."""
        model = ModelNode(self.chance, len(self.pairs) + 1)
        model.kind, model.is_ordered, model.primary = primary.model.kind, True, primary.model
        model.nodes = primary.model.nodes
        model.nodes.append(model)
        model.owners = dict(primary.model.owners)
        model.epochs = dict(primary.model.epochs)
        for each in model.nodes:
            each.epochs[model] = 0
        model.newest_epoch = primary.model.newest_epoch
        model.connect()
        self.names |= {node.id: model.id, f"{node.host}:{node.port}": str(model.place)}
        self.pairs.append(Pair(node, real, model))
        return self.pairs[-1]

    # -- the real nodes

    async def begin(self) -> None:
        """Have the real nodes own what the model's do, and the model's have their epochs."""
        for pair in self.pairs:
            for slot in MERCHANTS:
                await self.do(pair, "CLUSTER", "SETSLOT", slot, "STABLE")
        for pair in self.pairs:
            for slot in MERCHANTS:
                if pair is not self.pairs[-1] or pair.model.has(slot):
                    await self.take_for_real(pair, slot)
        await self.agree(lambda views: all(view.epochs == views[0].epochs for view in views))
        epochs = (await self.view_of(self.pairs[0])).epochs
        for pair in self.pairs:
            pair.model.epochs = {each.model: epochs[each.model.id] for each in self.pairs}
            pair.model.newest_epoch = max(epochs.values())
            await self.do(pair, "FLUSHALL")
            await pair.real.reconnect()
            await self.until_up(pair)
        await self.compare()

    async def until_up(self, pair: Pair) -> None:
        """Wait until a node answers: one that has missed the others for long does so later."""
        deadline = Deadline(AGREE_S)
        while "cluster_state:ok" not in str(await pair.real.do("CLUSTER", "INFO")):
            assert not await deadline.is_missed(), "expected a node that is up"

    async def take_for_real(self, pair: Pair, slot: int) -> None:
        owner = (await self.view_of(pair)).owners[slot]
        if owner != pair.model.id:
            node_id = next(each.node.id for each in self.pairs if each.model.id == owner)
            await self.do(pair, "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id)
            await self.do(pair, "CLUSTER", "SETSLOT", slot, "NODE", pair.node.id)
            await self.agree(
                lambda views: all(each.owners[slot] == pair.model.id for each in views)
            )

    async def do(self, pair: Pair, *words: str | bytes | int) -> None:
        reply = await pair.real.do(*words)
        assert reply == b"OK", f"{words}: {reply!r}"

    async def view_of(self, pair: Pair) -> View:
        reply = await pair.real.do("CLUSTER", "NODES")
        assert isinstance(reply, bytes)
        return View.of(self.in_words_of_the_model(reply.decode()), pair.model.place)

    def in_words_of_the_model(self, text: str) -> str:
        for name, in_model in self.names.items():
            text = text.replace(name, in_model)
        return text

    async def agree(self, is_so: Callable[[list[View]], bool]) -> None:
        """Wait until the real nodes say what is expected."""
        deadline = Deadline(AGREE_S)
        while not is_so(views := [await self.view_of(each) for each in self.pairs]):
            if await deadline.is_missed():
                wanted = [*map(str, self.views_of_model())]
                raise AssertionError(f"expected {wanted}, got {[*map(str, views)]}")

    def says_the_same(self, views: list[View]) -> bool:
        return views == self.views_of_model()

    def views_of_model(self) -> list[View]:
        return [View.of(each.model.view(), each.model.place) for each in self.pairs]

    # -- a sequence

    async def run(self) -> None:
        names = ["add", "read", "read_asked", "begin_move", "send", "end_move", "end_at_owner"]
        names += ["give_up", "take", "bump", "delete", "reconnect", "turn_deaf", "move_and_back"]
        weights = [10, 8, 4, 5, 4, 3, 1, 1, 0.7, 0.3, 1, 0.5, 0.5, 0.7]
        await self.begin()
        deaf_for = 0
        for name in self.chance.choices(names, weights, k=OPERATIONS):
            merchant_id = self.chance.choice(["m1", "m1", "m1", "m2"])
            self.history.append(f"{name} {merchant_id}")
            await getattr(self, name)(merchant_id)
            await self.compare()
            # Not for so long that it takes the others for failed.
            deaf_for = deaf_for + 1 if self.deaf is not None else 0
            if deaf_for > DEAF_FOR:
                await self.turn_deaf("")
                await self.compare()
        if self.deaf is not None:
            await self.turn_deaf("")
            await self.compare()

    async def compare(self) -> None:
        """Have all nodes meet, and compare what they say then, and what they have announced."""
        self.meet_all()
        await self.agree(self.says_the_same)
        for pair in self.pairs:
            announced, expected = await pair.real.announced(), self.messages(pair.model)
            assert announced == expected, (
                f"expected {expected} at {pair.model.place}, got {announced}"
            )

    def meet_all(self) -> None:
        """Have all meet twice; the newest claim is heard first, as its node tells all at once."""
        hearing = [each.model for each in self.pairs if each is not self.deaf]
        for one in hearing * 2:
            for other in sorted(one.nodes, key=lambda each: -each.epochs[each]):
                if other is not one:
                    one.meet(other)

    def messages(self, model: ModelNode) -> list[Message]:
        messages = []
        while model.out:
            kind, value = model.take_out()
            messages.append((kind, self.words(value) if kind == "reply" else value))
        return messages

    def words(self, value: object) -> object:
        """Return what a reply of either says, in the words of the model."""
        if isinstance(value, Elsewhere):
            value = value.error
        if isinstance(value, ErrorReply):
            return self.in_words_of_the_model(str(value))
        if isinstance(value, list):
            return data_of(value)
        return "stored" if isinstance(value, bytes | EntryId) else value

    def any_pair(self) -> Pair:
        pair = self.chance.choice(self.pairs)
        self.history[-1] += f" at {pair.model.place}"
        return pair

    def other_than(self, pair: Pair) -> Pair:
        return self.chance.choice([each for each in self.pairs if each is not pair])

    def pair_of(self, model: ModelNode) -> Pair:
        return next(each for each in self.pairs if each.model is model)

    def owners(self, slot: int) -> list[Pair]:
        return [each for each in self.pairs if each.model.has(slot)]

    # -- what clients ask

    async def add(self, merchant_id: str, at: Pair | None = None) -> None:
        pair, is_asked = at or self.any_pair(), self.chance.random() < 0.3
        self.serial += 1
        notification = Notification(merchant_id, data=str(self.serial))
        pair.model.tick()
        in_model = pair.model.take(notification, 100, is_asked=is_asked)
        xadd = ("XADD", stream_key(merchant_id), "*", "data", self.serial)
        *_, reply = await pair.real.do_all([ASKING, xadd] if is_asked else [xadd])
        got, expected = self.words(reply), self.words(in_model)
        assert got == expected, f"expected {expected}, got {got}"

    async def read(self, merchant_id: str, at: Pair | None = None) -> None:
        pair, read = at or self.any_pair(), self.any_read(merchant_id)
        pair.model.out.append(("reply", pair.model.answer(read)))
        await pair.real.tracked.send([read_command(stream_key(merchant_id), read)])
        *before, (kind, reply) = await pair.real.messages(merchant_id)
        if isinstance(reply, ErrorReply):
            reply = self.words(reply)
        got, expected = [*before, (kind, reply)], self.messages(pair.model)
        assert got == expected, f"expected {expected}, got {got}"

    async def read_asked(self, merchant_id: str, at: Pair | None = None) -> None:
        pair, read = at or self.any_pair(), self.any_read(merchant_id)
        in_model = pair.model.answer_asked(read)
        command = read_command(stream_key(merchant_id), read)
        *_, reply = await pair.real.do_all([ASKING, command])
        if not isinstance(reply, ErrorReply):
            reply = parse_entries(merchant_id, reply, data_limit_bytes=8192)
        got, expected = self.words(reply), self.words(in_model)
        assert got == expected, f"expected {expected}, got {got}"

    def any_read(self, merchant_id: str) -> Read:
        return Read(merchant_id, self.chance.choice([None, NEVER]))

    async def delete(self, merchant_id: str) -> None:
        for pair in self.owners(SLOTS[merchant_id]):
            pair.model.delete(merchant_id)
            await pair.real.do("DEL", stream_key(merchant_id))

    async def reconnect(self, _merchant_id: str) -> None:
        pair = self.any_pair()
        pair.model.connect()
        await pair.real.reconnect()

    # -- what whoever moves slots does

    async def begin_move(self, merchant_id: str) -> None:
        """Let the other node know, the owner, or both."""
        slot = SLOTS[merchant_id]
        owner = self.chance.choice(self.owners(slot) or self.pairs)
        other = self.other_than(owner)
        self.history[-1] += f" from {owner.model.place} to {other.model.place}"
        if not other.model.has(slot) and self.chance.random() < 0.9:
            other.model.coming[slot] = owner.model
            await self.do(other, "CLUSTER", "SETSLOT", slot, "IMPORTING", owner.node.id)
        if owner.model.has(slot) and self.chance.random() < 0.9:
            owner.model.leaving[slot] = other.model
            await self.do(owner, "CLUSTER", "SETSLOT", slot, "MIGRATING", other.node.id)

    async def move_and_back(self, merchant_id: str) -> None:
        """Move a slot away, and back with what was added meanwhile; clients have read both."""
        slot = SLOTS[merchant_id]
        if self.deaf is None and len(owners := self.owners(slot)) == 1:
            owner, other = owners[0], self.other_than(owners[0])
            for one, another in ((owner, other), (other, owner)):
                await self.read(merchant_id, at=one)
                another.model.coming[slot] = one.model
                await self.do(another, "CLUSTER", "SETSLOT", slot, "IMPORTING", one.node.id)
                one.model.leaving[slot] = another.model
                await self.do(one, "CLUSTER", "SETSLOT", slot, "MIGRATING", another.node.id)
                await self.add(merchant_id)
                await self.send(merchant_id)
                await self.end_move(merchant_id, at=another)
                await self.compare()

    async def send(self, merchant_id: str) -> None:
        """Send the stream, which clients have often read before; some nodes refuse it."""
        for owner in self.owners(SLOTS[merchant_id]):
            to = owner.model.leaving.get(SLOTS[merchant_id])
            if to is not None:
                other = self.pair_of(to)
                for each in (owner, other):
                    if self.chance.random() < 0.5:
                        await self.read(merchant_id, at=each)
                was_there = merchant_id in owner.model.streams
                owner.model.send(merchant_id, to)
                is_gone = merchant_id not in owner.model.streams
                words = ("MIGRATE", other.node.host, other.node.port, stream_key(merchant_id))
                reply = await owner.real.do(*words, 0, 5000, "REPLACE")
                assert reply == b"OK" if was_there and is_gone else reply != b"OK", reply
                return

    async def end_move(self, merchant_id: str, at: Pair | None = None) -> None:
        """Let the new owner know, whether it has been given the stream or not."""
        slot = SLOTS[merchant_id]
        for pair in [at] if at else self.pairs:
            if slot in pair.model.coming:
                await self.end_other_imports(pair, slot)
                pair.model.claim([slot])
                await self.do(pair, "CLUSTER", "SETSLOT", slot, "NODE", pair.node.id)
                return

    async def end_other_imports(self, pair: Pair, slot: int) -> None:
        """Let a claim be the only one: who takes what is given may hear of that first."""
        for other in self.pairs:
            takes = other.model.kind.takes_what_is_given and slot in other.model.coming
            if takes and other is not pair:
                del other.model.coming[slot]
                other.model.leaving.pop(slot, None)
                await self.do(other, "CLUSTER", "SETSLOT", slot, "STABLE")

    async def end_at_owner(self, merchant_id: str) -> None:
        """Let the owner know first, which has sent the stream."""
        slot = SLOTS[merchant_id]
        importers = [each for each in self.pairs if slot in each.model.coming]
        for pair in self.owners(slot):
            to = pair.model.leaving.get(slot)
            if to is not None and merchant_id not in pair.model.streams and len(importers) < 2:
                pair.model.give(slot, to)
                node_id = self.pair_of(to).node.id
                await self.do(pair, "CLUSTER", "SETSLOT", slot, "NODE", node_id)
                await self.read(merchant_id, at=pair)
                for other in importers:
                    await self.read_asked(merchant_id, at=other)
                return

    async def give_up(self, merchant_id: str) -> None:
        slot = SLOTS[merchant_id]
        for pair in self.pairs:
            if self.chance.random() < 0.7:
                pair.model.leaving.pop(slot, None)
                pair.model.coming.pop(slot, None)
                await self.do(pair, "CLUSTER", "SETSLOT", slot, "STABLE")

    async def take(self, merchant_id: str) -> None:
        """Have a node claim a slot by a newer epoch, without its streams."""
        slot = SLOTS[merchant_id]
        pair = self.any_pair()
        if not pair.model.has(slot):
            await self.end_other_imports(pair, slot)
            pair.model.claim([slot])
            node_id = next(each.node.id for each in self.pairs if each is not pair)
            await self.do(pair, "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id)
            await self.do(pair, "CLUSTER", "SETSLOT", slot, "NODE", pair.node.id)

    async def bump(self, _merchant_id: str) -> None:
        """Give a node a newer epoch, with which it claims no more than before."""
        pair = self.any_pair()
        pair.model.claim([])
        await pair.real.do("CLUSTER", "BUMPEPOCH")

    # -- what the network does

    async def promote(self, replica: Pair) -> list[Message]:
        """Promote a replica that has all; return what its primary announces as it copies that."""
        primary = self.pair_of(cast("ModelNode", replica.model.primary))
        await self.do(replica, "CLUSTER", "FAILOVER")
        replica.model.copy(may_announce=False)
        replica.model.promote()
        self.meet_all()
        await self.agree(self.says_the_same)
        await self.until_copied(primary)
        primary.model.connect()
        announced = await primary.real.announced()
        await primary.real.reconnect()
        return announced

    async def until_copied(self, replica: Pair) -> None:
        deadline = Deadline(AGREE_S)
        while "master_link_status:up" not in str(await replica.real.do("INFO", "replication")):
            assert not await deadline.is_missed(), "expected a replica that has copied all"

    async def turn_deaf(self, _merchant_id: str) -> None:
        """Have a node hear no other one; or again, if one does not."""
        if self.deaf is not None:
            await self.do(self.deaf, "DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
            self.deaf = None
        elif self.can_be_deaf:
            self.deaf = self.any_pair()
            await self.do(self.deaf, "DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)


@pytest.fixture(params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    either: Kind = request.param
    return either


@pytest.fixture
def servers(kind: Kind, tmp_path: Path) -> Generator[Cluster]:
    with clustered(tmp_path, kind, settings=SETTINGS) as started:
        yield started


@dataclass(frozen=True, slots=True)
class AnyNode(NodeAddress):
    """A node that may be a replica."""

    @property
    def needs_primary(self) -> bool:
        return False


@asynccontextmanager
async def reaching(cluster: Cluster) -> AsyncGenerator[list[tuple[Node, RealRedis]]]:
    async with AsyncExitStack() as stack:
        yield [
            (node, await stack.enter_async_context(connected(AnyNode.parse(node.url))))
            for node in cluster.nodes
        ]


async def test_the_model_of_nodes_replies_and_announces_as_a_cluster_does(
    servers: Cluster, kind: Kind
) -> None:
    async with reaching(servers) as reached:
        for seed in range(SEQUENCES):
            comparison = Comparison(seed, kind, reached)
            try:
                await comparison.run()
            except AssertionError as exc:
                pytest.fail(f"seed {seed}: {exc}; {', '.join(comparison.history)}")


async def test_the_model_of_a_failover_is_that_of_a_cluster(kind: Kind, tmp_path: Path) -> None:
    with clustered(tmp_path, kind, replicas=1, settings=SETTINGS) as servers:
        async with reaching(servers) as reached:
            comparison = Comparison(0, kind, reached[:3])
            await comparison.begin()
            primary = comparison.pairs[-1]
            (node,) = servers.replicas_of(primary.node)
            real = next(each for other, each in reached if other is node)
            replica = comparison.add_replica(node, real, primary)
            assert await primary.real.do("WAIT", 1, round(5000 * SECOND)) == 1
            await real.reconnect()
            merchant_id = next(each for each in SLOTS if primary.model.has(SLOTS[each]))
            for before, after in ((primary, replica), (replica, primary)):
                for at in (before, after):
                    await comparison.add(merchant_id, at=at)
                    await comparison.read(merchant_id, at=at)
                await comparison.compare()

                # Both servers copy in part what they have not; a whole copy is announced as such.
                assert await comparison.promote(after) in ([], [("announcement", None)])

                for at in (before, after):
                    await comparison.read(merchant_id, at=at)
                    await comparison.read_asked(merchant_id, at=at)
                await comparison.compare()
