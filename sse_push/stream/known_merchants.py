"""The reads of merchants' streams, and their replies: brought to the tail, which decides on both.

Knows whose fault it is that a read has no answer. Does not know which read comes next, nor what an
answer means (``tail``); nor how the connection is made (``follow``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from sse_push.notification import Entry, EntryId
from sse_push.stream.contract import Command, forget_command, parse_entries, read_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.keys import Keys
from sse_push.stream.leftovers import Leftovers
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.pipeline import AT_ONCE, OnReply, Request
from sse_push.stream.planting import Planting
from sse_push.stream.reading import Reading
from sse_push.stream.reads import Read, entries_between
from sse_push.stream.replies import is_elsewhere, is_refusal
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Position, Watch

Ask = Callable[[Command], Awaitable[object]]
"""Sends a command, and returns the reply."""


class KnownMerchants:
    """Make the requests for the reads that are due, and bring the answers to the tail.

    ``planting`` sends something before some reads.
    """

    def __init__(
        self,
        tail: Tail,
        planting: Planting,
        leftovers: Leftovers,
        reading: Reading,
        keys: Keys,
        *,
        data_limit_bytes: int,
    ) -> None:
        self._tail = tail
        self._planting = planting
        self._leftovers = leftovers
        self._refusals, self._aside, self._moving, self._wake = reading
        self._keys = keys
        self._data_limit_bytes = data_limit_bytes

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        """Follow a merchant's stream from now on; see ``Tail.watch``."""
        self._leftovers.discard(merchant_id)
        self._tail.watch(merchant_id, is_taken_over=is_taken_over)
        self._wake()

    def unwatch(self, merchant_id: str, *, is_tracked: bool) -> None:
        """Follow a merchant's stream no longer, which ``is_tracked`` by Redis, or may be."""
        is_missing = self._tail.unwatch(merchant_id).held is None
        if is_missing and is_tracked and self._leftovers.left(merchant_id):
            self._wake()
        self._refusals.discard(merchant_id)

    def hand_over(self, merchant_id: str) -> bool:
        """Follow a merchant's stream no longer: another node has it; whether it was armed here."""
        is_armed = self._tail.is_armed(merchant_id)
        self._refusals.discard(merchant_id)
        self._tail.unwatch(merchant_id)
        return is_armed

    def read_refused(self) -> None:
        """Read what was put off as its stream was elsewhere: the slots are known again."""
        self._tail.turns.retry(AT_ONCE)
        self._wake()

    def next_requests(self, most: int) -> list[Request]:
        """Return at most ``most`` reads that are due, never two of one stream at once.

        What plants before some of them is not counted: its replies are short. A merchant whose key
        is to be forgotten is not followed now; whoever follows it next reads it after that.
        """
        requests = self._planting.take(most)
        requests += [
            (forget_command(self._keys.stream(merchant_id)), _ignore)
            for merchant_id in self._leftovers.take(most - len(requests))
        ]
        apart = self._aside.standings.records
        for watch, read in self._tail.reads(most - len(requests)):
            command = read_command(self._keys.stream(watch.merchant_id), read)
            request = (command, self._on_entries(watch, command))
            if watch.merchant_id in apart:
                request = self._aside.request(watch.merchant_id, *request)
            requests += [*self._planting.before(read), request]
        return requests

    async def between(
        self, ask: Ask, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``; None if some of them may be missing."""
        if merchant_id in self._aside.standings.records:
            return None
        reply = await ask(
            read_command(self._keys.stream(merchant_id), Read(merchant_id, start, end))
        )
        if isinstance(reply, RedisConnectionError):
            self._aside.lost(merchant_id, reply)
        # No data: what a client has missed is told without it, and it is most of the work.
        entries = parse_entries(merchant_id, reply, data_limit_bytes=0)
        return None if entries is None else entries_between(start, end, entries)

    def _on_entries(self, watch: Watch, command: Command) -> OnReply:
        on_answer = partial(self._on_answer, watch)

        def on_reply(reply: object) -> None:
            if isinstance(reply, RedisConnectionError):
                # The stream is read again on the next connection.
                self._aside.lost(watch.merchant_id, reply)
                return
            moving = self._moving
            if moving is None or not moving.takes(watch.merchant_id, reply, command, on_answer):
                on_answer(reply)

        return on_reply

    def _on_answer(self, watch: Watch, reply: object) -> None:
        if self._moving is not None and is_elsewhere(reply):
            self._tail.refused(watch)
            return
        if is_refusal(reply):
            if watch.position is not Position.CLOSED:
                self._refusals.add(watch.merchant_id, reply)
            self._tail.refused(watch)
            return
        self._refusals.discard(watch.merchant_id)
        entries = parse_entries(watch.merchant_id, reply, data_limit_bytes=self._data_limit_bytes)
        if isinstance(reply, ReplyTooLarge):
            self._tail.failed(watch, "too_large")
        elif entries is None:
            self._tail.failed(watch)
        else:
            self._tail.answered(watch, entries)
        if self._tail.turns:
            self._wake()


def _ignore(_reply: object) -> None:
    """Do without a reply: a key that Redis does not forget costs it some memory."""
