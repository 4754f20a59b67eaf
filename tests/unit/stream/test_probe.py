"""The probe, with what it asks answered by hand."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, EventId
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.probe import Probe, ProbePace
from sse_push.stream.proof import Deaf, ProbeLost, ServersDiffer, Unannounced
from sse_push.stream.replies import ErrorReply, Refusals, WrongServer
from tests.harness.keys import KEYS
from tests.harness.waiting import SECOND

SERVER, OTHER = b"run_id:1", b"run_id:2"
BUSY = ErrorReply("BUSY a script runs")
NOTHING: list[object] = []
OURS: list[object] = [[b"5-0", [b"topic", b"probe"]]]


class Hand:
    """Answers a probe: the reads in this order, each entry as announced, everything else as well.

    A read that is an exception without a code of Redis is a connection that was lost.
    """

    def __init__(
        self,
        *reads: object,
        deadline_s: float = 60,
        has: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.reads = list(reads)
        self.time: object = [b"1000", b"0"]
        self.failures: list[Exception] = []
        """What the next entries are answered with."""
        self.used = {SERVER}
        self.dialed: bytes | OSError = SERVER
        self.arriving_bytes = 0
        self.is_announced = True
        self.refusals = Refusals()
        self.probe = Probe(
            self.ask,
            self.partial_bytes,
            self,
            self.dial,
            self.refusals,
            KEYS,
            ProbePace(1, deadline_s, 2 * deadline_s),
            has,
        )

    async def ask(self, command: tuple[object, ...]) -> object:
        if command == ("TIME",):
            return self.time
        if self.is_announced:
            self.probe.announced()
        return self.reads.pop(0)

    async def append(self, _record: object) -> EventId:
        if self.failures:
            raise self.failures.pop(0)
        if self.is_announced:
            self.probe.announced()
        return EventId(EntryId(5, 0), "")

    def take_used(self) -> set[bytes]:
        return self.used

    def renew(self) -> None:
        self.used = set()

    async def dial(self) -> bytes:
        if isinstance(self.dialed, OSError):
            raise self.dialed
        return self.dialed

    def partial_bytes(self) -> int:
        """Return ever more while bytes arrive; when they end, the entry is announced."""
        if self.arriving_bytes:
            self.arriving_bytes -= 1
            if not self.arriving_bytes:
                self.probe.announced()
        return -self.arriving_bytes


async def test_an_entry_that_is_announced_and_read_is_found() -> None:
    hand = Hand(NOTHING, OURS)
    assert hand.probe.age_s == math.inf

    assert await hand.probe.check(SERVER)

    assert hand.probe.age_s < 60
    assert hand.probe.redis_time_s == pytest.approx(1000, abs=60)


async def test_an_announcement_of_something_else_is_waited_past() -> None:
    hand = Hand(NOTHING, NOTHING, NOTHING, OURS)

    assert await hand.probe.check(SERVER)

    assert hand.reads == []


@pytest.mark.parametrize("reads", [(BUSY,), (NOTHING, BUSY)], ids=["at first", "in the end"])
async def test_a_refused_read_proves_nothing(reads: tuple[Any, ...]) -> None:
    hand = Hand(*reads)

    assert not await hand.probe.check(SERVER)

    assert hand.refusals
    assert hand.probe.age_s == math.inf


async def test_a_time_that_is_refused_leaves_the_estimate_as_it_was() -> None:
    hand = Hand(NOTHING, OURS)
    hand.time = BUSY
    before = hand.probe.redis_time_s

    assert await hand.probe.check(SERVER)

    assert hand.probe.redis_time_s == pytest.approx(before, abs=60)


async def test_a_connection_that_is_lost_while_the_probe_reads_is_no_refusal() -> None:
    hand = Hand(lost := RedisConnectionError("cut"))

    with pytest.raises(RedisConnectionError) as raised:
        await hand.probe.check(SERVER)

    assert raised.value is lost
    assert not hand.refusals


async def test_writes_that_are_refused_are_logged_once_and_so_is_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hand = Hand(NOTHING, NOTHING, NOTHING, OURS)
    hand.failures = [StreamUnavailable("full", outcome="not_published") for _ in range(2)]

    found = [await hand.probe.check(SERVER) for _ in range(3)]

    assert found == [False, False, True]
    assert [message.partition(" cause=")[0] for message in caplog.messages] == [
        "redis takes no writes",
        "redis takes writes again after_s=0.0",
    ]


async def test_every_third_probe_asks_over_a_fresh_connection() -> None:
    hand = Hand(*[NOTHING, OURS] * 2, NOTHING)
    hand.dialed = OTHER

    assert [await hand.probe.check(SERVER) for _ in range(2)] == [True, True]
    with pytest.raises(ServersDiffer):
        await hand.probe.check(SERVER)


async def test_an_address_that_leads_nowhere_is_logged_once_and_the_proof_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hand = Hand(*[NOTHING, OURS] * 9)
    hand.dialed = OSError("refused")
    found = [await hand.probe.check(SERVER) for _ in range(6)]
    hand.dialed = SERVER

    found += [await hand.probe.check(SERVER) for _ in range(3)]

    assert found == [True] * 9
    assert caplog.messages == [
        "no new connection to redis can be made cause=refused",
        "new connections to redis can be made again after_s=0.0",
    ]


async def test_an_entry_that_went_to_another_server_is_seen_at_once() -> None:
    hand = Hand(NOTHING)
    hand.used = {SERVER, OTHER}

    with pytest.raises(ServersDiffer):
        await hand.probe.check(SERVER)

    assert hand.used == set()


async def test_a_process_that_is_told_nothing_for_as_long_as_the_limit_is_deaf() -> None:
    hand = Hand(*[NOTHING] * 2, deadline_s=0.02)
    hand.is_announced = False

    for _ in range(2):
        with pytest.raises(ProbeLost):
            await hand.probe.check(SERVER)

    with pytest.raises(Deaf):
        await hand.probe.give_up_if_deaf()


async def test_time_does_not_count_while_a_part_of_a_reply_arrives() -> None:
    hand = Hand(NOTHING, OURS, deadline_s=0.02)
    hand.is_announced = False
    hand.arriving_bytes = 100

    assert await hand.probe.check(SERVER)

    assert hand.arriving_bytes == 0


async def refused(hand: Hand) -> None:
    hand.failures = [StreamUnavailable("full", outcome="not_published")]
    assert not await hand.probe.check(SERVER)


async def busy(hand: Hand) -> None:
    hand.reads = [BUSY]
    assert not await hand.probe.check(SERVER)


async def cut(hand: Hand) -> None:
    hand.probe.interrupted(RedisConnectionError("closed"))


async def passed(hand: Hand) -> None:
    assert await hand.probe.check(SERVER)


@pytest.mark.parametrize("happens", [refused, busy, cut, passed])
async def test_a_process_is_well_while_probes_pass_or_redis_is_to_blame(
    happens: Callable[[Hand], Awaitable[None]],
) -> None:
    hand = Hand(NOTHING, OURS)
    hand.probe.interrupted(Unannounced("ours"))
    before = hand.probe.is_well

    await happens(hand)

    assert not before
    assert hand.probe.is_well
    hand.probe.deadline_s = 0
    assert not hand.probe.is_well, "three deadlines later"


async def test_an_entry_that_is_not_announced_is_told_apart_from_a_read_without_an_answer() -> None:
    silent = Hand(NOTHING, deadline_s=0.01)
    silent.is_announced = False
    with pytest.raises(Unannounced):
        await silent.probe.check(SERVER)

    class Hanging(Hand):
        async def ask(self, command: tuple[object, ...]) -> object:
            del command
            return await asyncio.Event().wait()

    with pytest.raises(ProbeLost) as raised:
        await Hanging(deadline_s=0.01).probe.check(SERVER)
    assert not isinstance(raised.value, Unannounced)


MOVED = ErrorReply("MOVED 7 h:1")


def moved() -> StreamUnavailable:
    error = StreamUnavailable("Redis refused the entry: MOVED 7 h:1")
    error.__cause__ = MOVED
    return error


@pytest.mark.parametrize("reads", [(MOVED,), (NOTHING, MOVED), (NOTHING, moved())])
async def test_a_stream_whose_slot_moves_is_left_for_another_one_and_proves_nothing(
    reads: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[bytes] = []

    def has(key: bytes) -> bool:
        asked.append(key)
        return len(asked) % 3 == 0  # every third one is this node's

    hand = Hand(*(each for each in reads if not isinstance(each, StreamUnavailable)), has=has)
    hand.failures = [each for each in reads if isinstance(each, StreamUnavailable)]
    assert hand.probe.key == asked[2]

    assert not await hand.probe.check(SERVER)

    assert hand.probe.key == asked[5]
    assert hand.probe.is_well
    assert not hand.refusals
    assert caplog.messages == []


async def test_a_single_server_that_sends_us_elsewhere_is_the_wrong_one() -> None:
    hand = Hand(MOVED)

    with pytest.raises(WrongServer):
        await hand.probe.check(SERVER)


async def test_a_redis_that_takes_nothing_is_away_and_one_that_announces_nothing_is_not() -> None:
    hand = Hand(NOTHING, deadline_s=0.2 * SECOND)
    assert not hand.probe.is_away()

    hand.failures = [StreamUnavailable("no")]
    await hand.probe.check(SERVER)
    assert hand.probe.is_away()

    hand.reads, hand.is_announced = [NOTHING], False
    with pytest.raises(Unannounced):
        await hand.probe.check(SERVER)
    assert not hand.probe.is_away()


async def test_a_proof_that_is_nearly_too_old_is_too_old_for_a_part_of_the_deadline() -> None:
    hand = Hand(deadline_s=600)
    now = time.monotonic()

    hand.probe.passed_at = now - 350
    assert not hand.probe.is_away(0.6)

    hand.probe.passed_at = now - 370
    assert hand.probe.is_away(0.6)
    assert not hand.probe.is_away()
