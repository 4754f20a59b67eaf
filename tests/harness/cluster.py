"""A Redis Cluster of a test's own, of Redis or Valkey, and what an operator does with it.

Knows the commands that form a cluster and change it. Does not know what is stored.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Literal, NamedTuple

from tests.harness.processes import state_of
from tests.harness.redis import Kind, Redis
from tests.harness.waiting import SECOND, free_port, wait_for

SLOTS = 16_384
NODE_TIMEOUT_MS = round(1000 * SECOND)
"""How long a node is silent before the others take it for failed."""

WHOLE_S = 30 * SECOND


def slot_of(key: str) -> int:
    """Return the slot of a key: that of what stands in its braces, if it has any."""
    tag = re.search(r"\{([^}]*)\}", key)
    return binascii.crc_hqx(((tag and tag[1]) or key).encode(), 0) % SLOTS


class Seen(NamedTuple):
    """A node, as one of them sees it: ``CLUSTER NODES``."""

    id: str
    flags: Collection[str]
    primary_id: str
    slots: set[int]


@dataclass
class Node(Redis):
    """A server of a cluster."""

    bus_port: int = 0
    is_away: bool = False
    """Nobody asks a node whose network is cut."""

    @cached_property
    def id(self) -> str:
        return self.cli("CLUSTER", "MYID")

    @property
    def address(self) -> tuple[str, str, str]:
        return (self.host, str(self.port), str(self.bus_port))

    @property
    def is_asked(self) -> bool:
        """Whether it runs, and is not frozen."""
        if self.is_away or self.process.poll() is not None:
            return False
        return state_of(self.process.pid) != "T"

    def sees(self) -> dict[str, Seen]:
        """Return all nodes by ID, itself included."""
        found = {}
        for line in self.cli("CLUSTER", "NODES").splitlines():
            node_id, _, flags, primary_id, _, _, _, _, *ranges = line.split()
            slots: set[int] = set()
            for first, _, last in (each.partition("-") for each in ranges if each[0] != "["):
                slots.update(range(int(first), int(last or first) + 1))
            found[node_id] = Seen(node_id, flags.split(","), primary_id, slots)
        return found

    def do(self, *words: str) -> None:
        """Run a command that has to succeed."""
        said = self.cli(*words)
        assert said == "OK", f"{words}: {said}"

    def send(self, commands: Iterable[Sequence[str]]) -> None:
        """Send commands all at once; each has to succeed."""
        try:
            self.cli("--pipe", given="".join(f"{' '.join(each)}\r\n" for each in commands))
        except CalledProcessError as exc:
            raise AssertionError(exc.stdout + exc.stderr) from exc

    def keys(self, slots: Collection[int]) -> list[str]:
        """Return the keys that it has in these slots."""
        return [key for key in self.cli("KEYS", "*").splitlines() if slot_of(key) in slots]


@dataclass
class Cluster:
    """Servers that have met."""

    folder: Path
    kind: Kind
    password: str = ""
    host: str = "127.0.0.1"
    settings: Mapping[str, str] = field(default_factory=dict)
    """Those of every node, beside what makes it one of a cluster."""
    nodes: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address that a user would write: that of the first nodes, all of them or three."""
        hosts = ",".join(f"{each.host}:{each.port}" for each in self.nodes[:3])
        return f"redis+cluster://{self.password and f':{self.password}@'}{hosts}"

    @classmethod
    def start(
        cls,
        folder: Path,
        kind: Kind,
        *,
        primaries: int = 3,
        replicas: int = 0,
        password: str = "",
        host: str = "127.0.0.1",
        settings: Mapping[str, str] | None = None,
    ) -> Cluster:
        """Start primaries, each with an equal part of the slots, and as many replicas each."""
        cluster = cls(folder, kind, password, host, settings or {})
        try:
            for _ in range(primaries * (1 + replicas)):
                cluster.start_node(host)
            cluster.form(primaries)
        except BaseException:
            cluster.kill()
            raise
        return cluster

    def form(self, primaries: int) -> None:
        """Let the nodes meet; those after the first so many become replicas, in turn."""
        for number, node in enumerate(self.nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for number, node in enumerate(self.nodes[:primaries]):
            begin, end = (SLOTS * each // primaries for each in (number, number + 1))
            node.do("CLUSTER", "ADDSLOTSRANGE", str(begin), str(end - 1))
        self.meet()
        for number, node in enumerate(self.nodes[primaries:]):
            node.do("CLUSTER", "REPLICATE", self.nodes[number % primaries].id)
        self.wait_whole()
        wait_for(
            lambda: all(
                len(node.sees()[each.id].primary_id) > 1
                for node in self.nodes
                for each in self.nodes[primaries:]
            ),
            "all nodes to know whose the replicas are",
            WHOLE_S,
        )

    # -- who is who

    @property
    def asked(self) -> list[Node]:
        return [each for each in self.nodes if each.is_asked]

    def sees(self) -> dict[str, Seen]:
        """Return the cluster as one of its nodes sees it."""
        return self.asked[0].sees()

    def node(self, node_id: str) -> Node:
        return next(each for each in self.nodes if each.id == node_id)

    def primaries(self) -> list[Node]:
        """Return the nodes that own slots, in the order in which they were started."""
        owners = {each.id for each in self.sees().values() if each.slots}
        return [each for each in self.nodes if each.id in owners]

    def replicas_of(self, primary: Node) -> list[Node]:
        seen = self.sees()
        return [each for each in self.nodes if seen[each.id].primary_id == primary.id]

    def owner_of(self, key: str | int) -> Node:
        """Return the primary that owns a key, or a slot."""
        slot = key if isinstance(key, int) else slot_of(key)
        return self.node(next(each.id for each in self.sees().values() if slot in each.slots))

    def name_at(self, node: Node, key: Callable[[str], str], skip: int = 0) -> str:
        """Return a name, such as that of a merchant, whose key a node owns; or the next one."""
        slots = self.sees()[node.id].slots
        found = (name for number in range(SLOTS) if slot_of(key(name := f"m{number}")) in slots)
        return [next(found) for _ in range(skip + 1)][-1]

    # -- its nodes

    def add_node(
        self, primary: Node | None = None, *, host: str | None = None, through: Sequence[str] = ()
    ) -> Node:
        """Start a node without slots, or a replica, and wait until it serves."""
        node = self.start_node(host or self.host, through)
        self.meet()
        if primary is not None:
            node.do("CLUSTER", "REPLICATE", primary.id)
        self.wait_whole()
        return node

    def start_node(self, host: str, through: Sequence[str] = ()) -> Node:
        """Start a node that knows nobody yet."""
        folder = self.folder / f"node{len(list(self.folder.glob('node*')))}"
        folder.mkdir()
        bus_port = free_port()
        settings = {
            "cluster-enabled": "yes",
            "cluster-port": bus_port,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": 0,
            **self.settings,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        node = self._run(folder, words, host=host, through=through)
        node.bus_port = bus_port
        self.nodes.append(node)
        return node

    def restart(self, node: Node, through: Sequence[str] = ()) -> None:
        """Start a node again where it was: it remembers the cluster, and none of its keys."""
        node.process = self._run(
            node.folder, node.arguments, port=node.port, host=node.host, through=through
        ).process

    def _run(self, folder: Path, arguments: Sequence[str], **terms: Any) -> Node:
        terms |= {"kind": self.kind, "password": self.password}
        return Node.start(folder, *arguments, **terms)

    def remove_node(self, node: Node) -> None:
        """Forget a node without slots everywhere, and end it."""
        self.nodes.remove(node)
        for other in self.asked:
            other.do("CLUSTER", "FORGET", node.id)
        node.kill()

    def failover(self, replica: Node, how: Literal["", "FORCE", "TAKEOVER"] = "") -> None:
        """Promote a replica, and wait until all know of it."""
        replica.do("CLUSTER", "FAILOVER", *([how] if how else []))
        self.wait_promoted(replica)

    def wait_promoted(self, replica: Node) -> None:
        wait_for(
            lambda: all(each.sees()[replica.id].slots for each in self.asked),
            "the replica to be known as the primary",
            WHOLE_S,
        )

    # -- slots

    def move_slot(self, slot: int, to: Node, *, with_keys: bool = True) -> None:
        """Move a slot as ``redis-cli --cluster reshard`` does; its keys stay behind without."""
        self.move_slots([slot], to, with_keys=with_keys)

    def move_slots(self, slots: Collection[int], to: Node, *, with_keys: bool = True) -> None:
        """Move slots of one owner to another one."""
        owner = self.begin_move(slots, to)
        self.end_move(slots, owner, to, with_keys=with_keys)

    def begin_move(self, slots: Collection[int], to: Node) -> Node:
        """Begin to move slots; return their owner.

        From now on it answers ASK for each key that it has not.
        """
        owner = self.owner_of(next(iter(slots)))
        to.send(("CLUSTER", "SETSLOT", str(each), "IMPORTING", owner.id) for each in slots)
        owner.send(("CLUSTER", "SETSLOT", str(each), "MIGRATING", to.id) for each in slots)
        return owner

    def end_move(
        self, slots: Collection[int], owner: Node, to: Node, *, with_keys: bool = True
    ) -> None:
        """End a move that has begun: the keys, and then the ownership, known to all."""
        if with_keys:
            self.migrate(owner.keys(slots), owner, to)
        said = [("CLUSTER", "SETSLOT", str(each), "NODE", to.id) for each in slots]
        to.send(said)
        with suppress(AssertionError):  # it may have heard, and be a replica without slots
            owner.send(said)
        self.wait_owned(slots, to)

    def abort_move(self, slots: Collection[int], owner: Node, to: Node) -> None:
        """Give up a move that has begun; what the other node has already been given comes back."""
        owner.send(("CLUSTER", "SETSLOT", str(each), "STABLE") for each in slots)
        self.migrate(to.keys(slots), to, owner)
        to.send(("CLUSTER", "SETSLOT", str(each), "STABLE") for each in slots)

    def migrate(self, keys: Sequence[str], owner: Node, to: Node) -> None:
        """Move keys, while their slots are being moved."""
        password = f"AUTH {self.password} " if self.password else ""
        head = f'MIGRATE {to.host} {to.port} "" 0 5000 {password}KEYS'
        owner.send([head, key] for key in keys)

    def take_slots(self, slots: Collection[int], to: Node) -> None:
        """Let a node claim slots by a newer epoch: their owner drops its keys."""
        owner = self.owner_of(next(iter(slots)))
        to.send(("CLUSTER", "SETSLOT", str(each), "IMPORTING", owner.id) for each in slots)
        to.send(("CLUSTER", "SETSLOT", str(each), "NODE", to.id) for each in slots)
        self.wait_owned(slots, to)

    def disown_slot(self, slot: int) -> None:
        """Have nobody own a slot; a node that has not heard of it yet may tell the others again."""

        def is_nobodys() -> bool:
            for node in self.asked:
                node.cli("CLUSTER", "DELSLOTS", str(slot))
            seen = (each for node in self.asked for each in node.sees().values())
            return not any(slot in each.slots for each in seen)

        wait_for(is_nobodys, "a slot without an owner", WHOLE_S)

    def move_atomically(self, first: int, last: int, to: Node) -> None:
        """Move slots, with their keys, as Valkey 9 does by itself."""
        words = ("MIGRATESLOTS", "SLOTSRANGE", str(first), str(last), "NODE", to.id)
        self.owner_of(first).do("CLUSTER", *words)
        self.wait_owned(range(first, last + 1), to)

    # -- until all of them know

    def meet(self) -> None:
        """Introduce the nodes to each other, until all are connected to all others."""
        wait_for(self._have_met, "the nodes to meet", WHOLE_S)

    def _have_met(self) -> bool:
        # A handshake that takes longer than the node timeout is given up: it is begun again.
        first, *others = self.asked
        known = first.sees()
        for each in others:
            if each.id not in known:
                first.do("CLUSTER", "MEET", *each.address)
        ids = {each.id for each in self.asked}
        return all(
            ids <= seen.keys() and not any("handshake" in each.flags for each in seen.values())
            for seen in (known, *(each.sees() for each in others))
        )

    def wait_owned(self, slots: Collection[int], by: Node) -> None:
        wait_for(
            lambda: all(each.sees()[by.id].slots >= set(slots) for each in self.asked),
            "the slots to be known as the node's",
            WHOLE_S,
        )

    def wait_whole(self) -> None:
        """Wait until every node serves, knows who owns what, and has all that its primary has."""
        try:
            wait_for(lambda: all(map(_is_whole, self.asked)), "a cluster that is whole", WHOLE_S)
        except AssertionError as exc:
            views = [(each.port, each.cli("CLUSTER", "NODES")) for each in self.asked]
            raise AssertionError(f"{exc}, got {views}") from exc

    def kill(self) -> None:
        for each in self.nodes:
            each.kill()


def _is_whole(node: Node) -> bool:
    replication = node.cli("INFO", "replication")
    cluster = node.cli("CLUSTER", "INFO")
    return {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}"} <= set(cluster.split()) and (
        "role:master" in replication or "master_link_status:up" in replication
    )


@contextmanager
def clustered(folder: Path, kind: Kind, **terms: Any) -> Generator[Cluster]:
    """Run a cluster while the context lasts; its terms are those of ``Cluster.start``."""
    cluster = Cluster.start(folder, kind, **terms)
    try:
        yield cluster
    finally:
        cluster.kill()
