"""Add records to the streams of a cluster, each at the primary that has it.

Knows what to do with a record that a node sends elsewhere. Does not know which node has which slots
(``cluster``), nor how a record is added (``append``).

**A record is sent elsewhere once.** A node that answers MOVED or ASK has stored nothing, and names
the node to ask. What that one answers is the result: two nodes that name each other would else take
all the time that the record has. After MOVED, the nodes are asked anew: an answer that was on its
way may be older than that reply, and would send the record back.

**A record whose slot nobody has waits until the nodes have answered.** That may be because none has
answered yet: the process has just begun. What they answer then counts: a slot that nobody has is
refused, so that its merchants' notifications do not wait for what may take an operator hours.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EventId
from sse_push.stream.address import Place
from sse_push.stream.append import RECORDS_WAITING, Appender
from sse_push.stream.keys import Keys
from sse_push.stream.moving import asked_place
from sse_push.stream.outcomes import AppendTally, Record, Result
from sse_push.stream.replies import is_elsewhere

Records = dict[int, Record]
"""Some records of a request, by their number in it."""
Results = dict[int, Result]


class Owners(Protocol):
    """Who adds to which stream; the cluster."""

    def appender_of(self, key: str) -> Appender | None:
        """Return what adds to the stream of a key; None: nobody has its slot."""

    def appender_at(self, place: Place) -> Appender:
        """Return what adds at a place that a reply has named."""

    def doubt(self) -> None:
        """Have the nodes asked at once."""

    async def news(self) -> None:
        """Wait until the nodes have answered what they are asked from now on."""


class ClusterAppender:
    """Add records, as an ``Appender`` adds those of one server."""

    def __init__(self, owners: Owners, keys: Keys, tally: AppendTally, *, timeout_s: float) -> None:
        self._owners = owners
        self._keys = keys
        self._timeout_s = timeout_s
        self._waiting = 0
        """How many records wait for the nodes' answer."""
        self.tally = tally

    async def run(self) -> None:
        """Wait for ever: each primary's own appender is run by the cluster."""
        await asyncio.Event().wait()

    async def append(self, record: Record) -> EventId:
        """As ``Appender.append``."""
        (result,) = await self.append_all([record])
        if isinstance(result, StreamUnavailable):
            raise result
        return result

    async def append_all(self, records: Sequence[Record]) -> list[Result]:
        """As ``Appender.append_all``: all primaries at once, and none waits for another one."""
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        results: dict[int, Result] = {}
        groups = self._by_owner(dict(enumerate(records)))
        await asyncio.gather(
            *(self._append_at(owner, group, results, ends_at) for owner, group in groups.items())
        )
        ordered = [results[number] for number in range(len(records))]
        self.tally.add_all(records, ordered)
        return ordered

    def _by_owner(self, records: Records) -> dict[Appender | None, Records]:
        groups: dict[Appender | None, Records] = {}
        for number, record in records.items():
            owner = self._owners.appender_of(self._key(record))
            groups.setdefault(owner, {})[number] = record
        return groups

    async def _append_at(
        self, owner: Appender | None, records: Records, results: Results, ends_at: float
    ) -> None:
        """Add records at their owner; those that it has not, or nobody, go elsewhere."""
        await self._add(owner, records, results, ends_at)
        elsewhere = {
            number: record
            for number, record in records.items()
            if owner is None or is_elsewhere(_reply_of(results[number]))
        }
        if elsewhere:
            await self._send_again(elsewhere, results, ends_at)

    async def _send_again(self, records: Records, results: Results, ends_at: float) -> None:
        """Add records where the first reply says: to the node on the way, or to the new owner."""
        asked: dict[Appender, Records] = {}
        moved: Records = {}
        for number, record in records.items():
            place = asked_place(_reply_of(results[number]))
            if place is None:
                moved[number] = record
            else:
                asked.setdefault(self._owners.appender_at(place), {})[number] = record
        if asked:
            self._owners.doubt()
        histories = {number: self._history_of(record) for number, record in records.items()}
        await asyncio.gather(
            self._send_to_new_owners(moved, results, ends_at),
            *(
                self._add(appender, group, results, ends_at, is_asked=True)
                for appender, group in asked.items()
            ),
        )
        for number in (each for group in asked.values() for each in group):
            # Followers read it through the owner, under whose history it is until the slot has
            # another owner.
            result = results[number]
            if isinstance(result, EventId):
                results[number] = EventId(result.entry_id, histories[number])

    def _history_of(self, record: Record) -> str:
        owner = self._owners.appender_of(self._key(record))
        return "" if owner is None else owner.history

    async def _send_to_new_owners(self, records: Records, results: Results, ends_at: float) -> None:
        """Add records once the nodes have answered, wherever their slots are by then."""
        if not records:
            return
        if self._waiting + len(records) > RECORDS_WAITING:
            text = f"expected fewer than {RECORDS_WAITING} notifications waiting for their slots"
            results.update(dict.fromkeys(records, StreamUnavailable(text)))
            return
        self._waiting += len(records)
        self._owners.doubt()  # in one step with the wait: for the answer to this doubt
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ends_at):
                    await self._owners.news()
        finally:
            self._waiting -= len(records)
        await asyncio.gather(
            *(
                self._add(owner, group, results, ends_at)
                for owner, group in self._by_owner(records).items()
            )
        )

    async def _add(
        self,
        appender: Appender | None,
        records: Records,
        results: Results,
        ends_at: float,
        *,
        is_asked: bool = False,
    ) -> None:
        if appender is None:
            text = "expected a primary of the cluster that has the stream, got none"
            results.update(dict.fromkeys(records, StreamUnavailable(text)))
            return
        left_s = max(0.0, ends_at - asyncio.get_running_loop().time())
        added = await appender.try_all(list(records.values()), within_s=left_s, is_asked=is_asked)
        results.update(zip(records, added, strict=True))

    def _key(self, record: Record) -> str:
        if isinstance(record, Revocation):
            return self._keys.revocations
        return self._keys.stream(record.merchant_id)


def _reply_of(result: Result) -> object:
    """Return the reply because of which a record was not stored, if there is one."""
    return result.__cause__ if isinstance(result, StreamUnavailable) else None
