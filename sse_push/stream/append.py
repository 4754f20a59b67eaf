"""Add notifications to the streams of their merchants, and revocations to the stream of all.

Knows when a command was certainly not executed. Does not know who reads the streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Sequence
from typing import cast

from sse_push.access.revocation import Revocation
from sse_push.errors import StreamUnavailable
from sse_push.notification import EventId
from sse_push.stream.adding import Adding, Recipient
from sse_push.stream.address import Address
from sse_push.stream.bell import BellChoice, Ringer
from sse_push.stream.connection import Connection
from sse_push.stream.failures import RedisError
from sse_push.stream.keys import Keys
from sse_push.stream.lifetimes import Lifetimes
from sse_push.stream.outcomes import AppendTally, Held, Record, Result, Waiting, fail, resolve
from sse_push.stream.pool import Pool
from sse_push.stream.replicas import Replicas
from sse_push.stream.replies import ErrorReply, Whose

_RECORDS_AT_ONCE = 512
"""At most this many records go out in one pipeline."""

RECORDS_WAITING = 20_000
"""At most this many records wait for Redis; more are refused at once."""


class Appender:
    """Add records to their streams, all waiting records in one round trip.

    Records that arrive while a pipeline is on its way wait for the next one: group commit. There is
    at most one pipeline on its way, so after a timeout every other record is known to be unsent. A
    pipeline whose entries are added, and await ``wait_replicas``, is not on its way any more.
    """

    def __init__(
        self,
        address: Address,
        keys: Keys,
        *,
        timeout_s: float,
        stream_max_entries: int,
        stream_ttl_s: float,
        revocation_lifetime_s: float,
        bell: BellChoice = "auto",
        tally: AppendTally | None = None,
        wait_replicas: int = 0,
    ) -> None:
        self._keys = keys
        self._pool = Pool(address, keys.prefix)
        self._timeout_s = timeout_s
        self._adding = Adding(
            keys,
            max_entries=stream_max_entries,
            lifetimes=Lifetimes(stream_ttl_s),
            revocation_lifetime_s=revocation_lifetime_s,
        )
        # Also where this process hears of changes from Redis itself: another one may not.
        self._ringer = Ringer(keys.bell, rings=bell != "tracking")
        self._queue: deque[Waiting] = deque()
        self._probes: deque[Waiting] = deque()
        """Those that wait for no replica, while others may wait for a connection."""
        self._sent: frozenset[asyncio.Future[Result]] = frozenset()
        self._arrived = asyncio.Event()
        self._replicas = Replicas(
            wait_replicas, self._pool, timeout_s=timeout_s, on_free=self._arrived.set
        )
        self.tally = tally or AppendTally()

    @property
    def server_id(self) -> bytes:
        """The ID of the run of the server that we were last connected to."""
        return self._pool.server_id

    @property
    def history(self) -> str:
        """The name of that server's history."""
        return self._pool.history

    async def run(self) -> None:
        """Send the records that arrive, for ever."""
        try:
            with contextlib.suppress(RedisError, OSError):  # the first record tries again
                await self._pool.connect()
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while batch := self._next_batch():
                    await self._commit(batch)
        finally:
            await self._replicas.stop()
            self._pool.disconnect()

    def renew(self) -> None:
        """Make a new connection before the next record: the address may lead elsewhere by now."""
        self._pool.renew()

    def take_used(self) -> set[bytes]:
        """Return the IDs of the servers that entries were sent to since the last call."""
        return self._pool.take_used()

    async def append(self, record: Record) -> EventId:
        """Add one record, and return the ID of its entry, and the history that has it.

        Raises:
            StreamUnavailable: Redis did not confirm the record in time. ``outcome`` is
                ``not_published`` if the record was certainly not stored, else ``unknown``; in both
                cases the caller may send the record again.

        https://redis.io/docs/latest/commands/xadd/
        """
        (result,) = await self.append_all([record])
        if isinstance(result, StreamUnavailable):
            raise result
        return result

    async def append_all(self, records: Sequence[Record]) -> list[Result]:
        """Add several records at once; return the result of each, in their order."""
        results = await self.try_all(records, within_s=self._timeout_s)
        self.tally.add_all(records, results)
        return results

    async def try_all(
        self, records: Sequence[Record], *, within_s: float, is_asked: bool = False
    ) -> list[Result]:
        """As ``append_all``, within another time, and without counting: it may be tried elsewhere.

        ``is_asked``: the records are sent with ASKING, as another node of a cluster has said.
        """
        if len(self._queue) + len(records) > RECORDS_WAITING:
            refusal = StreamUnavailable(
                f"expected fewer than {RECORDS_WAITING} notifications waiting for Redis"
            )
            return [refusal for _ in records]
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        waiting = [Waiting(each, loop.create_future(), until, is_asked) for each in records]
        queue = self._probes if self._replicas.goes_first(records) else self._queue
        queue.extend(waiting)
        self._arrived.set()
        timer = loop.call_at(until, self._give_up, waiting)
        try:
            return [await each.result for each in waiting]
        finally:
            timer.cancel()
            for each in waiting:
                each.result.cancel()  # withdraws a record that is still in the queue

    def _give_up(self, waiting: Sequence[Waiting]) -> None:
        """Give each record its result whose time is over."""
        text = f"expected an answer from Redis within {self._timeout_s} s, got none"
        for each in waiting:
            is_sent = each.result in self._sent or self._replicas.holds(each.result)
            fail([each], text, None, "unknown" if is_sent else "not_published")

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        if self._probes:
            batch, self._probes = list(self._probes), deque()
        if not self._queue or not self._replicas.has_room:
            return batch
        while self._queue and len(batch) < _RECORDS_AT_ONCE:
            waiting = self._queue.popleft()
            if not waiting.result.done():  # its caller still waits
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[Waiting]) -> None:
        """Send a batch, and give each record its result.

        Up to the moment of sending, a failure means that nothing was published. From then on Redis
        may have stored any of the records, whatever becomes of the connection.
        """
        now_s = math.nan
        try:
            connection = await self._pool.connect()
            if any(isinstance(waiting.record, Revocation) for waiting in batch):
                now_s = await _ask_time(connection, self._timeout_s)
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            self._pool.disconnect()
            fail(batch, "expected a connection to Redis, got none", exc, "not_published")
            return
        # A caller that gave up while we connected has the answer that its record is not published.
        if batch := [waiting for waiting in batch if not waiting.result.done()]:
            gone = await self._exchange(connection, batch, now_s)
            self._queue.extendleft(reversed(gone))  # before those that arrived later

    async def _exchange(
        self, connection: Connection, batch: list[Waiting], now_s: float
    ) -> list[Waiting]:
        """Send a batch in one pipeline, and give each record the result that Redis replies.

        Returns the records that Redis did not add, as their streams are gone: send those again. The
        results of those that Redis did add may depend on replicas, which the next batch does not
        wait for.
        """
        commands, recipients = self._adding.commands(batch, now_s)
        rings = self._ringer.commands([each.record for each in batch])
        wait = self._replicas.commands(batch)
        self._pool.note_use()
        self._sent = frozenset(each.result for each in batch)
        held: list[Held] | None = [] if wait else None
        gone: list[Waiting] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                # The entries first. What ends with WAIT is read and announced before.
                await connection.send([*commands, *rings, *wait])
                gone, is_wrong_server = await self._read(connection, recipients, held)
                for _ in rings:
                    self._ringer.answered(await connection.read())
        except (RedisError, OSError) as exc:
            self._pool.disconnect()
            fail(batch, "expected an answer from Redis, got none", exc, "unknown")
        else:
            if held is not None:
                self._replicas.wait(batch, held)
            if is_wrong_server:
                # The address may lead to another server by now: the next batch finds out.
                self._pool.disconnect()
        self._sent = frozenset()
        self._pool.note_use()  # again: it may have been taken since
        return gone

    async def _read(
        self,
        connection: Connection,
        recipients: list[Recipient],
        held: list[Held] | None,
    ) -> tuple[list[Waiting], bool]:
        """Give the recipients their replies.

        Returns the records that Redis did not add, and whether it is the wrong server.
        """
        gone: list[Waiting] = []
        is_wrong_server = False
        for recipient in recipients:
            reply = await connection.read()
            is_wrong_server |= _is_wrong_server(reply, self._pool.address)
            if reply is None and isinstance(recipient, Waiting):
                self._adding.lifetimes.forget(recipient.record.merchant_id)
                gone.append(recipient)
            elif isinstance(recipient, Waiting):
                resolve(recipient, reply, self._pool.history, self.tally, self._keys, held)
            elif reply == 1 and recipient is not None:
                self._adding.lifetimes.renewed(recipient)
        return gone, is_wrong_server


def _is_wrong_server(reply: object, address: Address) -> bool:
    if not isinstance(reply, ErrorReply):
        return False
    # A node of a cluster that sends one record elsewhere is right for all others.
    return reply.whose is Whose.WRONG_SERVER or (
        reply.whose is Whose.ELSEWHERE and not address.is_of_cluster
    )


async def _ask_time(connection: Connection, timeout_s: float) -> float:
    """Return the time of Redis in seconds since 1970; 0, which trims nothing, if it refuses.

    Not ``Probe.redis_time_s``: revocations are trimmed by this time, so it must be that of the
    server that is about to number them, not an estimate from before a failover.

    https://redis.io/docs/latest/commands/time/
    """
    async with asyncio.timeout(timeout_s):
        await connection.send([("TIME",)])
        reply = await connection.read()
    if isinstance(reply, Exception):
        return 0.0
    seconds, microseconds = cast("list[bytes]", reply)
    return int(seconds) + int(microseconds) / 1_000_000
