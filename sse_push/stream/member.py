"""One primary of a cluster: followed like a server of its own, and what it knows of the others.

Knows which questions of its follower the cluster answers. Does not know the other members.
"""

from __future__ import annotations

import math
import time
from typing import Protocol

from sse_push.stream.address import Address, Place
from sse_push.stream.listener import Listener
from sse_push.stream.outcomes import AppendTally
from sse_push.stream.pipeline import until_one_fails
from sse_push.stream.primary import Primary, Terms
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.slots import Node, SlotMap, slot_of
from sse_push.stream.standing import StreamName

_LATE_SHARE = 2 / 3
"""A probe that is missing for so much of its deadline is late: the age of the last one is told to
other processes in steps, and is still young there when the deadline is over here."""


class Whole(Protocol):
    """What a member needs of its cluster."""

    listener: Listener
    terms: Terms
    appended: AppendTally
    revocations: RevocationTail
    slots: SlotMap

    def at(self, place: Place) -> Address:
        """Return the address of the node at a place."""

    def doubt(self) -> None:
        """Have the nodes asked at once."""


class Member:
    """One primary, and what it knows of its cluster."""

    def __init__(self, cluster: Whole, node: Node, *, is_first: bool) -> None:
        self._cluster = cluster
        self.node = node
        self._began_at = -math.inf if is_first else time.monotonic()
        """A primary that appears later has a while to be reached before it counts as unready."""
        self.follower, self.appender = Primary.at(
            cluster.at(node.place), cluster.listener, cluster.terms, self, cluster.appended
        )

    @property
    def revocations(self) -> RevocationTail:
        """Follows the stream of revocations, whichever member has it."""
        return self._cluster.revocations

    @property
    def age_s(self) -> float:
        """As ``Follower.age_s``; since it is known, until then."""
        return min(self.follower.age_s, time.monotonic() - self._began_at)

    @property
    def is_away(self) -> bool:
        """Whether the primary itself is the reason that nothing is proved there."""
        return self.follower.probe.is_away()

    @property
    def is_late(self) -> bool:
        """Whether that is likely soon."""
        return self.follower.probe.is_away(_LATE_SHARE)

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        """As ``Home.watch``."""
        self.follower.merchants.watch(merchant_id, is_taken_over=is_taken_over)

    def unwatch(self, merchant_id: str) -> None:
        """As ``Home.unwatch``."""
        self.follower.unwatch(merchant_id)

    def hand_over(self, merchant_id: str) -> bool:
        """As ``Home.hand_over``."""
        return self.follower.merchants.hand_over(merchant_id)

    def read_refused(self) -> None:
        """Read what could not be read while it was elsewhere, or the node was not there yet."""
        if not self.follower.revocations.is_complete:
            self.follower.revocations.mark()
        self.follower.merchants.read_refused()

    def expect_move(self, stream: StreamName) -> None:
        """Note that the slot of a stream is on its way to another node."""
        assert self.follower.moving is not None, "a member was given what it knows of its cluster"
        self.follower.moving.expect(stream)

    def has(self, key: bytes) -> bool:
        """Tell whether the primary has the slot of a key."""
        return self._cluster.slots.owner_of(slot_of(key)) == self.node.id

    def doubt(self) -> None:
        """Note that a reply disagrees with what is known of the slots."""
        self._cluster.doubt()

    def at(self, place: Place) -> Address:
        """Return the address of another node."""
        return self._cluster.at(place._replace(host=place.host or self.node.place.host))

    async def run(self) -> None:
        """Follow the primary until it is no member any more."""
        await until_one_fails(self.follower.run(), self.follower.give_up_if_deaf())
