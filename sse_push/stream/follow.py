"""Being told by Redis that a stream has changed, and reading what is new.

Knows one tracked connection and how it dies. What is to be read next, and what an answer means, is
decided in ``tail``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, Entry, EntryId
from sse_push.stream.connection import (
    Announcement,
    connection_pool,
    read_reply_or_announcement,
    read_server_id,
    send_commands,
    start_tracking,
)
from sse_push.stream.contract import (
    PROBE_PREFIX,
    REVOCATIONS_KEY,
    Command,
    merchant_of,
    parse_entries,
    parse_revocations,
    read_command,
    read_revocations_command,
)
from sse_push.stream.reads import Read, entries_between
from sse_push.stream.revocations import Knowledge, RevocationTail
from sse_push.stream.tail import Tail, TailTally, Watch

logger = logging.getLogger(__name__)

_READS_AT_ONCE = 256
"""Reads in one pipeline; 50 take Redis and us 1.8 ms."""

_RECONNECT_BASE_S = 0.1
_RECONNECT_CAP_S = 2.0

_SWEEP_S = 30.0
"""Every live stream is read again without a cause in this time."""

_SWEEP_STEPS = 30

_PROBE_LIFETIME_S = 60

OnReply = Callable[[object], None]


class ProbeLost(RedisError):
    """Our own write was not announced in time: the tracked connection is deaf or half dead."""


class Deaf(RedisError):
    """Redis takes our writes and has announced none of them for too long: nothing mends this."""


@dataclass(slots=True)
class FollowTally:
    """What has happened to the tail since it was made; the numbers only rise."""

    tail: TailTally
    reconnects: int = 0


class Follower:
    """Follow the streams of all merchants that somebody listens to, and that of revocations.

    All over one tracked connection. ``watch`` and ``unwatch`` may be called at any time; what is
    found is told to the callbacks of ``Tail`` and ``RevocationTail``. A lost connection is made
    anew for ever, and all streams are read again then.

    https://redis.io/docs/latest/commands/client-tracking/
    """

    def __init__(
        self,
        url: str,
        *,
        on_armed: Callable[[str, EntryId | None], None],
        on_change: Callable[[Change], None],
        on_revoked: Callable[[Revocation, float], None],
        data_limit_bytes: int,
        probe_interval_s: float,
        probe_deadline_s: float,
        deaf_limit_s: float,
    ) -> None:
        self._tail = Tail(on_armed, on_change)
        self._revocations = RevocationTail(on_revoked)
        self._revocations_read_at = -math.inf
        self._has_revocations = asyncio.Event()
        """Set while we are connected, and have read them to their end on this connection."""
        self.tally = FollowTally(self._tail.tally)
        self._data_limit_bytes = data_limit_bytes
        self._probe_interval_s = probe_interval_s
        self._probe_deadline_s = probe_deadline_s
        self._deaf_limit_s = deaf_limit_s
        self._probe_key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self._probe_announced = asyncio.Event()
        self._probed_at = -math.inf
        self._pool = connection_pool(url, connect_timeout_s=probe_deadline_s, name="tail")
        self._ordinary = Redis(
            connection_pool=connection_pool(url, connect_timeout_s=probe_deadline_s, name="probe")
        )
        self._wanted = asyncio.Event()
        self._requests: deque[tuple[Command, OnReply]] = deque()
        self._in_flight: deque[OnReply] = deque()
        self._is_connected = False
        self._server_id = b""
        # Until Redis has told its time, ours is as good.
        self._redis_ahead_s = time.time() - time.monotonic()
        self._lost_at: float | None = None
        self._refused_at: float | None = None

    @property
    def probe_age_s(self) -> float:
        """Seconds since a write of ours came back announced; infinite if none ever did."""
        return time.monotonic() - self._probed_at

    @property
    def knows_revocations(self) -> bool:
        """Whether every revocation was told that Redis had taken until lately.

        That is proved by a write of ours that was announced, or, while Redis takes none, by
        having read them; no longer ago than ``probe_deadline_s``.
        """
        read_age_s = time.monotonic() - self._revocations_read_at
        age_s = min(self.probe_age_s, read_age_s)
        return self._has_revocations.is_set() and age_s <= self._probe_deadline_s

    async def wait_for_revocations(self, timeout_s: float) -> bool:
        """Return ``knows_revocations``, after a moment if they are just being read."""
        if not self._has_revocations.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._has_revocations.wait()
        return self.knows_revocations

    @property
    def redis_time_s(self) -> float:
        """What the clock of Redis shows now, in seconds since 1970: entry IDs are made of it."""
        return time.monotonic() + self._redis_ahead_s

    def watch(self, merchant_id: str) -> None:
        """Follow a merchant's stream from now on."""
        self._tail.watch(merchant_id)
        self._wanted.set()

    def unwatch(self, merchant_id: str) -> None:
        """Follow it no more."""
        self._tail.unwatch(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``.

        None if they are not all known: trimmed, too many, or Redis is not there to ask.
        """
        if not self._is_connected:
            return None
        reply = await self._ask(read_command(Read(merchant_id, start, end)))
        entries = self._entries(merchant_id, reply)
        return None if entries is None else entries_between(start, end, entries)

    async def run(self) -> None:
        """Keep a tracked connection alive, for ever."""
        failures = 0
        try:
            while True:
                connected_at = time.monotonic()
                cause: Exception | None = None
                try:
                    await self._follow()
                except (RedisError, OSError) as exc:  # TimeoutError is an OSError
                    cause = exc
                if self._probed_at > connected_at:
                    failures = 0
                failures += 1
                if self._lost_at is None:
                    self._lost_at = time.monotonic()
                    text = str(cause) or type(cause).__name__
                    logger.warning("tail interrupted, reconnecting cause=%s", text)
                cap_s = min(_RECONNECT_CAP_S, _RECONNECT_BASE_S * 2 ** min(failures, 16))
                await asyncio.sleep(random.uniform(cap_s / 2, cap_s))  # noqa: S311 (spreads load)
        finally:
            await self._ordinary.aclose()
            await self._ordinary.connection_pool.disconnect()

    async def give_up_if_deaf(self) -> None:
        """Watch, for ever, that what ``run`` does to mend itself does mend it.

        While Redis itself is away or takes no writes there is nothing to give up: another process
        would hear as little, and the browsers are better off with their streams open.

        Raises:
            Deaf: for ``deaf_limit_s`` no write of ours was announced, though Redis took them all.
        """
        well_at = time.monotonic()
        while True:
            await asyncio.sleep(self._probe_interval_s)
            if self.probe_age_s > self._probe_deadline_s and not await self._redis_takes_writes():
                well_at = time.monotonic()  # not deaf: there was nothing to hear
            silence_s = time.monotonic() - max(well_at, self._probed_at)
            if silence_s >= self._deaf_limit_s:
                raise Deaf(f"no write of ours was announced for {silence_s:.0f} s")

    async def _redis_takes_writes(self) -> bool:
        try:
            async with asyncio.timeout(self._probe_deadline_s):
                await self._ordinary.set(self._probe_key, os.getpid(), ex=_PROBE_LIFETIME_S)
        except (RedisError, OSError):
            return False
        return True

    async def _follow(self) -> None:
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self._probe_deadline_s):
                await connection.connect()
                await start_tracking(connection)
                server_id = await read_server_id(connection)
            self._is_connected = True
            self.tally.reconnects += self._server_id != b""
            self._tail.connected(has_history=server_id == self._server_id)
            self._revocations.connected()
            self._server_id = server_id
            self._wanted.set()
            await _until_one_fails(
                self._receive(connection), self._send(connection), self._probe(), self._sweep()
            )
        finally:
            self._is_connected = False
            self._has_revocations.clear()
            await connection.disconnect(nowait=True)
            self._abandon_requests()

    def _abandon_requests(self) -> None:
        lost = RedisConnectionError("the connection to Redis was lost before its answer")
        callbacks = [*self._in_flight, *(on_reply for _, on_reply in self._requests)]
        self._in_flight.clear()
        self._requests.clear()
        for on_reply in callbacks:
            on_reply(lost)

    async def _receive(self, connection: AbstractConnection) -> None:
        """Take replies and announcements in the order in which Redis sent them."""
        while True:
            for _ in range(_READS_AT_ONCE):
                reply = await read_reply_or_announcement(connection)
                if isinstance(reply, Announcement):
                    self._announced(reply)
                elif self._in_flight:
                    self._in_flight.popleft()(reply)
            await asyncio.sleep(0)  # a full buffer is read without suspending

    def _announced(self, announcement: Announcement) -> None:
        if announcement.keys is None:
            self._tail.announced(None)
            self._revocations.mark()
        for key in announcement.keys or ():
            merchant_id = merchant_of(key)
            if merchant_id is not None:
                self._tail.announced(merchant_id)
            elif key == self._probe_key.encode():
                self._probe_announced.set()
            elif key == REVOCATIONS_KEY.encode():
                self._revocations.mark()
        self._wanted.set()

    async def _send(self, connection: AbstractConnection) -> None:
        """Send what is to be read, many reads in one pipeline, never two of one stream at once."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while batch := self._take():
                self._in_flight.extend(on_reply for _, on_reply in batch)
                commands = [command for command, _ in batch]
                await send_commands(connection, commands)

    def _take(self) -> list[tuple[Command, OnReply]]:
        batch = [self._requests.popleft() for _ in range(min(len(self._requests), _READS_AT_ONCE))]
        revocations_read = self._revocations.next_read()
        if revocations_read is not None:
            batch.append((read_revocations_command(revocations_read), self._take_revocations))
        for watch, read in self._tail.reads(_READS_AT_ONCE):
            batch.append((read_command(read), self._taker(watch)))
        return batch

    def _taker(self, watch: Watch) -> OnReply:
        def on_reply(reply: object) -> None:
            if isinstance(reply, RedisConnectionError):
                return  # the next connection reads it again
            entries = self._entries(watch.merchant_id, reply)
            if entries is None:
                self._tail.failed(watch)
            else:
                self._tail.answered(watch, entries)
            if self._tail.has_reads:
                self._wanted.set()

        return on_reply

    def _take_revocations(self, reply: object) -> None:
        if isinstance(reply, RedisConnectionError):
            return  # the next connection reads them again
        entries = parse_revocations(reply)
        if entries is None:
            if self._revocations.knowledge is not Knowledge.UNREADABLE:
                logger.warning("revocations can't be read cause=%s", reply)
            self._revocations.failed()
        else:
            self._revocations.answered(entries)
            self._revocations_read_at = time.monotonic()
        if self._revocations.knowledge is Knowledge.COMPLETE:
            self._has_revocations.set()
        else:
            self._has_revocations.clear()
        self._wanted.set()

    async def _ask(self, command: Command) -> object:
        """Send one command on the tracked connection; a lost connection is an answer too."""
        replied: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_reply(reply: object) -> None:
            if not replied.done():  # who asked may have gone
                replied.set_result(reply)

        self._requests.append((command, on_reply))
        self._wanted.set()
        return await replied

    def _entries(self, merchant_id: str, reply: object) -> list[Entry] | None:
        return parse_entries(merchant_id, reply, data_limit_bytes=self._data_limit_bytes)

    async def _probe(self) -> None:
        """Prove again and again that a change is announced to us, or lose the connection."""
        is_first = True
        while True:
            try:
                async with asyncio.timeout(self._probe_deadline_s):
                    await self._read_clock()
                    await self._see_own_write()
            except TimeoutError as exc:
                text = f"a write of ours was not announced within {self._probe_deadline_s:g} s"
                raise ProbeLost(text) from exc
            except ResponseError as exc:
                # Redis is there but takes no writes (full, read only): the tail itself is well.
                self._revocations.mark()  # nothing has proved that one would be announced
                self._wanted.set()
                if self._refused_at is None:
                    self._refused_at = time.monotonic()
                    logger.warning("redis takes no writes cause=%s", exc)
            else:
                self._probed_at = time.monotonic()
                if is_first:
                    self._log_connected()
                    is_first = False
                if self._refused_at is not None:
                    after_s = time.monotonic() - self._refused_at
                    logger.info("redis takes writes again after_s=%.1f", after_s)
                    self._refused_at = None
            await asyncio.sleep(self._probe_interval_s)

    def _log_connected(self) -> None:
        if self._lost_at is None:
            logger.info("tail connected merchants=%d", len(self._tail))
            return
        away_s = time.monotonic() - self._lost_at
        logger.info("tail connected merchants=%d away_s=%.1f", len(self._tail), away_s)
        self._lost_at = None

    async def _read_clock(self) -> None:
        """Ask what time it is there; in the middle of the round trip, as well as can be known.

        https://redis.io/docs/latest/commands/time/
        """
        asked_at = time.monotonic()
        try:
            seconds, microseconds = await self._ordinary.time()
        except ResponseError:
            return  # a user without the right: the last offset is as good as there is
        answered_at = time.monotonic()
        self._redis_ahead_s = seconds + microseconds / 1e6 - (asked_at + answered_at) / 2

    async def _see_own_write(self) -> None:
        """Write through an ordinary connection, and see it announced on the tracked one."""
        self._probe_announced.clear()
        await self._ask(("GET", self._probe_key))
        await self._ordinary.set(self._probe_key, os.getpid(), ex=_PROBE_LIFETIME_S)
        await self._probe_announced.wait()

    async def _sweep(self) -> None:
        while True:
            for steps_left in reversed(range(_SWEEP_STEPS)):
                await asyncio.sleep(_SWEEP_S / _SWEEP_STEPS)
                self._tail.sweep(1 / _SWEEP_STEPS)
                if steps_left == 0 or self._revocations.knowledge is not Knowledge.COMPLETE:
                    self._revocations.mark()
                self._wanted.set()


async def _until_one_fails(*works: Coroutine[None, None, None]) -> None:
    """Run all until one raises, then end the others and raise that.

    Not a TaskGroup: on Python 3.11 one whose child fails while it is canceled raises the failure
    and forgets the cancellation, and we would connect anew for ever while the process waits.
    """
    tasks = [asyncio.create_task(work, name=f"tail {number}") for number, work in enumerate(works)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
