"""A record is sent elsewhere once, and what the second node says is its result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, EventId, Notification
from sse_push.stream import AppendTally
from sse_push.stream.address import Place
from sse_push.stream.append import Appender
from sse_push.stream.cluster_append import ClusterAppender, Result
from sse_push.stream.outcomes import Record
from sse_push.stream.replies import ErrorReply
from tests.harness.keys import KEYS

STORED = EventId(EntryId(7, 0), "h")


def refused(reply: str) -> StreamUnavailable:
    error = StreamUnavailable(reply)
    error.__cause__ = ErrorReply(reply)
    return error


class Node:
    """What adds at a node that answers the same each time."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.history = "owner"
        self.got: list[tuple[Record, bool]] = []

    async def try_all(
        self, records: Sequence[Record], *, within_s: float, is_asked: bool = False
    ) -> list[Result]:
        assert 0 <= within_s <= 5
        self.got += [(record, is_asked) for record in records]
        return [self.result for _ in records]


class Owners:
    """Which node has which key, now and after the next news."""

    def __init__(self, now: dict[str, Node], then: dict[str, Node] | None = None) -> None:
        self.now, self.then = now, then
        self.places: dict[Place, Node] = {}
        self.doubts = 0

    def appender_of(self, key: str) -> Appender | None:
        return cast("Appender | None", self.now.get(key))

    def appender_at(self, place: Place) -> Appender:
        return cast("Appender", self.places[place])

    def doubt(self) -> None:
        self.doubts += 1

    async def news(self) -> None:
        if self.then is None:
            await asyncio.Event().wait()
        else:
            self.now = self.then


def appending(owners: Owners, timeout_s: float = 5) -> ClusterAppender:
    return ClusterAppender(owners, KEYS, AppendTally(), timeout_s=timeout_s)


A, B, C = (Notification(each) for each in "abc")
KEY_A, KEY_B, KEY_C = (KEYS.stream(each) for each in "abc")


async def test_each_record_goes_to_its_node_and_results_keep_their_order() -> None:
    one, two = Node(STORED), Node(refused("OOM no memory"))
    owners = Owners({KEY_A: one, KEY_B: two, KEYS.revocations: one})
    appender = appending(owners)

    first, second, third, fourth = await appender.append_all([A, B, C, Revocation("a")])

    assert (first, second, fourth) == (STORED, two.result, STORED)
    assert "expected a primary of the cluster that has the stream" in str(third)
    assert [record for record, _ in one.got] == [A, Revocation("a")]
    assert appender.tally.outcomes == {"stored": 1, "not_published": 2, "unknown": 0}
    assert owners.doubts == 0


@pytest.mark.parametrize("reply", ["MOVED 1 h:2", "CLUSTERDOWN no", "TRYAGAIN later", "ASK 1"])
async def test_a_record_that_is_elsewhere_goes_to_its_new_owner_once_that_is_known(
    reply: str,
) -> None:
    old, new = Node(refused(reply)), Node(STORED)
    owners = Owners({KEY_A: old}, {KEY_A: new})

    assert await appending(owners).append(A) == STORED
    assert (len(old.got), new.got, owners.doubts) == (1, [(A, False)], 1)


async def test_a_record_on_its_way_goes_with_asking_to_the_node_that_is_named() -> None:
    old, new, other = Node(refused("ASK 1 ::1:2")), Node(STORED), Node(STORED)
    owners = Owners({KEY_A: old, KEY_B: other})
    owners.places[Place("::1", 2)] = new

    assert await appending(owners).append_all([A, B]) == [EventId(STORED.entry_id, "owner"), STORED]
    assert (new.got, other.got, owners.doubts) == ([(A, True)], [(B, False)], 1)


async def test_nodes_that_name_each_other_are_not_asked_for_ever() -> None:
    one, two = Node(refused("MOVED 1 h:2")), Node(refused("MOVED 1 h:1"))
    appender = appending(Owners({KEY_A: one}, {KEY_A: two}))

    with pytest.raises(StreamUnavailable) as caught:
        await appender.append(A)

    assert caught.value is two.result
    assert caught.value.outcome == "not_published"
    assert (len(one.got), len(two.got)) == (1, 1)
    assert appender.tally.outcomes["not_published"] == 1


async def test_without_news_the_record_is_tried_where_it_was_before_its_time_is_over() -> None:
    node = Node(refused("MOVED 1 h:2"))

    (result,) = await appending(Owners({KEY_A: node}), timeout_s=0.01).append_all([A])

    assert result is node.result
    assert len(node.got) == 2


async def test_a_record_on_its_way_that_is_refused_there_is_not_stored() -> None:
    old, new = Node(refused("ASK 1 h:2")), Node(refused("MOVED 1 h:1"))
    owners = Owners({KEY_A: old})
    owners.places[Place("h", 2)] = new

    assert await appending(owners).append_all([A]) == [new.result]


async def test_the_owner_may_be_gone_when_a_record_is_sent_on() -> None:
    old, new = Node(refused("ASK 1 h:2")), Node(STORED)
    owners = Owners({KEY_A: old})
    owners.places[Place("h", 2)] = new
    owners.doubt = owners.now.clear  # type: ignore[method-assign]

    assert await appending(owners).append_all([A]) == [EventId(STORED.entry_id, "")]
