"""How long it is since a member of a cluster was proved, one that has just appeared included."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from unittest.mock import MagicMock

from sse_push.stream.address import Address, Place
from sse_push.stream.listener import Listener
from sse_push.stream.member import Member
from sse_push.stream.outcomes import AppendTally
from sse_push.stream.primary import Terms
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.slots import NO_SLOTS, Node, SlotMap
from tests.harness.waiting import SECOND
from tests.unit.stream.test_primary import TERMS

NODE = Node(
    "7" * 40, Place("node", 7), is_primary=True, is_failed=False, epoch=1, slots=(), leaving=()
)


@dataclass
class OneServer:
    """A cluster of which nothing is known but where its nodes are."""

    listener: Listener = field(default_factory=MagicMock)
    terms: Terms = TERMS
    appended: AppendTally = field(default_factory=AppendTally)
    revocations: RevocationTail = field(default_factory=MagicMock)
    slots: SlotMap = NO_SLOTS

    def at(self, place: Place) -> Address:
        return Address(place.host, place.port)

    def doubt(self) -> None: ...


async def test_a_primary_that_appears_counts_from_then_on_until_it_is_proved() -> None:
    member = Member(OneServer(), NODE, is_first=False)

    first = member.age_s
    assert first < 10 * SECOND
    while member.age_s == first:
        pass  # until the clock has moved
    assert first < member.age_s < 20 * SECOND


async def test_a_primary_that_is_there_at_the_start_is_not_proved_yet() -> None:
    assert Member(OneServer(), NODE, is_first=True).age_s == math.inf
