"""Proof that a notification that Redis takes is found by this process; and the time in Redis.

Knows one stream of its own, to which it adds an entry as a notification is added (``Adds``), and
which it reads as the tail reads (``ask``). Does not know the streams of merchants, nor how the
connections of either are made.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple, Never, Protocol, TypeVar, cast

from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, EventId
from sse_push.stream.contract import Command, parse_ids, read_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.keys import Keys, probe_merchant
from sse_push.stream.proof import Deaf, ProbeLost, ServersDiffer, Trouble, Unannounced, in_time
from sse_push.stream.reads import ProbeEntry, Read
from sse_push.stream.replies import ErrorReply, Refusals, is_elsewhere, is_refusal

logger = logging.getLogger(__name__)

_FRESH_EVERY = 3
"""One probe in so many asks over a connection of its own which server the address leads to."""

_WELL_DEADLINES = 3
"""For how many deadlines a probe, or an excuse, says that this process is well."""


_TRIES = 100_000
"""So often a stream is looked for that a node of a cluster has: of 16 384 slots it has one or more,
and the chance to find none of one slot is 0.2 %. Then the next probe looks again."""

T = TypeVar("T")


class ProbePace(NamedTuple):
    """How often a probe is made, how long it may take, and after which silence we give up."""

    interval_s: float
    deadline_s: float
    deaf_limit_s: float


class Adds(Protocol):
    """What adds entries to streams; the appender."""

    async def append(self, record: ProbeEntry) -> EventId:
        """Add an entry, and return its ID, and the history that has it."""

    def take_used(self) -> set[bytes]:
        """Return the IDs of the servers that entries were sent to since the last call."""

    def renew(self) -> None:
        """Make a new connection before the next entry."""


class Probe:
    """Add an entry as a notification is added, and find it as the tail finds one.

    ``ask(command)`` sends a command on the tracked connection, and returns the reply.
    ``partial_bytes()`` returns how much has arrived there of a reply that is not complete. The
    owner of that connection calls ``announced`` when the announcement of ``key`` arrives there.
    ``dial()`` makes a connection for nothing but to return the ID of the server's run. A node of a
    cluster ``has`` some keys only.
    """

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[object]],
        partial_bytes: Callable[[], int],
        adds: Adds,
        dial: Callable[[], Awaitable[bytes]],
        refusals: Refusals,
        keys: Keys,
        pace: ProbePace,
        has: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._ask = ask
        self._partial_bytes = partial_bytes
        self._adds = adds
        self._dial = dial
        self._refusals = refusals
        self._keys = keys
        self.interval_s, self.deadline_s, self._deaf_limit_s = pace
        self._has = has
        self.merchant_id, self.key = self._new_stream()
        self.passed_at = -math.inf
        """When an entry of ours was last found, by the monotonic clock."""
        self._excused_at = -math.inf
        """When an entry was last not found for a reason that another process would meet as well."""
        self._count = 0
        self._announced = asyncio.Event()
        # Until Redis has given its time, ours is as good.
        self._redis_ahead_s = time.time() - time.monotonic()
        self._no_writes = Trouble()
        self._no_dial = Trouble()
        self._silent_s = 0.0
        """For how long, while this process ran, Redis took entries and announced none."""
        self._is_deaf = asyncio.Event()

    @property
    def age_s(self) -> float:
        """Seconds since an entry of ours was last found; infinite if none ever was."""
        return time.monotonic() - self.passed_at

    @property
    def redis_time_s(self) -> float:
        """The time by the clock of Redis, in seconds since 1970, as in new entry IDs."""
        return time.monotonic() + self._redis_ahead_s

    @property
    def is_well(self) -> bool:
        """Whether nothing speaks for another process in place of this one.

        An entry was found, or Redis is away, or it refuses: lately one of these was seen.
        """
        well_at = max(self.passed_at, self._excused_at)
        return time.monotonic() - well_at < _WELL_DEADLINES * self.deadline_s

    def is_away(self, deadlines: float = 1) -> bool:
        """Whether nothing is proved, and Redis is the reason, as far as this process can tell.

        It can't be reached, or takes no entries. A Redis that takes them without announcing them
        is not away.
        """
        is_old = self.age_s > deadlines * self.deadline_s
        return is_old and self._silent_s == 0 and self.is_well

    def interrupted(self, cause: Exception | None) -> None:
        """Note that the tracked connection was lost, or was not made, and why."""
        if not isinstance(cause, Unannounced):
            self._excused_at = time.monotonic()

    def connected(self) -> None:
        """Begin another stream, on a new connection: an entry in the old one may be too large."""
        self._refusals.discard(self.merchant_id)
        self.merchant_id, self.key = self._new_stream()

    def announced(self) -> None:
        """Note that the tracked connection has announced a change of ``key``."""
        self._announced.set()

    async def check(self, server_id: bytes) -> bool:
        """Prove once that an entry is found; False if Redis refuses, which is no fault of the tail.

        ``server_id`` is that of the tracked connection.

        Raises:
            ProbeLost: nothing was found in time; connect anew.
            ServersDiffer: the entries that are added go elsewhere; connect anew.
            RedisError: the tracked connection is lost.
        """
        self._count += 1
        try:
            is_armed = await self._in_time(self._arm(), "a read of ours was not answered")
            if not is_armed:
                return False
            added = await self._adds.append(ProbeEntry(self.merchant_id))
            # Not only the server of our entry: the address may have led elsewhere meanwhile.
            for used_id in self._adds.take_used():
                self._compare(server_id, used_id)
            if self._count % _FRESH_EVERY == 0:
                await self._compare_afresh(server_id)
        except (StreamUnavailable, OSError) as exc:
            # A full queue, a full Redis: the tracked connection is well, and a new one would not
            # change that.
            self._note_refusal(exc)
            return False
        try:
            is_found = await self._in_time(
                self._find(added.entry_id), "a write of ours was not announced", Unannounced
            )
        except Unannounced:
            self._silent_s += self.deadline_s
            if self._silent_s >= self._deaf_limit_s:
                self._is_deaf.set()
            raise
        if is_found:
            self.passed_at = time.monotonic()
            self._note_success()
        return is_found

    async def give_up_if_deaf(self) -> Never:
        """Watch, for ever, whether a new connection of the follower gets announcements again.

        While Redis is away or takes no entries there is no reason to give up: another process would
        receive as little, and the browsers are better off with their connections open. Nor is the
        time a reason that passes while this process, or the machine, stands still.

        Raises:
            Deaf: no probe was found of as many as make up ``deaf_limit_s``, one after another,
                though Redis accepted all of them. None is cut short: four of 6 s for 20 s.
        """
        await self._is_deaf.wait()
        raise Deaf(f"no write of ours was announced for {self._silent_s:.0f} s")

    async def _in_time(
        self, work: Coroutine[None, None, T], failure: str, lost: type[ProbeLost] = ProbeLost
    ) -> T:
        return await in_time(work, self.deadline_s, self._partial_bytes, failure, lost)

    async def _compare_afresh(self, server_id: bytes) -> None:
        """Compare with the server that the address leads to now, if anybody knows which that is.

        While no Sentinel answers, or Redis has too many clients, the connections that stand are
        proof enough.
        """
        try:
            other_id = await self._dial()
        except OSError as exc:
            if self._no_dial.begins():
                logger.warning("no new connection to redis can be made cause=%s", exc)
            return
        if (after_s := self._no_dial.ends()) is not None:
            logger.info("new connections to redis can be made again after_s=%.1f", after_s)
        self._compare(server_id, other_id)

    def _compare(self, server_id: bytes, other_id: bytes) -> None:
        if server_id != other_id:
            # Which of them is right, nobody knows; new connections lead where the address does.
            self._adds.renew()
            self._adds.take_used()  # a resync stands for what was sent until now
            self._silent_s = 0.0
            raise ServersDiffer("expected one server behind the address of Redis, got two")

    async def _arm(self) -> bool:
        """Read our stream, so that its next change is announced; False if that is refused."""
        self._announced.clear()
        asked_at = time.monotonic()
        is_read, now = await asyncio.gather(
            self._read(Read(self.merchant_id)), self._ask(("TIME",))
        )
        if isinstance(now, list):
            # The time of Redis is that of the middle of the round trip. Not shared with
            # ``Appender._ask_time``: there it decides what is trimmed, on the connection that
            # trims, and a refusal must trim nothing. Here it is an estimate for a metric, and if
            # Redis refuses, the estimate from before is as good as any.
            seconds, microseconds = cast("list[bytes]", now)
            redis_time_s = int(seconds) + int(microseconds) / 1e6
            self._redis_ahead_s = redis_time_s - (asked_at + time.monotonic()) / 2
        return is_read is not None

    async def _find(self, entry_id: EntryId) -> bool:
        """Wait until the entry is announced and read; False if the read is refused."""
        while True:
            await self._announced.wait()
            self._announced.clear()  # before the read, which arms the key again
            found = await self._read(Read(self.merchant_id, entry_id))
            if found is None or entry_id in found:
                return found is not None

    async def _read(self, read: Read) -> list[EntryId] | None:
        reply = await self._ask(read_command(self._keys.stream(read.merchant_id), read))
        if isinstance(reply, RedisConnectionError):
            raise reply
        if self._is_elsewhere(reply):
            self._take_another_stream()
            return None
        if isinstance(reply, ErrorReply) and is_refusal(reply):
            self._excused_at = time.monotonic()
            self._refusals.add(self.merchant_id, reply)
            return None
        self._refusals.discard(self.merchant_id)
        return parse_ids(reply)

    def _is_elsewhere(self, reply: object) -> bool:
        return self._has is not None and is_elsewhere(reply)

    def _take_another_stream(self) -> None:
        """Begin another stream: the slot of this one is on its way to another node."""
        self._excused_at = time.monotonic()
        self.merchant_id, self.key = self._new_stream()

    def _note_refusal(self, cause: Exception) -> None:
        if self._is_elsewhere(cause.__cause__):
            self._take_another_stream()
            return
        self._silent_s = 0.0
        self._excused_at = time.monotonic()
        if self._no_writes.begins():
            # The reply is in the text already; any other cause says more than the text.
            reason = None if isinstance(cause.__cause__, ErrorReply) else cause.__cause__
            logger.warning("redis takes no writes cause=%s", reason or cause)

    def _note_success(self) -> None:
        self._silent_s = 0.0
        if (after_s := self._no_writes.ends()) is not None:
            logger.info("redis takes writes again after_s=%.1f", after_s)

    def _new_stream(self) -> tuple[str, bytes]:
        return _new_stream(self._keys, self._has)


def _new_stream(keys: Keys, has: Callable[[bytes], bool] | None) -> tuple[str, bytes]:
    """Return the merchant and the key of a stream that nobody knows yet, and that the node has."""
    tries = 1 if has is None else _TRIES
    while True:
        merchant_id = probe_merchant(secrets.token_hex(8))
        key = keys.stream(merchant_id).encode()
        tries -= 1
        if not tries or has is None or has(key):
            return merchant_id, key
