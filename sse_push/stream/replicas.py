"""Wait until so many replicas have what was added: the setting ``wait_replicas``.

Knows WAIT, which keeps its connection from anything else until replicas have all that was sent on
it. So the command is the last one of a pipeline; the entries are in the stream, and announced,
before. Does not know how entries are added.

https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from sse_push.stream.connection import Connection
from sse_push.stream.contract import Command, wait_command
from sse_push.stream.failures import RedisError
from sse_push.stream.outcomes import Held, Record, Result, Waiting, fail, waits_for_replicas
from sse_push.stream.pool import Pool
from sse_push.stream.proof import Trouble
from sse_push.stream.reads import ProbeEntry

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""At most this many connections wait for replicas. Another one is at hand for the probe: a replica
that lags must not make the service look as if Redis took no entries."""

_MARGIN_SHARE = 0.1
"""So much earlier than the caller gives up, as a share of its time, Redis gives up waiting."""


class Replicas:
    """Give records their results once ``count`` replicas have them; with 0, do nothing.

    A connection that waits is lent from the ``pool``, and ``on_free`` is called when it is back.
    """

    def __init__(
        self, count: int, pool: Pool, *, timeout_s: float, on_free: Callable[[], None]
    ) -> None:
        self.count = count
        self._pool = pool
        self._margin_s = timeout_s * _MARGIN_SHARE
        self._on_free = on_free
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Future[Result]] = set()
        self._trouble = Trouble()

    @property
    def has_room(self) -> bool:
        """Whether another connection may wait; always, if nothing is waited for."""
        return len(self._tasks) < _AT_ONCE

    def holds(self, result: asyncio.Future[Result]) -> bool:
        """Return whether a record was added, and replicas may not have it yet."""
        return result in self._held

    def goes_first(self, records: Sequence[Record]) -> bool:
        """Return whether these are a probe, and others may have to wait for a connection."""
        return self.count > 0 and any(isinstance(each, ProbeEntry) for each in records)

    def commands(self, batch: Sequence[Waiting]) -> list[Command]:
        """Return the command that ends the pipeline of these records, if any of them waits."""
        if not self.count or not any(waits_for_replicas(each.record) for each in batch):
            return []
        # Until the last caller gives up: for another one the answer may come too late, but none is
        # told of a failure that was about to be a success.
        left_s = _last_until(batch) - asyncio.get_running_loop().time() - self._margin_s
        return [wait_command(self.count, max(1, int(left_s * 1000)))]

    def wait(self, batch: Sequence[Waiting], held: Sequence[Held]) -> None:
        """Wait on the connection at hand, over which the batch and the command went out.

        ``held`` are those of the batch that Redis has added.
        """
        self._held.update(each.waiting.result for each in held)
        work = self._wait(self._pool.lend(), _last_until(batch), held)
        task = asyncio.create_task(work, name="wait for replicas")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End all waits; nobody learns whether replicas have the records."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_free()

    async def _wait(self, connection: Connection, until: float, held: Sequence[Held]) -> None:
        reply: object = None
        cause: Exception | None = None
        try:
            async with asyncio.timeout_at(until):
                reply = await connection.read()
        except (RedisError, OSError) as exc:  # TimeoutError is an OSError
            cause = exc
        finally:
            if reply is None:
                connection.close()  # the reply may still come
            self._pool.give_back(connection)
            self._held.difference_update(each.waiting.result for each in held)
            # Also if this task is canceled: the entries are in the stream.
            if isinstance(reply, int) and reply >= self.count:
                self._have(held)
            else:
                self._lack(held, "no answer" if reply is None else str(reply), cause)

    def _have(self, held: Sequence[Held]) -> None:
        for waiting, event_id in held:
            if not waiting.result.done():  # its caller still waits
                waiting.result.set_result(event_id)
        if (after_s := self._trouble.ends()) is not None:
            logger.info("replicas have new entries again after_s=%.1f", after_s)

    def _lack(self, held: Sequence[Held], got: str, cause: Exception | None) -> None:
        text = f"expected {self.count} replica(s) to have the entry in time, got {got}"
        fail([each.waiting for each in held], text, cause, "unknown")
        if self._trouble.begins():
            logger.warning("too few replicas have new entries expected=%d got=%s", self.count, got)


def _last_until(batch: Sequence[Waiting]) -> float:
    return max(each.until for each in batch)
