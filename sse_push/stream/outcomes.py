"""What became of a record: its result, by the reply of Redis, and how many had which.

Knows which stream takes no entry until somebody repairs it, and how. Does not know connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sse_push.access.revocation import Revocation
from sse_push.errors import Outcome, StreamUnavailable
from sse_push.notification import EventId, Notification
from sse_push.stream.contract import parse_entry_id
from sse_push.stream.keys import Keys
from sse_push.stream.reads import ProbeEntry
from sse_push.stream.replies import ErrorReply, Whose

Record = Notification | Revocation | ProbeEntry
"""What a backend sends, or a probe, and a stream keeps as an entry."""

Result = EventId | StreamUnavailable
"""What becomes of a record: the ID of its entry and the history that has it, or why it has none."""

Fault = Literal["exhausted", "not_a_stream"]
"""Why a stream takes no entry, now and later: it has the greatest possible ID, which somebody gave
by hand; its key holds something else."""

_EXHAUSTED = "exhausted the last possible ID"
"""What is in the text of Redis's error, which has no code of its own."""


@dataclass(slots=True)
class AppendTally:
    """What became of notifications, and why streams took no record; the numbers only rise."""

    outcomes: dict[Literal["stored"] | Outcome, int] = field(
        default_factory=lambda: {"stored": 0, "not_published": 0, "unknown": 0}
    )
    """As it was answered."""
    faults: dict[Fault, int] = field(default_factory=lambda: {"exhausted": 0, "not_a_stream": 0})

    def add_all(self, records: Sequence[Record], results: Sequence[Result]) -> None:
        """Count the results of the notifications of one request."""
        for record, result in zip(records, results, strict=True):
            if isinstance(record, Notification):
                self.outcomes["stored" if isinstance(result, EventId) else result.outcome] += 1


class Waiting(NamedTuple):
    """A record on its way into Redis."""

    record: Record
    result: asyncio.Future[Result]
    """Done once Redis has replied; canceled once the caller no longer waits."""
    until: float
    """When the caller gives up, by the clock of the event loop."""
    is_asked: bool = False
    """Whether another node has sent it here, where its slot is still to come."""


class Held(NamedTuple):
    """A record that Redis has added, whose result depends on replicas."""

    waiting: Waiting
    event_id: EventId


def waits_for_replicas(record: Record) -> bool:
    """Return whether a record may be lost if a replica is promoted that does not have it.

    A probe asks whether this process is told of changes, which is no question to replicas.
    """
    return not isinstance(record, ProbeEntry)


def resolve(
    waiting: Waiting,
    reply: object,
    history: str,
    tally: AppendTally,
    keys: Keys,
    held: list[Held] | None = None,
) -> None:
    """Give a record the result that Redis has replied; one that waits for replicas is ``held``."""
    fault = _fault_of(reply)
    if fault is not None:
        tally.faults[fault] += 1
    if waiting.result.done():
        return
    if isinstance(reply, bytes):
        event_id = EventId(parse_entry_id(reply), history)
        if held is not None and waits_for_replicas(waiting.record):
            held.append(Held(waiting, event_id))
        else:
            waiting.result.set_result(event_id)
    else:
        # An error reply: not executed, whosever error it is.
        assert isinstance(reply, Exception), "XADD is answered with an ID, or with an error"
        text = f"Redis refused the entry: {reply}{_repair(waiting.record, fault, keys)}"
        fail([waiting], text, reply, "not_published")


def fail(batch: Iterable[Waiting], text: str, cause: Exception | None, outcome: Outcome) -> None:
    """Give the records that have no result yet this failure."""
    for waiting in batch:
        if not waiting.result.done():
            error = StreamUnavailable(text, outcome)
            error.__cause__ = cause
            waiting.result.set_result(error)


def _fault_of(reply: object) -> Fault | None:
    if not isinstance(reply, ErrorReply):
        return None
    if reply.whose is Whose.STREAM:
        return "not_a_stream"
    return "exhausted" if _EXHAUSTED in str(reply) else None


def _repair(record: Record, fault: Fault | None, keys: Keys) -> str:
    """Return what makes the stream take entries again."""
    if fault is None:
        return ""
    if isinstance(record, Revocation):
        return (
            f"; DEL {keys.revocations} in Redis ends that; revoke again all that must stay "
            "revoked, which a new worker would not know"
        )
    return f"; DEL {keys.stream(record.merchant_id)} in Redis ends that"
