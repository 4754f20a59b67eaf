"""The simulation on a cluster: slots move, primaries fail, and nodes do not agree for a while.

``Homes``, ``Moving``, ``parse_nodes`` and ``merged`` are the real ones, as is the tail of each
primary. What ``stream.cluster``, ``stream.survey`` and ``stream.known_merchants`` do with
connections is modeled here (``ModelCluster``, ``NodeFollower``), in the same order; so is another
process that adds entries, with slots that it has learned some time ago (``add``).

Of some losses no page is expected to hear:

- what an old primary takes after we have left it for the new one;
- what was added to a stream on its way, if the move is given up before any node was asked about it,
  or if the other node loses it before it is read: nothing announces either;
- what was added to a slot that is taken, without its streams, by the node that had it before, if no
  node was asked meanwhile.

Nor are in the end all primaries that we know replaced, cut off from the others, and answering us:
nobody else would be asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache, partial
from typing import Any, cast

from sse_push.notification import Entry, EntryId, Notification
from sse_push.stream.address import Place
from sse_push.stream.contract import Command
from sse_push.stream.homes import Homes
from sse_push.stream.moving import Membership, Moving, asked_place
from sse_push.stream.replies import ErrorReply, is_elsewhere
from sse_push.stream.slots import NO_SLOTS, Node, SlotMap, merged, parse_nodes
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Watch
from tests.simulation.model import REFUSED, ModelFollower
from tests.simulation.nodes import KINDS, MERCHANTS, SLOTS, Elsewhere, ModelNode
from tests.simulation.simulation import Following, Simulation

View = tuple[Node, ...]


@lru_cache(1000)
def parsed(text: str, place: Place) -> View:
    return tuple(parse_nodes(text.encode(), place))


@lru_cache(50)
def merged_views(views: tuple[View, ...]) -> SlotMap:
    return merged(views)


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("expected work that is done at once")


class ModelMoving(Moving):
    """Asks the nodes of the model."""

    nodes: Sequence[ModelNode]

    def ask_all(self) -> None:
        while self._queue:
            at_once(self._ask_one_place())

    async def _exchange(self, place: Place, commands: list[Command]) -> list[object]:
        node = next(node for node in self.nodes if node.place == place)
        if node.is_frozen:
            raise TimeoutError
        return [node.answer_asked(cast("Any", command)) for command in commands]

    def lost(self) -> None:
        self._queue.clear()
        self._on_their_way.clear()


class NodeFollower(ModelFollower):
    """One member: the follower of a primary, which answers a read, or sends it elsewhere."""

    redis: ModelNode
    moving_type: type[ModelMoving] = ModelMoving

    def join(self, membership: Membership) -> None:
        self.moving = self.moving_type(membership, self.read_again, self.doubt, 0)
        self.moving.nodes = self.redis.nodes
        self.refused: set[str] = set()

    def read_again(self, merchant_id: str | None) -> bool:
        assert merchant_id is not None, "no revocation moves here"
        return self.tail.read_again(merchant_id)

    def doubt(self, merchant_id: str) -> None:
        self.tail.announced(merchant_id)

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        self.leftovers.discard(merchant_id)
        self.tail.watch(merchant_id, is_taken_over=is_taken_over)

    def unwatch(self, merchant_id: str) -> None:
        super().unwatch(merchant_id)
        self.refused.discard(merchant_id)

    def hand_over(self, merchant_id: str) -> bool:
        is_armed = self.tail.is_armed(merchant_id)
        self.tail.unwatch(merchant_id)
        self.refused.discard(merchant_id)
        return is_armed

    def connect(self) -> None:
        if self.redis.primary is None and not self.redis.is_frozen:
            super().connect()

    def cut(self) -> None:
        super().cut()
        self.moving.lost()

    def serve_one(self) -> None:
        if not self.redis.is_frozen:
            super().serve_one()

    def receive_one(self) -> None:
        if not self.redis.is_frozen:
            super().receive_one()

    def reply(self, watch: Watch, value: Any) -> None:
        reply, read = value if isinstance(value, Elsewhere) else (value, None)
        on_answer = partial(self.answered, watch)
        if not self.moving.takes(watch.merchant_id, reply, cast("Any", read), on_answer):
            on_answer(reply)

    def answered(self, watch: Watch, value: object) -> None:
        if is_elsewhere(value):
            self.tail.refused(watch)
            return
        (self.refused.add if value is REFUSED else self.refused.discard)(watch.merchant_id)
        super().reply(watch, value)

    def read_refused(self) -> None:
        self.tail.turns.retry(64)


class ModelCluster:
    """Who follows what, by what the nodes say."""

    def __init__(
        self, nodes: Sequence[ModelNode], follow: Callable[[ModelNode], NodeFollower]
    ) -> None:
        self.nodes = nodes
        self.follow = follow
        self.slots = NO_SLOTS
        self.members: dict[str, NodeFollower] = {}
        self.homes: Homes[NodeFollower] = Homes(self.owner_of)
        self.is_doubted = False
        self.to_ask: deque[ModelNode] = deque()
        self.views: list[View] = []
        self.is_asking = False
        self.is_one_silent = False

    def owner_of(self, merchant_id: str) -> NodeFollower | None:
        return self.members.get(self.slots.owner_of(SLOTS[merchant_id]))

    def watch(self, merchant_id: str) -> None:
        self.homes.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        self.homes.unwatch(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        home = self.homes[merchant_id]
        return None if home is None else await home.between(merchant_id, start, end)

    def doubt(self) -> None:
        self.is_doubted = True

    def survey(self, most: int = 99) -> None:
        """Go on asking the nodes: at most so many now. Whoever is asked later may know more."""
        if not self.is_asking:
            self.is_asking = True
            self.is_doubted = False
            self.to_ask.extend(self.primaries())
        for _ in range(min(most, len(self.to_ask))):
            if not self.ask(self.to_ask.popleft()):
                self.is_one_silent = True
        if not self.to_ask:
            if self.is_one_silent or not self.members:
                self.ask_others()
            if self.views:
                self.settle(self.merged(self.views))
            self.views = []
            self.is_asking = self.is_one_silent = False

    def ask_others(self) -> None:
        """Ask all other nodes: whoever has answered may be the one that was cut off."""
        for node in self.nodes:
            if node.id not in self.members:
                self.ask(node)

    def primaries(self) -> list[ModelNode]:
        return [member.redis for member in self.members.values()]

    def ask(self, node: ModelNode) -> bool:
        """Ask a node; whether it answers."""
        if not node.is_frozen:
            self.views.append(parsed(node.view(), node.place))
        return not node.is_frozen

    def merged(self, views: list[View]) -> SlotMap:
        return merged_views(tuple(views))

    def settle(self, slots: SlotMap) -> None:
        before, self.slots = self.members, slots
        self.members = {
            node.id: before.get(node.id) or self.follow(node)
            for node in self.nodes
            if node.id in slots.nodes
        }
        self.move()
        for node_id, member in before.items():
            if node_id not in self.members:
                member.cut()
        for member in self.members.values():
            member.read_refused()
        for merchant_id, home in self.homes.items():
            if home is not None and SLOTS[merchant_id] in slots.moving:
                home.moving.expect(merchant_id)

    def move(self) -> None:
        self.homes.settle()


class ClusterSimulation(Simulation):
    """One run on a cluster of two or three primaries, some with a replica."""

    redis: ModelNode
    follower: NodeFollower
    redis_type = ModelNode
    plumbing = (*Simulation.plumbing, ("survey", 4), ("meet", 6), ("copy", 3), ("look_again", 2))
    disasters = (
        ("trim", 1),
        ("delete", 2),
        ("plant", 2),
        ("forget", 0.5),
        ("sweep", 0.3),
        ("flush", 0.3),
        ("other_type", 0.5),
        ("restart", 1),
        ("cut", 1),
        ("refuse", 0.5),
        ("move_slot", 8),
        ("take_over", 0.5),
        ("fail_over", 2),
        ("replace_all", 1.5),
        ("freeze", 0.5),
        ("heal", 1),
    )

    losses = frozenset({"trim", "delete", "flush", "restart"})
    """What does not happen to a node that a slot is on its way to, as failing does not."""

    def __init__(
        self,
        seed: int,
        *,
        follower: type[NodeFollower] = NodeFollower,
        cluster: type[ModelCluster] = ModelCluster,
    ) -> None:
        self.cluster_type = cluster
        super().__init__(seed, follower=follower)

    def begin(self, follower: type[ModelFollower], tail: type[Tail]) -> Following:
        self.nodes = [self.redis]
        others = self.chance.choice([1, 2, 2])
        primaries = [self.redis, *(self.new_node() for _ in range(others))]
        share = self.chance.choice([0.5, 1])
        for primary in primaries:
            if self.chance.random() < share:
                self.new_node().primary = primary
        owners = {slot: self.chance.choice(primaries) for slot in SLOTS.values()}
        owners |= {primary.number: primary for primary in primaries}
        kind = self.chance.choice([*KINDS.values()])
        for node in self.nodes:
            node.kind = kind
            node.nodes = self.nodes
            node.has_name = self.redis.has_name
            node.owners = dict(owners)
            node.epochs = {each: each.number if each in primaries else 0 for each in self.nodes}
            node.newest_epoch = len(self.nodes)

        def follow(node: ModelNode) -> NodeFollower:
            member = cast("NodeFollower", follower(node, tail, self.hub, self.may_plant))
            member.join(cast("Membership", self.cluster))
            return member

        self.cluster = self.cluster_type(self.nodes, follow)
        self.cluster.survey()
        self.turn_to(self.cluster.members[self.redis.id])
        return self.cluster

    def new_node(self) -> ModelNode:
        node = ModelNode(self.chance, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    @property
    def servers(self) -> Sequence[ModelNode]:
        return self.nodes

    def turn_to(self, member: NodeFollower) -> None:
        """Have whatever is next happen at one primary."""
        self.follower, self.redis, self.tail = member, member.redis, member.tail

    # -- what can happen

    def owner_of(self, slot: int) -> ModelNode:
        """Return the node that has a slot, as all will find."""
        claims = (node for node in self.nodes if node.has(slot))
        return max(claims, key=lambda node: (node.epochs[node], -node.number))

    def is_replaced(self, node: ModelNode) -> bool:
        return not any(self.owner_of(slot) is node for slot in node.owners)

    def add(self, notification: Notification) -> EntryId | None:
        """Add an entry where one of the nodes has said; if it is sent elsewhere, once more."""
        merchant_id = notification.merchant_id
        slot = SLOTS[merchant_id]
        node = self.chance.choice(self.nodes).owners[slot]
        reply = node.take(notification, self.max_entries)
        if isinstance(reply, ErrorReply):
            place = asked_place(reply)
            if place is None:
                node = self.owner_of(slot)
                reply = node.take(notification, self.max_entries)
            else:
                other = next(each for each in self.nodes if each.place == place)
                reply = other.take(notification, self.max_entries, is_asked=True)
                if self.is_replaced(other):
                    return None
        if not isinstance(reply, EntryId):
            return None
        home = self.cluster.owner_of(merchant_id)
        is_left = node is not self.owner_of(slot) and (home is None or home.redis is not node)
        return None if is_left else reply

    def act(self, name: str) -> None:
        self.turn_to(self.chance.choice([*self.cluster.members.values()]))
        if name not in self.losses or not self.redis.coming:
            super().act(name)

    def survey(self) -> None:
        self.cluster.survey(self.chance.choice([1, 99]))

    def reached(self) -> list[ModelNode]:
        return [node for node in self.nodes if not node.is_frozen and not node.is_cut_off]

    def meet(self) -> None:
        reached = self.reached()
        if len(reached) > 1:
            one, other = self.chance.sample(reached, 2)
            one.meet(other)

    def meet_all(self) -> None:
        reached = self.reached()
        for one in reached:
            for other in reached:
                if one is not other:
                    one.meet(other)

    def copy(self) -> None:
        for node in self.nodes:
            if node.primary is not None and node.primary.is_able:
                node.copy(may_announce=False)

    def look_again(self) -> None:
        self.follower.moving.look_again()

    def retry(self) -> None:
        """Send reads again that a server has refused; of others the next survey does that."""
        if self.follower.refused:
            super().retry()

    def move_slot(self) -> None:
        """Take the next step of a slot's way to another node."""
        merchant_id = self.chance.choice(self.merchants)
        slot = SLOTS[merchant_id]
        owner = self.owner_of(slot)
        others = [node for node in self.nodes if node.is_able and node is not owner]
        if not owner.is_able or not others:
            return
        other = next((each for each in others if slot in each.coming), None)
        if other is None or owner.leaving.get(slot) is not other:
            self.begin_move(slot, owner, other or self.chance.choice(others))
            return
        what = self.chance.choice(["send", "send", "end", "end", "give up"])
        if what == "send":
            owner.send(merchant_id, other)
        elif what == "end" and merchant_id not in owner.streams:
            self.end_move(slot, owner, other)
        elif what == "give up":
            self.give_up_move(slot)

    def begin_move(self, slot: int, owner: ModelNode, other: ModelNode) -> None:
        if other.owners[slot] is owner:
            other.coming[slot] = owner
            if self.chance.random() < 0.8:
                owner.leaving[slot] = other

    def end_move(self, slot: int, owner: ModelNode, other: ModelNode) -> None:
        if self.chance.random() < 0.3:
            owner.give(slot, other)
        other.claim([slot])
        if self.chance.random() < 0.5:
            owner.meet(other)
        if self.chance.random() < 0.5:
            self.meet_all()

    def give_up_move(self, slot: int) -> None:
        """Give up a move that we have seen; often right after something was added."""
        if slot not in self.cluster.slots.moving:
            return
        if self.chance.random() < 0.5:
            self.notify_once(MERCHANTS[slot])
        for node in self.nodes:
            if self.chance.random() < 0.8:
                node.coming.pop(slot, None)
            if self.chance.random() < 0.8:
                node.leaving.pop(slot, None)

    def mend(self) -> None:
        """End moves that are half given up: until then no client gets through."""
        for node in self.nodes:
            for slot, other in [*node.leaving.items()]:
                if slot not in other.coming or not other.is_able:
                    del node.leaving[slot]

    def take_over(self) -> None:
        """Have a node claim a slot without its stream, but not before we know its owner."""
        slot = self.chance.choice([*SLOTS.values()])
        owner = self.owner_of(slot)
        others = [node for node in self.nodes if node.is_able and node is not owner]
        if others and self.cluster.slots.owner_of(slot) == owner.id:
            self.chance.choice(others).claim([slot])

    def fail_over(self) -> None:
        """Promote a replica: its primary is frozen, cut off, or well, and knows it at once."""
        replicas = [node for node in self.reached() if node.primary is not None]
        if not replicas:
            return
        replica = self.chance.choice(replicas)
        before = cast("ModelNode", replica.primary)
        if self.is_elected(replica, before):
            kind = self.chance.choice(["order", "freeze", "freeze", "cut", "cut"])
            self.replace(before, replica, kind)

    def replace_all(self) -> None:
        """Replace one primary after the other before we ask again; often all of them are gone."""
        kinds = self.chance.choice([["freeze"], ["freeze"], ["order", "freeze", "cut"]])
        for replica in self.nodes:
            before = replica.primary
            if before is not None and replica in self.reached():
                self.meet_all()
                if self.is_elected(replica, before):
                    self.replace(before, replica, self.chance.choice(kinds))

    def replace(self, before: ModelNode, replica: ModelNode, kind: str) -> None:
        if kind == "order" and before.is_able:
            replica.copy(may_announce=False)
            replica.promote()
            before.meet(replica)
            return
        if self.chance.random() < 0.5:
            # The last notifications before the end are those that the replica does not have.
            replica.copy(may_announce=False)
            self.notify()
        before.is_frozen |= kind == "freeze"
        before.is_cut_off |= kind != "freeze"
        replica.promote()

    def is_elected(self, replica: ModelNode, before: ModelNode) -> bool:
        """Tell whether most primaries are there, and know of no newer claim to its slots."""
        primaries = {self.owner_of(slot) for slot in before.owners}
        voters = [node for node in primaries if node.is_able and node is not before]
        claimed = [slot for slot, owner in replica.owners.items() if owner is before]
        is_right = all(self.owner_of(slot) is before for slot in claimed)
        return is_right and not before.coming and 2 * len(voters) > len(primaries)

    def freeze(self) -> None:
        self.redis.is_frozen = not self.redis.is_frozen

    def heal(self) -> None:
        for node in self.nodes:
            if self.chance.random() < 0.5:
                node.is_frozen = False
            if self.chance.random() < 0.5:
                node.is_cut_off = False

    def pump(self) -> None:
        for member in [*self.cluster.members.values()]:
            self.turn_to(member)
            if member.is_connected and not member.redis.is_frozen:
                super().pump()
                member.moving.ask_all()

    # -- a run

    async def run(self, actions: int) -> None:
        await super().run(actions)
        # Whoever is deaf by now does not hear of this.
        for merchant_id in self.merchants:
            self.notify_once(merchant_id)
        await self.rest(rounds=3)
        self.judge()

    async def rest(self, rounds: int = 14) -> None:
        """Some of the primaries that others have replaced never learn of it; some moves stop.

        But not all that we ask, if they answer.
        """
        for slot in SLOTS.values():
            if self.chance.random() < 0.3:
                self.give_up_move(slot)
        for node in self.nodes:
            if not self.is_replaced(node) or self.chance.random() < 0.5:
                node.is_frozen = node.is_cut_off = False
        known = self.cluster.primaries()
        if all(node.is_cut_off and not node.is_frozen for node in known):
            self.chance.choice(known).is_cut_off = False
        await super().rest(rounds)

    def look_around(self) -> None:
        self.meet_all()
        self.mend()
        self.cluster.survey()
        for member in [*self.cluster.members.values()]:
            member.moving.look_again()

    def catch_up(self) -> None:
        for member in [*self.cluster.members.values()]:
            self.turn_to(member)
            self.reconnect()
            self.retry()
            self.tail.turns.collect()
        self.pump()
