"""Which primary of a cluster has which slots, as its nodes say.

Knows the reply to CLUSTER NODES, and which of several replies is right about a slot. Does not know
connections, merchants, nor what follows from a change (``cluster``).

https://redis.io/docs/latest/commands/cluster-nodes/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis.crc import key_slot

from sse_push.stream.address import Place

SLOTS = 16_384

_LEAVING = re.compile(r"\[([0-9]{1,5})->-[0-9a-f]+\]")

_FIELDS = 8
"""A line has that many fields, and then the slots, if the node has any."""


class Node(NamedTuple):
    """What one node of a cluster says of a node, itself or another one."""

    id: str
    place: Place
    is_primary: bool
    is_failed: bool
    """Most primaries agree that it is away."""
    epoch: int
    """Its claim to its slots is newer than each one with a smaller number."""
    slots: tuple[tuple[int, int], ...]
    """The first and the last slot of each of its ranges."""
    leaving: tuple[int, ...]
    """Its slots that are on their way to another node, if it says so of itself."""
    is_own: bool = False
    """The node says this of itself."""


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The primaries that have slots, by their IDs, and the owner of each slot.

    A place in ``owners`` is empty for a slot that nobody has. ``moving`` has the slots that are on
    their way from their owner to another node.
    """

    nodes: Mapping[str, Node]
    owners: Sequence[str]
    moving: frozenset[int] = frozenset()

    def owner_of(self, slot: int) -> str:
        """Return the ID of the primary that has a slot; empty if none has."""
        return self.owners[slot]


NO_SLOTS = SlotMap({}, ("",) * SLOTS)
"""What is known before any node has answered."""


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def parse_nodes(reply: object, asked: Place, *, by_name: bool = False) -> list[Node]:
    """Return the nodes in the reply to CLUSTER NODES; none if it is another reply.

    A node that has met no other one does not know its own address: it is where it was ``asked``.
    ``by_name``: a node is at its host name, if it has one, which a certificate of TLS may be for.
    Fields and flags that are not known here are ignored.
    """
    if not isinstance(reply, bytes):
        return []
    lines = (line.split(" ") for line in reply.decode("utf-8", "replace").splitlines())
    nodes = (_node(fields, asked, by_name=by_name) for fields in lines if len(fields) >= _FIELDS)
    return [node for node in nodes if node is not None]


def merged(views: Iterable[Sequence[Node]]) -> SlotMap:
    """Return what is right of several nodes' views: each slot belongs to its newest claim.

    While a slot moves, or after a failover, nodes differ: those who have not heard of it yet still
    have the claim before, which has a smaller epoch. But a node may have a newer epoch without that
    claim, for another slot; and who has not heard of the slot's new owner, or has begun to import
    the slot and was never told to end that, says both of it together. So what a node claims itself
    counts first.
    """
    all_nodes = [node for view in views for node in view]
    own = {node.id: node for node in all_nodes if node.is_own}
    claims = {
        (not _is_refuted(node, own.get(node.id)), node.epoch, node.id, node): None
        for node in all_nodes
        if node.is_primary and node.slots
    }
    owners = [""] * SLOTS
    nodes: dict[str, Node] = {}
    failed: set[str] = set()
    for _, _, node_id, node in sorted(claims):
        nodes[node_id] = node
        if node.is_failed:
            failed.add(node_id)
        for first, last in node.slots:
            owners[first : last + 1] = [node_id] * (last + 1 - first)
    with_slots = set(owners)
    return SlotMap(
        {
            node_id: node._replace(is_failed=node_id in failed)
            for node_id, node in nodes.items()
            if node_id in with_slots
        },
        tuple(owners),
        frozenset(
            slot
            for _, _, node_id, node in claims
            for slot in node.leaving
            if owners[slot] == node_id
        ),
    )


def _is_refuted(node: Node, own: Node | None) -> bool:
    """Whether a node that is asked itself says something else of its slots, and no earlier."""
    return own is not None and node.epoch <= own.epoch and node.slots != own.slots


def _node(fields: Sequence[str], asked: Place, *, by_name: bool) -> Node | None:
    node_id, address, flags, _, _, _, epoch, _, *slots = fields
    place = _place(address, asked, by_name=by_name)
    names = flags.split(",")
    if place is None or not epoch.isdecimal() or "noaddr" in names or "handshake" in names:
        return None
    return Node(
        node_id,
        place,
        is_primary="master" in names,
        is_failed="fail" in names,
        epoch=int(epoch),
        slots=tuple(each for text in slots if (each := _range(text)) is not None),
        leaving=tuple(int(match[1]) for text in slots if (match := _LEAVING.fullmatch(text))),
        is_own="myself" in names,
    )


def _place(address: str, asked: Place, *, by_name: bool) -> Place | None:
    """Return the place in ``ip:port@bus[,name[,...]]``."""
    where, *names = address.split(",")
    host, _, port = where.partition("@")[0].rpartition(":")
    if not port.isdecimal():
        return None
    if by_name and names and names[0]:
        host = names[0]
    return Place(host or asked.host, int(port) or asked.port)


def _range(text: str) -> tuple[int, int] | None:
    """Return the range in ``5461-10922`` or ``7``; None for a slot on its way, ``[93->-id]``."""
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return None
    ends = int(first), int(last or first)
    return ends if ends[0] <= ends[1] < SLOTS else None
