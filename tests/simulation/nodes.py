"""A model of the nodes of a cluster: what each stores, and what it believes of the others' slots.

Each merchant is a slot. Each primary has one slot more, which stays with it and its replicas, so
that it is asked whatever else it has. Nodes agree as those of Redis do: of two claims to a slot the
one with the newer epoch is right, and a node learns of it when it meets another node.
``test_nodes`` holds all that against real nodes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

from sse_push.notification import Entry, EntryId, Notification
from sse_push.stream.address import Place
from sse_push.stream.reads import Read
from sse_push.stream.replies import ErrorReply
from sse_push.stream.slots import slot_of
from tests.harness.keys import KEYS
from tests.simulation.model import ModelRedis, copied

SLOTS = {merchant_id: slot_of(KEYS.stream(merchant_id)) for merchant_id in ("m1", "m2")}
MERCHANTS = {slot: merchant_id for merchant_id, slot in SLOTS.items()}


class Kind(NamedTuple):
    """What servers differ in, as ``test_nodes`` finds it."""

    announces_what_it_loses: bool
    """A node that loses a slot announces the streams that it deletes."""
    forgets_moves: bool
    """A node forgets that a slot was on its way from it or to it when another one claims that."""
    takes_what_is_given: bool
    """A node claims a slot that is on its way to it when the owner says that it has it no more."""


KINDS = {
    "redis": Kind(
        announces_what_it_loses=False,
        forgets_moves=False,
        takes_what_is_given=False,
    ),
    "valkey": Kind(
        announces_what_it_loses=True,
        forgets_moves=True,
        takes_what_is_given=True,
    ),
}


class Elsewhere(NamedTuple):
    """The reply of a node that does not answer a read itself."""

    error: ErrorReply
    read: Read


class ModelNode(ModelRedis):
    """One node; ``nodes`` has all of them, and ``number`` is a slot that it has for itself."""

    kind = KINDS["redis"]

    def __init__(
        self, chance: random.Random, number: int = 1, nodes: list[ModelNode] | None = None
    ) -> None:
        super().__init__(chance)
        self.number = number
        self.id = f"{number:040x}"
        self.place = Place("node", number)
        self.run_id = 1000 * number
        self.time_ms += number  # no two nodes give one ID
        self.nodes = nodes or []
        self.primary: ModelNode | None = None
        """The primary that it copies, if it is a replica."""
        self.before: ModelNode | None = None
        """The primary that it was promoted instead of."""
        self.epochs: dict[ModelNode, int] = {}
        self.newest_epoch = 0
        """The newest epoch that it has heard of."""
        self.owners: dict[int, ModelNode] = {}
        self.unclaimed: set[int] = set()
        """Slots whose owner, as far as it knows, has them no more: who claims one is believed."""
        self.leaving: dict[int, ModelNode] = {}
        """Its slots that are on their way, and to whom (MIGRATING)."""
        self.coming: dict[int, ModelNode] = {}
        """Slots that are on their way to it, and from whom (IMPORTING)."""
        self.is_frozen = False
        """It answers nobody."""
        self.is_cut_off = False
        """It meets no other node; clients do reach it."""

    @property
    def is_able(self) -> bool:
        """Whether it is a primary that all others reach."""
        return self.primary is None and not self.is_frozen and not self.is_cut_off

    def has(self, slot: int) -> bool:
        return self.owners[slot] is self

    # -- what clients ask

    def elsewhere(self, merchant_id: str, *, is_asked: bool = False) -> ErrorReply | None:
        """Return the error with which it sends a client elsewhere; ``is_asked``: after ASKING."""
        slot = SLOTS[merchant_id]
        if not self.has(slot):
            if is_asked and slot in self.coming:
                return None
            return ErrorReply(f"MOVED {slot} {self.owners[slot].place}")
        if slot in self.leaving and merchant_id not in self.streams:
            return ErrorReply(f"ASK {slot} {self.leaving[slot].place}")
        return None

    def answer(self, read: Read, *, arms: bool = True) -> list[Entry] | object | None:
        error = self.elsewhere(read.merchant_id)
        if error is None or self.is_refusing:
            return super().answer(read, arms=arms)
        return Elsewhere(error, read)

    def answer_asked(self, read: Read) -> object:
        """Answer a read that ASKING precedes, on a connection that is not tracked."""
        return self.elsewhere(read.merchant_id, is_asked=True) or super().answer(read, arms=False)

    def take(
        self, notification: Notification, max_entries: int, *, is_asked: bool = False
    ) -> EntryId | ErrorReply | None:
        """Add an entry, unless it is frozen, or the stream is elsewhere, or refused."""
        if self.is_frozen:
            return None
        self.tick()
        error = self.elsewhere(notification.merchant_id, is_asked=is_asked)
        return error or self.xadd(notification, max_entries=max_entries)

    def plant(self, merchant_id: str, *, is_if_missing: bool) -> None:
        if not self.is_frozen and self.elsewhere(merchant_id) is None:
            super().plant(merchant_id, is_if_missing=is_if_missing)

    def set_other_type(self, merchant_id: str) -> None:
        if self.elsewhere(merchant_id) is None:
            super().set_other_type(merchant_id)

    def view(self) -> str:
        """Return what it replies to CLUSTER NODES."""
        return "\n".join(map(self._line, self.nodes))

    def _line(self, node: ModelNode) -> str:
        slots = [str(slot) for slot in sorted(self.owners) if self.owners[slot] is node]
        flags = "master" if slots or node.primary is None else "slave"
        if node is self:
            flags = f"myself,{flags}"
            ways = {slot: f"-<-{other.id}" for slot, other in self.coming.items()}
            ways |= {slot: f"->-{other.id}" for slot, other in self.leaving.items()}
            slots += [f"[{slot}{way}]" for slot, way in ways.items()]
        fields = [node.id, f"{node.place}@1", flags, "-", "0", "0", str(self.epochs[node])]
        return " ".join([*fields, "connected", *slots])

    # -- what nodes do

    def send(self, merchant_id: str, other: ModelNode) -> None:
        """Send a stream to another node (MIGRATE), unless that one says that it is elsewhere."""
        if merchant_id in self.streams and not other.elsewhere(merchant_id, is_asked=True):
            other.streams[merchant_id] = self.streams.pop(merchant_id)
            other.changed(merchant_id)
            self.changed(merchant_id)

    def claim(self, slots: Iterable[int]) -> None:
        """Have slots from now on, with an epoch that is newer than any that it has heard of.

        Another node that has not met it may claim the same slots with the same epoch.
        """
        if self.epochs[self] < self.newest_epoch:
            self._take_newer_epoch()
        for slot in slots:
            self.owners[slot] = self
            self.unclaimed.discard(slot)
            self.coming.pop(slot, None)
            if MERCHANTS.get(slot) not in self.streams:
                self.leaving.pop(slot, None)

    def _take_newer_epoch(self) -> None:
        self.newest_epoch += 1
        self.epochs[self] = self.newest_epoch

    def give(self, slot: int, other: ModelNode) -> None:
        """Believe that another node has a slot, whatever that one says itself (SETSLOT NODE)."""
        self.owners[slot] = other
        self.leaving.pop(slot, None)

    def promote(self) -> None:
        """Be the primary from now on, instead of the one that it has copied."""
        assert self.primary is not None, "a replica is promoted"
        self.before, self.primary = self.primary, None
        self.newest_epoch = max(node.newest_epoch for node in self.nodes)  # those elect it
        self.claim([slot for slot, owner in self.owners.items() if owner is self.before])

    def meet(self, other: ModelNode) -> None:
        """Hear what another node says of itself."""
        self.epochs[other] = other.epochs[other]
        self.newest_epoch = max(self.newest_epoch, other.newest_epoch)
        for slot, owner in self.owners.items():
            is_newer = self.epochs[owner] < self.epochs[other] or slot in self.unclaimed
            if owner is other:
                (self.unclaimed.discard if other.has(slot) else self.unclaimed.add)(slot)
                is_given = not other.has(slot) and self.coming.get(slot) is other
                if is_given and self.kind.takes_what_is_given:
                    self.claim([slot])
            elif other.has(slot) and is_newer and self._believes(other, slot):
                self.owners[slot] = other
                self.unclaimed.discard(slot)
                if owner is self:
                    self._lose(slot)
        is_tie = self.primary is other.primary is None and self.epochs[self] == self.epochs[other]
        if is_tie and self.id < other.id:
            self._take_newer_epoch()
        is_replaced = self.primary is None and other.before is self
        if is_replaced and not any(map(self.has, self.owners)):
            self.primary, self.before = other, None
            self.leaving.clear()
            self.coming.clear()
            self.copy()

    def copy(self, *, may_announce: bool = True) -> None:
        """Copy all from its primary, as a replica."""
        assert self.primary is not None, "a replica copies"
        self.streams = copied(self.primary.streams)
        if may_announce and self.tracked is not None and self.chance.random() < 0.5:
            self.tracked = set()
            self.out.append(("announcement", None))

    def _believes(self, other: ModelNode, slot: int) -> bool:
        """Whether a newer claim counts, which is not that of whom the slot is on its way from."""
        if self.kind.forgets_moves:
            if self.coming.get(slot) is not other:
                self.coming.pop(slot, None)
            return True
        return slot not in self.coming

    def _lose(self, slot: int) -> None:
        """Delete what another one has now."""
        if self.kind.forgets_moves:
            self.leaving.pop(slot, None)
        stream = self.streams.pop(MERCHANTS.get(slot, ""), None)
        if stream is not None and self.kind.announces_what_it_loses:
            self.changed(MERCHANTS[slot])
