"""One tracked connection to Redis: it announces which streams have changed, and reads them.

Knows how that connection dies, and makes a new one. Does not know which read comes next, nor what
an answer means: ``tail`` and ``revocations`` decide that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, Entry, EntryId
from sse_push.stream.connection import (
    Announcement,
    connection_pool,
    read_server_id,
    start_tracking,
)
from sse_push.stream.contract import (
    REVOCATIONS_KEY,
    merchant_of,
    parse_entries,
    parse_revocations,
    read_command,
    read_revocations_command,
)
from sse_push.stream.pipeline import AT_ONCE, OnReply, Pipeline, Request
from sse_push.stream.probe import Probe
from sse_push.stream.reads import Read, entries_between
from sse_push.stream.revocations import Knowledge, RevocationTail
from sse_push.stream.tail import Tail, TailTally
from sse_push.stream.watch import Watch

logger = logging.getLogger(__name__)

_RECONNECT_BASE_S = 0.1
_RECONNECT_CAP_S = 2.0

_SWEEP_S = 30.0
"""How long it takes to read every stream again without a cause."""

_SWEEP_STEPS = 30


class Listener(Protocol):
    """Receives what the follower finds; the hub."""

    def armed(self, merchant_id: str, newest: EntryId | None) -> None:
        """Note that a watched stream has been read for the first time; None: it has no entry."""

    def publish(self, change: Change) -> None:
        """Pass on a change of a stream that is armed."""

    def revoke(self, revocation: Revocation, at: float) -> None:
        """Apply a revocation that Redis has stored ``at`` this time, in seconds since 1970."""


@dataclass(slots=True)
class FollowTally:
    """Counts of resyncs and reconnections since the start; the numbers only rise."""

    tail: TailTally
    reconnects: int = 0


class Follower:
    """Follow the streams of all merchants with a connection, and the stream of revocations.

    All reads go over one tracked connection. ``watch`` and ``unwatch`` may be called at any time;
    changes go to the ``listener``. A connection that is lost is replaced, for ever, and then all
    streams are read again.

    https://redis.io/docs/latest/commands/client-tracking/
    """

    def __init__(
        self,
        url: str,
        listener: Listener,
        *,
        data_limit_bytes: int,
        probe_interval_s: float,
        probe_deadline_s: float,
        deaf_limit_s: float,
    ) -> None:
        self._tail = Tail(listener.armed, listener.publish)
        self._revocations = RevocationTail(listener.revoke)
        self._revocations_read_at = -math.inf
        self._has_revocations = asyncio.Event()
        """Set while the stream of revocations has been read to its end on this connection."""
        self._pipeline = Pipeline(self._next_requests, self._announced)
        self.probe = Probe(
            url,
            self._pipeline.ask,
            interval_s=probe_interval_s,
            deadline_s=probe_deadline_s,
            deaf_limit_s=deaf_limit_s,
        )
        self.tally = FollowTally(self._tail.tally)
        self._data_limit_bytes = data_limit_bytes
        self._pool = connection_pool(url, connect_timeout_s=probe_deadline_s, name="tail")
        self._is_connected = False
        self._server_id = b""
        self._lost_at: float | None = None

    @property
    def knows_revocations(self) -> bool:
        """Whether all revocations have been passed on that are older than ``probe_deadline_s``.

        The proof is an announced write of ours or, while Redis takes no writes, a read of the
        stream of revocations.
        """
        read_age_s = time.monotonic() - self._revocations_read_at
        age_s = min(self.probe.age_s, read_age_s)
        return self._has_revocations.is_set() and age_s <= self.probe.deadline_s

    async def wait_for_revocations(self, timeout_s: float) -> bool:
        """Return ``knows_revocations``, after waiting at most ``timeout_s`` for them to be read."""
        if not self._has_revocations.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._has_revocations.wait()
        return self.knows_revocations

    def watch(self, merchant_id: str) -> None:
        """Follow a merchant's stream from now on."""
        self._tail.watch(merchant_id)
        self._pipeline.wake()

    def unwatch(self, merchant_id: str) -> None:
        """Follow a merchant's stream no longer."""
        self._tail.unwatch(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``.

        None if some entries may be missing: they were trimmed, are too many, or Redis is away.
        """
        if not self._is_connected:
            return None
        reply = await self._pipeline.ask(read_command(Read(merchant_id, start, end)))
        entries = self._parse(merchant_id, reply)
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
                if self.probe.passed_at > connected_at:
                    failures = 0
                failures += 1
                if self._lost_at is None:
                    self._lost_at = time.monotonic()
                    text = str(cause) or type(cause).__name__
                    logger.warning("tail interrupted, reconnecting cause=%s", text)
                cap_s = min(_RECONNECT_CAP_S, _RECONNECT_BASE_S * 2 ** min(failures, 16))
                await asyncio.sleep(random.uniform(cap_s / 2, cap_s))  # noqa: S311 (spreads load)
        finally:
            await self.probe.close()

    async def _follow(self) -> None:
        """Connect, and work on this connection until it is lost."""
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(self.probe.deadline_s):
                await connection.connect()
                await start_tracking(connection)
                server_id = await read_server_id(connection)
            self._is_connected = True
            self.tally.reconnects += self._server_id != b""
            self._tail.connected(has_history=server_id == self._server_id)
            self._revocations.connected()
            self._server_id = server_id
            self._pipeline.wake()
            await _until_one_fails(
                self._pipeline.receive(connection),
                self._pipeline.send(connection),
                self._prove(),
                self._sweep(),
            )
        finally:
            self._is_connected = False
            self._has_revocations.clear()
            await connection.disconnect(nowait=True)
            self._pipeline.abandon()

    def _announced(self, announcement: Announcement) -> None:
        if announcement.keys is None:
            self._tail.announced(None)
            self._revocations.mark()
        for key in announcement.keys or ():
            merchant_id = merchant_of(key)
            if merchant_id is not None:
                self._tail.announced(merchant_id)
            elif key == self.probe.key:
                self.probe.announced()
            elif key == REVOCATIONS_KEY.encode():
                self._revocations.mark()
        self._pipeline.wake()

    def _next_requests(self) -> list[Request]:
        """Return the reads that are due, never two of one stream at once."""
        requests: list[Request] = []
        revocations_read = self._revocations.next_read()
        if revocations_read is not None:
            requests.append((read_revocations_command(revocations_read), self._on_revocations))
        for watch, read in self._tail.reads(AT_ONCE):
            requests.append((read_command(read), self._on_entries(watch)))
        return requests

    def _on_entries(self, watch: Watch) -> OnReply:
        def on_reply(reply: object) -> None:
            if isinstance(reply, RedisConnectionError):
                return  # the stream is read again on the next connection
            entries = self._parse(watch.merchant_id, reply)
            if entries is None:
                self._tail.failed(watch)
            else:
                self._tail.answered(watch, entries)
            if self._tail.has_reads:
                self._pipeline.wake()

        return on_reply

    def _on_revocations(self, reply: object) -> None:
        if isinstance(reply, RedisConnectionError):
            return  # the revocations are read again on the next connection
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
        self._pipeline.wake()

    def _parse(self, merchant_id: str, reply: object) -> list[Entry] | None:
        return parse_entries(merchant_id, reply, data_limit_bytes=self._data_limit_bytes)

    async def _prove(self) -> None:
        """Prove again and again that changes are announced, or lose the connection."""
        is_proven = False
        while True:
            if not await self.probe.check():
                # Redis takes no writes, so there is no proof that it would announce a revocation:
                # the revocations are read all the same.
                self._revocations.mark()
                self._pipeline.wake()
            elif not is_proven:
                is_proven = True
                self._log_connected()
            await asyncio.sleep(self.probe.interval_s)

    def _log_connected(self) -> None:
        if self._lost_at is None:
            logger.info("tail connected merchants=%d", len(self._tail))
            return
        away_s = time.monotonic() - self._lost_at
        logger.info("tail connected merchants=%d away_s=%.1f", len(self._tail), away_s)
        self._lost_at = None

    async def _sweep(self) -> None:
        while True:
            for steps_left in reversed(range(_SWEEP_STEPS)):
                await asyncio.sleep(_SWEEP_S / _SWEEP_STEPS)
                self._tail.sweep(1 / _SWEEP_STEPS)
                # Revocations are read once in a round, or in each step while they are not known.
                if steps_left == 0 or self._revocations.knowledge is not Knowledge.COMPLETE:
                    self._revocations.mark()
                self._pipeline.wake()


async def _until_one_fails(*works: Coroutine[None, None, None]) -> None:
    """Run all until one raises, then end the others and raise that.

    Not a TaskGroup: on Python 3.11, if a child of a group fails while the group is canceled, the
    group raises the failure and forgets the cancellation. The follower would connect anew for ever
    while the process waits for its end.
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
