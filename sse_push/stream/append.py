"""Adding notifications to their merchants' streams, and revocations to theirs.

Knows when a command was certainly not executed. Does not know who listens.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from sse_push.access.revocation import Revocation
from sse_push.errors import Outcome, StreamUnavailable
from sse_push.notification import EntryId, Notification
from sse_push.stream.connection import connection_pool, read_reply, send_commands
from sse_push.stream.contract import (
    Command,
    append_command,
    parse_entry_id,
    revoke_commands,
    stream_key,
)

_APPENDS_AT_ONCE = 512
_APPENDS_WAITING = 20_000

_EXPIRE_SHARE = 0.1
"""EXPIRE goes along once in this share of the lifetime, not with each XADD: Redis announces it."""

_EXPIRES_REMEMBERED = 50_000


Said = Notification | Revocation
"""What a backend says, and a stream keeps."""


@dataclass(slots=True)
class AppendTally:
    """What notifications have come to, as it was answered; the numbers only rise."""

    outcomes: dict[Literal["stored"] | Outcome, int] = field(
        default_factory=lambda: {"stored": 0, "not_published": 0, "unknown": 0}
    )

    def add(self, results: Sequence[EntryId | StreamUnavailable]) -> None:
        """Count the results of one request."""
        for result in results:
            self.outcomes["stored" if isinstance(result, EntryId) else result.outcome] += 1


class _Waiting(NamedTuple):
    """What is on its way into Redis."""

    said: Said
    entry_id: asyncio.Future[EntryId]


class Appender:
    """Add what backends say to its stream, all that is waiting in one round trip.

    While one pipeline is on its way, whatever arrives waits for the next: group commit. At most
    one is on its way, so that after a timeout it is known of all others that they were not sent.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        stream_max_entries: int,
        stream_ttl_s: float,
        revocation_lifetime_s: float,
    ) -> None:
        self._pool = connection_pool(url, connect_timeout_s=timeout_s, name="append")
        self._connection: AbstractConnection = self._pool.make_connection()
        self._timeout_s = timeout_s
        self._max_entries = stream_max_entries
        self._ttl_s = stream_ttl_s
        self._revocation_lifetime_s = revocation_lifetime_s
        self._queue: deque[_Waiting] = deque()
        self._sent: frozenset[asyncio.Future[EntryId]] = frozenset()
        self._arrived = asyncio.Event()
        self._expire_due: dict[str, float] = {}
        self.tally = AppendTally()

    async def run(self) -> None:
        """Send what arrives, for ever."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while batch := self._take():
                    await self._commit(batch)
        finally:
            await self._connection.disconnect(nowait=True)

    async def append(self, said: Said) -> EntryId:
        """Add one notification, or revocation, and return its entry's ID once Redis has it.

        Raises:
            StreamUnavailable: Redis did not take it in time; ``outcome`` says what is known.

        https://redis.io/docs/latest/commands/xadd/
        """
        (result,) = await self.append_all([said])
        if isinstance(result, StreamUnavailable):
            raise result
        return result

    async def append_all(self, all_said: Sequence[Said]) -> list[EntryId | StreamUnavailable]:
        """Add several at once; each has its own result, in their order."""
        if len(self._queue) + len(all_said) > _APPENDS_WAITING:
            refusal = StreamUnavailable(
                f"expected fewer than {_APPENDS_WAITING} notifications waiting for Redis"
            )
            refused: list[EntryId | StreamUnavailable] = [refusal for _ in all_said]
            self._count(all_said, refused)
            return refused
        create_future = asyncio.get_running_loop().create_future
        waiting = [_Waiting(said, create_future()) for said in all_said]
        self._queue.extend(waiting)
        self._arrived.set()
        futures = [each.entry_id for each in waiting]
        try:
            if futures:
                await asyncio.wait(futures, timeout=self._timeout_s)
            results = [self._result(future) for future in futures]
            self._count(all_said, results)
            return results
        finally:
            for future in futures:
                future.cancel()  # withdraws what is still in the queue

    def _count(
        self, all_said: Sequence[Said], results: Sequence[EntryId | StreamUnavailable]
    ) -> None:
        pairs = zip(all_said, results, strict=True)
        self.tally.add([result for said, result in pairs if isinstance(said, Notification)])

    def _result(self, future: asyncio.Future[EntryId]) -> EntryId | StreamUnavailable:
        if not future.done():
            outcome: Outcome = "unknown" if future in self._sent else "not_published"
            text = f"expected an answer of Redis within {self._timeout_s} s, got none"
            return StreamUnavailable(text, outcome)
        exc = future.exception()
        if exc is None:
            return future.result()
        assert isinstance(exc, StreamUnavailable), "nothing else is ever set"
        return exc

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < _APPENDS_AT_ONCE:
            waiting = self._queue.popleft()
            if not waiting.entry_id.done():  # its caller has not gone
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        connection = self._connection
        now_s = math.nan
        try:
            await self._connect(connection)
            if any(isinstance(waiting.said, Revocation) for waiting in batch):
                now_s = await self._ask_time(connection)
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            await connection.disconnect(nowait=True)
            _refuse(batch, "there is no connection to Redis", exc, "not_published")
            return
        # Whoever gave up while we connected was told that nothing was published.
        batch = [waiting for waiting in batch if not waiting.entry_id.done()]
        commands, takers = self._commands(batch, now_s)
        self._sent = frozenset(each.entry_id for each in batch)
        try:
            async with asyncio.timeout(self._timeout_s):
                await send_commands(connection, commands)
                for taker in takers:
                    reply = await read_reply(connection)
                    if isinstance(taker, _Waiting):
                        _settle(taker, reply)
                    elif reply == 1 and taker is not None:
                        self._remember_expire(taker)
        except (RedisError, OSError) as exc:
            await connection.disconnect(nowait=True)
            _refuse(batch, "Redis did not answer, or was lost before it did", exc, "unknown")

    async def _connect(self, connection: AbstractConnection) -> None:
        # One that Redis has closed meanwhile reads as ready: that is found out before anything
        # is sent, while "not published" is still the truth.
        if connection.is_connected and await connection.can_read():
            await connection.disconnect(nowait=True)
        async with asyncio.timeout(self._timeout_s):
            await connection.connect()

    async def _ask_time(self, connection: AbstractConnection) -> float:
        """Return Redis's own time, in seconds since 1970; if it refuses, 0, which trims nothing.

        https://redis.io/docs/latest/commands/time/
        """
        async with asyncio.timeout(self._timeout_s):
            await send_commands(connection, [("TIME",)])
            reply = await read_reply(connection)
        if isinstance(reply, Exception):
            return 0.0
        seconds, microseconds = cast("list[bytes]", reply)
        return int(seconds) + int(microseconds) / 1_000_000

    def _commands(
        self, batch: list[_Waiting], now_s: float
    ) -> tuple[list[Command], list[_Waiting | str | None]]:
        """Return the commands, and for each who wants its answer; a merchant's own is EXPIRE's."""
        commands: list[Command] = []
        takers: list[_Waiting | str | None] = []
        expiring: set[str] = set()
        now = time.monotonic()
        for waiting in batch:
            if isinstance(waiting.said, Revocation):
                commands += revoke_commands(
                    waiting.said, now_s=now_s, lifetime_s=self._revocation_lifetime_s
                )
                takers += [waiting, None]
                continue
            notification = waiting.said
            commands.append(append_command(notification, max_entries=self._max_entries))
            takers.append(waiting)
            merchant_id = notification.merchant_id
            is_due = now >= self._expire_due.get(merchant_id, -math.inf)
            if is_due and merchant_id not in expiring:
                expiring.add(merchant_id)
                lifetime_s = math.ceil(self._ttl_s * (1 + _EXPIRE_SHARE))
                commands.append(("EXPIRE", stream_key(merchant_id), lifetime_s))
                takers.append(merchant_id)
        return commands, takers

    def _remember_expire(self, merchant_id: str) -> None:
        if len(self._expire_due) >= _EXPIRES_REMEMBERED:
            self._expire_due.clear()
        self._expire_due[merchant_id] = time.monotonic() + self._ttl_s * _EXPIRE_SHARE


def _settle(waiting: _Waiting, reply: object) -> None:
    if waiting.entry_id.done():
        return
    if isinstance(reply, bytes):
        waiting.entry_id.set_result(parse_entry_id(reply))
    else:
        # An error reply (OOM, READONLY, WRONGTYPE, NOREPLICAS ...): not executed.
        _refuse([waiting], f"Redis refused the entry: {reply}", None, "not_published")


def _refuse(batch: list[_Waiting], text: str, cause: Exception | None, outcome: Outcome) -> None:
    for waiting in batch:
        if not waiting.entry_id.done():
            error = StreamUnavailable(text, outcome)
            error.__cause__ = cause
            waiting.entry_id.set_exception(error)
