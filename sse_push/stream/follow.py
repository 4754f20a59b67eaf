"""One tracked connection to Redis: it announces which streams have changed, and reads them.

Knows how that connection dies, and makes a new one. Does not know which read comes next, nor what
an answer means: ``tail`` and ``revocations`` decide that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Never, Self, TypeVar

from sse_push.notification import Entry, EntryId
from sse_push.stream.announcing import Announcing
from sse_push.stream.aside import Aside
from sse_push.stream.bell import BellKind
from sse_push.stream.connection import Announcement
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisConnectionError, RedisError
from sse_push.stream.heard import Heard
from sse_push.stream.histories import NamesHistory
from sse_push.stream.keys import Keys
from sse_push.stream.known_merchants import KnownMerchants
from sse_push.stream.known_revocations import KnownRevocations
from sse_push.stream.leftovers import Leftovers
from sse_push.stream.listener import Listener
from sse_push.stream.moving import Membership, Moving
from sse_push.stream.opening import dial
from sse_push.stream.pipeline import Pipeline, Request, until_one_fails
from sse_push.stream.planting import Planting, PlantTally
from sse_push.stream.probe import Adds, Probe, ProbePace
from sse_push.stream.proof import ServersDiffer, Trouble
from sse_push.stream.reading import Reading
from sse_push.stream.replies import Refusals, pause_s
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.rounds import SWEEP_STEPS, Rounds
from sse_push.stream.standing import StreamName
from sse_push.stream.tail import Tail, TailTally

logger = logging.getLogger(__name__)

K = TypeVar("K")


@dataclass(slots=True)
class FollowTally:
    """Counts of resyncs and reconnections since the start; the numbers only rise."""

    tail: TailTally
    plants: PlantTally
    reconnects: int = 0

    @classmethod
    def of_none(cls) -> Self:
        """Return the counts of no server."""
        return cls(TailTally(), PlantTally())

    def __add__(self, other: FollowTally) -> FollowTally:
        """Return the sums."""
        return FollowTally(
            TailTally(_sums(self.tail.resyncs, other.tail.resyncs)),
            PlantTally(_sums(self.plants.outcomes, other.plants.outcomes)),
            self.reconnects + other.reconnects,
        )


def _sums(counts: dict[K, int], others: dict[K, int]) -> dict[K, int]:
    return {name: count + others[name] for name, count in counts.items()}


class Follower:
    """Follow the streams of all merchants with a connection, and the stream of revocations.

    All reads go over one tracked connection, but those whose replies may end it (``aside``); where
    Redis refuses tracking, a subscribed connection beside it hears of changes (``announcing``).
    ``watch`` and ``unwatch`` may be called at any time; changes go to the ``listener``. A
    connection that is lost is replaced, for ever, and then all streams are read again.

    https://redis.io/docs/latest/commands/client-tracking/
    """

    def __init__(
        self,
        announcing: Announcing,
        listener: Listener,
        adds: Adds,
        planting: Planting,
        keys: Keys,
        pace: ProbePace,
        *,
        data_limit_bytes: int,
        sweep_s: float | None = None,
        membership: Membership | None = None,
    ) -> None:
        self._refusals = Refusals()
        self.announcing = announcing
        self._pipeline = Pipeline(self._next_requests, self._announced)
        self.planting = planting
        told = self._history = NamesHistory(listener, keys.prefix)
        self._tail = Tail(
            told.armed, told.publish, sweep_steps=SWEEP_STEPS, may_plant=planting.may_plant
        )
        wake = self._pipeline.wake
        limit_bytes = announcing.reply_limit_bytes
        self._aside = Aside(announcing.address, self._refusals, reply_limit_bytes=limit_bytes)
        moving = None
        if membership is not None:
            moving = Moving(membership, self._read_again, self._tail.announced, limit_bytes)
        self.moving = moving
        reading = Reading(self._refusals, self._aside, moving, wake)
        revoked = membership and membership.revocations
        revoked = revoked or RevocationTail(listener.revoke, listener.revoke_all)
        self.revocations = KnownRevocations(revoked, reading, keys.revocations)
        self._leftovers = Leftovers()
        self.merchants = KnownMerchants(
            self._tail, planting, self._leftovers, reading, keys, data_limit_bytes=data_limit_bytes
        )
        self.probe = Probe(
            partial(self._pipeline.ask, is_urgent=True),
            lambda: self._pipeline.partial_bytes,
            adds,
            partial(dial, announcing.address),
            self._refusals,
            keys,
            pace,
            None if membership is None else membership.has,
        )
        self._heard = Heard(keys, self._tail, self.revocations, self.probe, self._leftovers, wake)
        self._rounds = Rounds(self._tail.turns, planting, self.revocations, wake, sweep_s)
        self.tally = FollowTally(self._tail.tally, planting.tally)
        self._is_connected = False
        self.server_id = b""
        """The ID of the run of the server that we were last connected to."""
        self._has_split = False
        """Two servers took entries at the same time: what is held of either proves nothing."""
        self._outage = Trouble()

    @property
    def age_s(self) -> float:
        """Seconds since it was last proved that every change is found.

        Infinite if that never was, or while Redis refuses a read.
        """
        return math.inf if self._refusals else self.probe.age_s

    @property
    def primaries_away(self) -> tuple[str, ...]:
        """None: without its one server a process is not ready, which ``age_s`` says."""
        return ()

    @property
    def is_well(self) -> bool:
        """Whether another process would do no better: see ``Probe.is_well``."""
        return self.probe.is_well

    @property
    def redis_time_s(self) -> float:
        """The time by the clock of Redis, in seconds since 1970, as in new entry IDs."""
        return self.probe.redis_time_s

    @property
    def bell(self) -> BellKind:
        """By which changes are heard of."""
        return self.announcing.kind

    @property
    def knows_revocations(self) -> bool:
        """Whether all revocations have been passed on that are older than ``probe_deadline_s``.

        The proof is an announced write of ours or, while Redis takes no writes, a read of the
        stream of revocations.
        """
        age_s = min(self.probe.age_s, self.revocations.read_age_s)
        return self.revocations.is_complete and age_s <= self.probe.deadline_s

    async def wait_for_revocations(self, timeout_s: float) -> bool:
        """Return ``knows_revocations``, after waiting at most ``timeout_s`` for them to be read."""
        await self.revocations.wait_until_complete(timeout_s)
        return self.knows_revocations

    def watch(self, merchant_id: str) -> None:
        """Follow a merchant's stream from now on."""
        self.merchants.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        """Follow a merchant's stream no longer."""
        self.merchants.unwatch(merchant_id, is_tracked=self.announcing.kind == "tracking")

    async def ask(self, command: Command) -> object:
        """Send a command on the tracked connection, if there is one, and return the reply."""
        if not self._is_connected:
            return RedisConnectionError("there is no connection")
        return await self._pipeline.ask(command)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``.

        None if some entries may be missing: they were trimmed, are too many or too large, or Redis
        is away.
        """
        if not self._is_connected:
            return None
        return await self.merchants.between(self._pipeline.ask, merchant_id, start, end)

    async def give_up_if_deaf(self) -> Never:
        """Watch, for ever, whether announcements still arrive.

        Raises:
            Deaf: none arrives any more; see ``Probe.give_up_if_deaf``.
        """
        await self.probe.give_up_if_deaf()

    async def run(self) -> None:
        """Keep a tracked connection alive, for ever."""
        failures = 0
        while True:
            connected_at = time.monotonic()
            cause: Exception | None = None
            try:
                await self._follow()
            except ServersDiffer as exc:
                # The appender may have added to the other server what this one never gets, and
                # the tail may be back at this one, whose history looks as if nothing had happened.
                self._has_split = True
                cause = exc
            except (RedisError, OSError) as exc:  # TimeoutError is an OSError
                cause = exc
            self.probe.interrupted(cause)
            if self.probe.passed_at > connected_at:
                failures = 0
            failures += 1
            if self._outage.begins():
                text = str(cause) or type(cause).__name__
                logger.warning("tail interrupted, reconnecting cause=%s", text)
            await asyncio.sleep(pause_s(failures))

    async def _follow(self) -> None:
        """Connect, and work on this connection until it is lost."""
        try:
            with closing(await self.announcing.open()) as opened:
                server_id = opened.reading.server_id
                self._is_connected = True
                self.tally.reconnects += self.server_id != b""
                is_continued = self._history.connected(server_id)
                if not is_continued:
                    self._leftovers.clear()
                self._tail.connected(has_history=is_continued and not self._has_split)
                self._has_split = False
                self.revocations.connected()
                self.probe.connected()
                self.planting.connected(None if self.moving is None else self.probe.key.decode())
                self.server_id = server_id
                self._pipeline.wake()
                await until_one_fails(
                    self._pipeline.receive(opened.reading),
                    self._pipeline.send(opened.reading),
                    self._prove(),
                    self.announcing.hear(opened.subscribed, self._heard.said),
                    self._rounds.sweep(self.announcing.kind),
                    self._rounds.read_late(),
                    self._refusals.retry(self._rounds.retry),
                    self._aside.run(server_id),
                    *(() if self.moving is None else self.moving.works()),
                )
        finally:
            self._is_connected = False
            self.revocations.lost()
            self._pipeline.abandon()

    def _read_again(self, stream: StreamName) -> bool:
        self._pipeline.wake()
        return self.revocations.mark() if stream is None else self._tail.read_again(stream)

    def _announced(self, announcement: Announcement) -> None:
        self._heard.announced(announcement)

    def _next_requests(self, most: int) -> list[Request]:
        revocations_request = self.revocations.next_request()
        if revocations_request is None:
            return self.merchants.next_requests(most)
        return [revocations_request, *self.merchants.next_requests(most - 1)]

    async def _prove(self) -> None:
        """Prove again and again that changes are announced, or lose the connection."""
        is_proven = False
        while True:
            began_at = time.monotonic()
            if not await self.probe.check(self.server_id):
                # Redis takes no entries, so there is no proof that it would announce a revocation:
                # the revocations are read all the same.
                self.revocations.mark()
                self._pipeline.wake()
            elif not is_proven:
                is_proven = True
                self._log_connected()
            # From its beginning: where a round trip is slow, the probe alone takes seconds.
            await asyncio.sleep(began_at + self.probe.interval_s - time.monotonic())

    def _log_connected(self) -> None:
        away_s = self._outage.ends()
        if away_s is None:
            logger.info("tail connected merchants=%d", len(self._tail))
        else:
            logger.info("tail connected merchants=%d away_s=%.1f", len(self._tail), away_s)
