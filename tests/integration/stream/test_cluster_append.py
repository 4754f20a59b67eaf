"""A record is sent elsewhere once, and what the second node says is its result.

One whose slot nobody has waits until the nodes have answered.
"""

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
from sse_push.stream.append import RECORDS_WAITING, Appender
from sse_push.stream.cluster_append import ClusterAppender
from sse_push.stream.outcomes import Record, Result
from sse_push.stream.replies import ErrorReply
from tests.harness.keys import KEYS
from tests.harness.waiting import SECOND, until

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
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def try_all(
        self, records: Sequence[Record], *, within_s: float, is_asked: bool = False
    ) -> list[Result]:
        assert 0 <= within_s <= 5
        self.got += [(record, is_asked) for record in records]
        await self.may_answer.wait()
        return [self.result for _ in records]


class Owners:
    """Which node has which key, now and after the next news."""

    def __init__(self, now: dict[str, Node], then: dict[str, Node] | None = None) -> None:
        self.now, self.then = now, then
        self.places: dict[Place, Node] = {}
        self.doubts = 0
        self.answered = asyncio.Event()
        """The nodes have answered, if it is a test that lets them."""

    def appender_of(self, key: str) -> Appender | None:
        return cast("Appender | None", self.now.get(key))

    def appender_at(self, place: Place) -> Appender:
        return cast("Appender", self.places[place])

    def doubt(self) -> None:
        self.doubts += 1

    async def news(self) -> None:
        if self.then is None:
            await self.answered.wait()
        else:
            self.now = self.then


def appending(owners: Owners, timeout_s: float = 5) -> ClusterAppender:
    return ClusterAppender(owners, KEYS, AppendTally(), timeout_s=timeout_s)


A, B, C = (Notification(each) for each in "abc")
KEY_A, KEY_B, KEY_C = (KEYS.stream(each) for each in "abc")


async def test_each_record_goes_to_its_node_and_results_keep_their_order() -> None:
    one, two = Node(STORED), Node(refused("OOM no memory"))
    known = {KEY_A: one, KEY_B: two, KEYS.revocations: one}
    owners = Owners(known, known)
    appender = appending(owners)

    first, second, third, fourth = await appender.append_all([A, B, C, Revocation("a")])

    assert (first, second, fourth) == (STORED, two.result, STORED)
    assert "expected a primary of the cluster that has the stream" in str(third)
    assert [record for record, _ in one.got] == [A, Revocation("a")]
    assert appender.tally.outcomes == {"stored": 1, "not_published": 2, "unknown": 0}


async def test_while_no_reply_disagrees_no_node_is_asked_for_its_slots() -> None:
    owners = Owners({KEY_A: Node(STORED), KEY_B: Node(refused("OOM no memory"))})

    await appending(owners).append_all([A, B])

    assert owners.doubts == 0


async def test_before_the_nodes_have_answered_records_wait_for_that() -> None:
    owners, node = Owners({}), Node(STORED)
    appender = appending(owners)
    waiting = asyncio.create_task(appender.append_all([A, Revocation("a")]))
    await until(lambda: appender._waiting == 2, "records that wait")
    assert owners.doubts == 1

    owners.now = {KEY_A: node, KEYS.revocations: node}
    owners.answered.set()

    assert await waiting == [STORED, STORED]
    assert node.got == [(A, False), (Revocation("a"), False)]
    assert appender._waiting == 0


async def test_a_slot_that_nobody_has_once_the_nodes_have_answered_is_refused() -> None:
    node = Node(STORED)

    first, second = await appending(Owners({}, {KEY_B: node})).append_all([A, B])

    assert "expected a primary of the cluster that has the stream" in str(first)
    assert isinstance(first, StreamUnavailable)
    assert first.outcome == "not_published"
    assert second == STORED


async def test_records_wait_for_the_nodes_for_as_long_as_they_have_time() -> None:
    appender = appending(Owners({}), timeout_s=0.01)

    with pytest.raises(StreamUnavailable, match="expected a primary of the cluster") as caught:
        async with asyncio.timeout(5 * SECOND):
            await appender.append(A)

    assert caught.value.outcome == "not_published"
    assert appender._waiting == 0
    assert appender.tally.outcomes["not_published"] == 1


async def test_a_record_whose_caller_has_left_is_not_sent_when_the_nodes_answer() -> None:
    owners, node = Owners({}), Node(STORED)
    appender = appending(owners)
    leaving, staying = (asyncio.create_task(appender.append_all([each])) for each in (A, B))
    await until(lambda: appender._waiting == 2, "records that wait")

    leaving.cancel()
    await asyncio.wait([leaving])
    assert appender._waiting == 1
    owners.now = {KEY_A: node, KEY_B: node}
    owners.answered.set()

    assert await staying == [STORED]
    assert node.got == [(B, False)]


async def test_so_many_records_wait_for_the_nodes_and_no_more() -> None:
    owners, node, moved = Owners({}), Node(STORED), Node(refused("MOVED 1 h:2"))
    appender = appending(owners)
    waiting = asyncio.create_task(appender.append_all([A] * (RECORDS_WAITING - 1)))
    await until(lambda: appender._waiting == RECORDS_WAITING - 1, "records that wait")

    owners.now = {KEY_B: moved}
    last = asyncio.create_task(appender.append_all([B]))
    await until(lambda: appender._waiting == RECORDS_WAITING, "the last one that may wait")
    for each in (A, B):
        with pytest.raises(StreamUnavailable, match="waiting for their slots") as caught:
            await appender.append(each)
        assert caught.value.outcome == "not_published"

    owners.now = {KEY_A: node, KEY_B: node}
    owners.answered.set()
    assert await waiting == [STORED] * (RECORDS_WAITING - 1)
    assert await last == [STORED]


async def test_a_primary_without_an_answer_keeps_no_record_of_another_one_waiting() -> None:
    silent, old, new = Node(STORED), Node(refused("MOVED 1 h:2")), Node(STORED)
    silent.may_answer.clear()
    owners = Owners({KEY_A: silent, KEY_B: old}, {KEY_A: silent, KEY_B: new})
    waiting = asyncio.create_task(appending(owners).append_all([A, B]))

    await until(lambda: new.got == [(B, False)], "the record at its new owner")

    assert not waiting.done()
    silent.may_answer.set()
    assert await waiting == [STORED, STORED]


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
