"""Read the streams whose replies may end a connection on one of their own, few at a time.

Knows which replies were on their way as that connection was lost. Does not know what a read asks
for, nor what its answer means; ``standing`` decides which streams are read here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import NamedTuple

from sse_push.stream.address import Address
from sse_push.stream.connection import Connection
from sse_push.stream.contract import Command, arm_command
from sse_push.stream.failures import RedisError
from sse_push.stream.opening import open_connection
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.pipeline import OnReply, ReplyLost, Request
from sse_push.stream.replies import Refusals, WrongServer, pause_s
from sse_push.stream.standing import Standings, StreamName
from sse_push.stream.window import EXPECTED_BYTES

_AT_ONCE = 64
"""At most this many reads are on their way here."""

_REPLY_LIMIT_S = 10.0
"""How long a reply may take: a connection of which nothing more is heard is lost."""

_IDLE_S = 10.0
"""How long the connection is kept without a read."""

_PATIENCE = 3
"""After so many failures in a row to connect, the reads that wait count as refused."""


class _Waiting(NamedTuple):
    """A read that waits for its turn, or for its reply."""

    stream: StreamName
    command: Command
    on_reply: OnReply


class Aside:
    """Turn a read that may end the shared connection into one that can't.

    Such a read has two steps, in this order: on the shared connection the key is *armed*, by a
    read that returns no entry; then the entries are read on a connection without announcements. A
    change between the two is announced, and leads to another read. A read whose reply is too large
    is answered with ``ReplyTooLarge``; until the pause after it ends, the key is armed only, and
    each read is answered so at once.
    """

    def __init__(self, address: Address, refusals: Refusals, *, reply_limit_bytes: int) -> None:
        self._address = address
        self._refusals = refusals
        self._reply_limit_bytes = reply_limit_bytes
        self.standings = Standings()
        self._queue: deque[_Waiting] = deque()
        self._sent: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._at_once = 1

    def request(self, stream: StreamName, command: Command, on_reply: OnReply) -> Request:
        """Return what is to be sent on the shared connection for the read of a stream."""

        def on_armed(reply: object) -> None:
            if isinstance(reply, Exception):
                on_reply(reply)
            elif self.standings.may_be_read(stream):
                self._queue.append(_Waiting(stream, command, on_reply))
                self._arrived.set()
            else:
                on_reply(ReplyTooLarge("expected a small reply, got large ones before"))

        return arm_command(command), on_armed

    def lost(self, stream: StreamName, loss: Exception) -> None:
        """Note why the reply to a stream's read did not arrive on the shared connection."""
        if isinstance(loss, ReplyLost):
            if loss.excess is None:
                self.standings.suspect(stream)
            else:
                self.standings.exceeded(stream, loss.excess)

    async def run(self, server_id: bytes) -> None:
        """Read what waits, for ever, from the server that the shared connection leads to.

        Raises:
            WrongServer: the address leads to another one by now.
        """
        try:
            await self._read_for_ever(server_id)
        finally:
            # The shared connection is lost, and all that is read there is read again.
            self._queue.clear()
            self._sent.clear()
            self._arrived.clear()

    async def _read_for_ever(self, server_id: bytes) -> None:
        failures = 0
        while True:
            await self._arrived.wait()
            try:
                opening = open_connection(
                    self._address, "aside", self._reply_limit_bytes, tracks=False
                )
                with contextlib.closing(await opening) as connection:
                    _compare(server_id, connection.server_id)
                    failures = 0
                    await self._read_all(connection)
            except WrongServer:
                raise
            except (RedisError, OSError) as exc:  # TimeoutError is an OSError
                failures += 1
                self._judge(exc, failures)
                await asyncio.sleep(pause_s(failures))

    async def _read_all(self, connection: Connection) -> None:
        """Read what waits, until nothing has for a while."""
        self._at_once = 1
        while self._queue:
            before = connection.received_bytes
            await self._read_some(connection)
            # Twice as many at once, as long as all goes well, within what is sent anywhere at once.
            is_small = 2 * (connection.received_bytes - before) < EXPECTED_BYTES
            self._at_once = min(_AT_ONCE, 2 * self._at_once) if is_small else 1
            if not self._queue:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_S):
                        await self._arrived.wait()

    async def _read_some(self, connection: Connection) -> None:
        while self._queue and len(self._sent) < self._at_once:
            self._sent.append(self._queue.popleft())
        async with asyncio.timeout(_REPLY_LIMIT_S):
            await connection.send([each.command for each in self._sent])
        while self._sent:
            async with asyncio.timeout(_REPLY_LIMIT_S):
                reply = await connection.read()
            waiting = self._sent.popleft()
            self.standings.answered(waiting.stream)
            waiting.on_reply(reply)

    def _judge(self, cause: Exception, failures: int) -> None:
        """Find the read that has ended the connection; the others are sent again."""
        if not self._sent:
            if failures >= _PATIENCE:
                for waiting in self._queue:
                    self._refusals.add(waiting.stream, cause)
            return
        first = self._sent[0]
        if isinstance(cause, ReplyTooLarge):
            self.standings.exceeded(first.stream, cause)
        elif len(self._sent) == 1:
            self.standings.cut_alone(first.stream, cause)
        if not self.standings.may_be_read(first.stream):
            self._sent.popleft()
            first.on_reply(ReplyTooLarge(str(cause)))
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()


def _compare(server_id: bytes, other_id: bytes) -> None:
    if server_id != other_id:
        raise WrongServer("expected the server of the shared connection, got another one")
