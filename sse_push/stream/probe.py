"""Proof that Redis announces changes to this process; and the time by the clock of Redis.

Knows one key of its own, and an ordinary connection to write it. Does not know the streams; of the
tracked connection it knows only how to send one command there (``ask``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Never

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from sse_push.stream.connection import connection_pool
from sse_push.stream.contract import PROBE_PREFIX, Command

logger = logging.getLogger(__name__)

_KEY_LIFETIME_S = 60


class ProbeLost(RedisError):
    """A write of ours was not announced in time: the tracked connection is of no use."""


class Deaf(RedisError):
    """Redis takes our writes and has announced none of them for too long.

    *Deaf* is a process to which Redis announces nothing, although Redis is well: its browsers look
    connected and get no refresh. New connections have not helped, so only a new process may.
    """


class Probe:
    """Write a key through an ordinary connection, and see it announced on the tracked one.

    ``ask(command)`` sends a command on the tracked connection, and returns the reply. The owner of
    that connection calls ``announced`` when the announcement of ``key`` arrives there.
    """

    def __init__(
        self,
        url: str,
        ask: Callable[[Command], Awaitable[object]],
        *,
        interval_s: float,
        deadline_s: float,
        deaf_limit_s: float,
    ) -> None:
        self._ask = ask
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._deaf_limit_s = deaf_limit_s
        self.key = f"{PROBE_PREFIX}{secrets.token_hex(8)}".encode()
        self.passed_at = -math.inf
        """When a write of ours was last announced, by the monotonic clock."""
        self._announced = asyncio.Event()
        self._ordinary = Redis(
            connection_pool=connection_pool(url, connect_timeout_s=deadline_s, name="probe")
        )
        # Until Redis has given its time, ours is as good.
        self._redis_ahead_s = time.time() - time.monotonic()
        self._refused_at: float | None = None
        """Since when Redis takes no writes; None if it takes them."""

    @property
    def age_s(self) -> float:
        """Seconds since a write of ours was last announced; infinite if none ever was."""
        return time.monotonic() - self.passed_at

    @property
    def redis_time_s(self) -> float:
        """The time by the clock of Redis, in seconds since 1970, as in new entry IDs."""
        return time.monotonic() + self._redis_ahead_s

    def announced(self) -> None:
        """Note that the tracked connection has announced a change of ``key``."""
        self._announced.set()

    async def check(self) -> bool:
        """Prove once that a change is announced; False if Redis takes no writes just now.

        Raises:
            ProbeLost: nothing was announced in time; connect anew.
            RedisError, OSError: the ordinary connection failed; connect anew.
        """
        try:
            async with asyncio.timeout(self.deadline_s):
                await self._read_clock()
                await self._see_own_write()
        except TimeoutError as exc:
            text = f"a write of ours was not announced within {self.deadline_s:g} s"
            raise ProbeLost(text) from exc
        except ResponseError as exc:
            # Redis answers but takes no writes (it is full, or read only). Nothing is wrong with
            # the tracked connection, and a new one would not change that.
            self._note_refusal(exc)
            return False
        self.passed_at = time.monotonic()
        self._note_success()
        return True

    async def give_up_if_deaf(self) -> Never:
        """Watch, for ever, whether a new connection of the follower gets announcements again.

        While Redis is away or takes no writes there is no reason to give up: another process would
        receive as little, and the browsers are better off with their connections open.

        Raises:
            Deaf: for ``deaf_limit_s`` no write was announced, though Redis accepted all writes.
        """
        well_at = time.monotonic()
        while True:
            await asyncio.sleep(self.interval_s)
            if self.age_s > self.deadline_s and not await self._redis_takes_writes():
                well_at = time.monotonic()  # not deaf: there was nothing to announce
            silence_s = time.monotonic() - max(well_at, self.passed_at)
            if silence_s >= self._deaf_limit_s:
                raise Deaf(f"no write of ours was announced for {silence_s:.0f} s")

    async def close(self) -> None:
        """Close the ordinary connections."""
        await self._ordinary.aclose()
        await self._ordinary.connection_pool.disconnect()

    async def _redis_takes_writes(self) -> bool:
        try:
            async with asyncio.timeout(self.deadline_s):
                await self._write()
        except (RedisError, OSError):
            return False
        return True

    async def _write(self) -> None:
        await self._ordinary.set(self.key, os.getpid(), ex=_KEY_LIFETIME_S)

    async def _see_own_write(self) -> None:
        self._announced.clear()
        # The read arms the key on the tracked connection; the write goes over another connection.
        await self._ask(("GET", self.key))
        await self._write()
        await self._announced.wait()

    async def _read_clock(self) -> None:
        """Ask Redis for its time, which is assumed to be that of the middle of the round trip.

        Not shared with ``Appender._ask_time``. This time is an estimate for a metric, read on
        a connection of the library's pool, and if Redis refuses, the last estimate stays. That of
        ``Appender`` decides what is trimmed, on the connection that trims, and a refusal must trim
        nothing. Only the command is the same.

        https://redis.io/docs/latest/commands/time/
        """
        asked_at = time.monotonic()
        try:
            seconds, microseconds = await self._ordinary.time()
        except ResponseError:
            return  # a user without the right
        answered_at = time.monotonic()
        self._redis_ahead_s = seconds + microseconds / 1e6 - (asked_at + answered_at) / 2

    def _note_refusal(self, cause: ResponseError) -> None:
        if self._refused_at is None:
            self._refused_at = time.monotonic()
            logger.warning("redis takes no writes cause=%s", cause)

    def _note_success(self) -> None:
        if self._refused_at is not None:
            after_s = time.monotonic() - self._refused_at
            logger.info("redis takes writes again after_s=%.1f", after_s)
            self._refused_at = None
