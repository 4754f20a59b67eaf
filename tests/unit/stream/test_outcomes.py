from __future__ import annotations

import asyncio

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import Notification
from sse_push.stream.outcomes import (
    AppendTally,
    Fault,
    Held,
    Record,
    Result,
    Waiting,
    fail,
    resolve,
)
from sse_push.stream.reads import ProbeEntry
from sse_push.stream.replies import ErrorReply
from tests.harness.ids import HISTORY, at
from tests.harness.keys import KEYS

EXHAUSTED = "ERR The stream has exhausted the last possible ID, unable to add more items"
WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def waiting(record: Record) -> Waiting:
    return Waiting(record, asyncio.get_running_loop().create_future(), 0.0)


@pytest.mark.parametrize(
    ("record", "text", "fault", "repair"),
    [
        (Notification("42"), EXHAUSTED, "exhausted", "; DEL sse_push:{42} in Redis ends that"),
        (Notification("42"), WRONGTYPE, "not_a_stream", "; DEL sse_push:{42} in Redis ends that"),
        (ProbeEntry("~1"), WRONGTYPE, "not_a_stream", "; DEL sse_push:{~1} in Redis ends that"),
        (
            Revocation("42"),
            EXHAUSTED,
            "exhausted",
            "; DEL sse_push:revocations in Redis ends that; revoke again all that must stay "
            "revoked, which a new worker would not know",
        ),
        (Notification("42"), "OOM command not allowed", None, ""),
        (Notification("42"), "ERR something else", None, ""),
    ],
)
async def test_an_error_reply_says_what_to_do_and_is_counted_if_it_is_the_streams(
    record: Record, text: str, fault: Fault | None, repair: str
) -> None:
    refused, tally = waiting(record), AppendTally()

    resolve(refused, ErrorReply(text), HISTORY, tally, KEYS)

    error = refused.result.result()
    assert isinstance(error, StreamUnavailable)
    assert error.outcome == "not_published"
    assert str(error) == f"Redis refused the entry: {text}{repair}"
    assert tally.faults == {"exhausted": 0, "not_a_stream": 0} | ({fault: 1} if fault else {})


async def test_an_id_is_the_result_with_the_history_that_has_it() -> None:
    stored, tally = waiting(Notification("42")), AppendTally()

    resolve(stored, b"7-1", HISTORY, tally, KEYS)

    assert stored.result.result() == at(7, 1)
    assert sum(tally.faults.values()) == 0


async def test_a_record_is_held_for_replicas_and_a_probe_is_not() -> None:
    records: list[Record] = [Notification("42"), ProbeEntry("~1"), Revocation("42")]
    added = [waiting(record) for record in records]
    held: list[Held] = []

    for each in added:
        resolve(each, b"7-1", HISTORY, AppendTally(), KEYS, held)

    assert held == [Held(added[0], at(7, 1)), Held(added[2], at(7, 1))]
    assert [each.result.done() for each in added] == [False, True, False]


async def test_a_record_keeps_its_first_result() -> None:
    late, tally = waiting(Notification("42")), AppendTally()
    late.result.set_result(at(7))

    resolve(late, ErrorReply(EXHAUSTED), HISTORY, tally, KEYS)
    fail([late], "too late", None, "unknown")

    assert late.result.result() == at(7)


async def test_results_are_counted_by_their_outcome() -> None:
    tally = AppendTally()
    results: list[Result] = [at(7), StreamUnavailable("no", "unknown"), at(8)]

    tally.add_all([Notification("42")] * 3, results)
    tally.add_all([Revocation("42"), ProbeEntry("~1")], [at(9), at(9)])

    assert tally.outcomes == {"stored": 2, "not_published": 0, "unknown": 1}
