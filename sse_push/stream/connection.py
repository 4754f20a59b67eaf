"""One connection to Redis: commands go out on it, replies and announcements come in, in order.

It is made once, and never again by itself: a connection that took the place of a lost one would
repeat a command, or announce nothing, unnoticed. Knows pieces of bytes and how a connection ends.
Does not know keys or commands, nor how a connection begins (``opening``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from hiredis import PushNotification, pack_command

from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.parser import NOT_WHOLE, Parser
from sse_push.stream.replies import ErrorReply

_PIECE_BYTES = 65_536
"""At most so much is parsed at once. What has arrived is counted when it is parsed, so that the
replies that belong to it are soon counted, too."""

_HELD_BYTES = 2 * _PIECE_BYTES
"""So much is held that is not parsed yet; then the socket is read no further, for a while."""

_INVALIDATE = b"invalidate"

_pack = cast("Callable[[Command], bytes]", pack_command)
"""Its types say that a command is one word."""


class Announcement(NamedTuple):
    """An invalidation message: these keys have changed since they were read; None: any may have.

    https://redis.io/docs/latest/develop/reference/client-side-caching/
    """

    keys: list[bytes] | None


class Connection(asyncio.Protocol):
    """Send commands, and read replies, each a reply of Redis in the order of the commands.

    One task reads at a time. A read that is canceled has taken nothing: the next one goes on where
    it stopped. No wait has a time limit of its own: the caller sets one, or notices the silence.
    """

    def __init__(self, reply_limit_bytes: int) -> None:
        self._parser = Parser(reply_limit_bytes)
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._arrival: asyncio.Future[None] | None = None
        """What the task that reads waits for."""
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._loss: RedisConnectionError | None = None
        """Why the connection is lost; what had arrived by then can still be read."""
        self.server_id = b""
        """The ID of the run of the server, once it has been asked for."""

    @property
    def is_quiet(self) -> bool:
        """Whether the connection lasts, and nothing has arrived that nobody has read."""
        return self._loss is None and not self._pieces

    @property
    def received_bytes(self) -> int:
        """How much has been read of all that has arrived."""
        return self._parser.received_bytes

    @property
    def partial_bytes(self) -> int:
        """How much has been read of the reply that is waited for."""
        return self._parser.partial_bytes

    async def send(self, commands: Sequence[Command]) -> None:
        """Send commands in one pipeline, and wait while the server takes no more.

        Raises:
            RedisConnectionError: the connection is lost; some commands may have been executed,
                unless it was lost before.
        """
        if self._loss is not None:
            raise RedisConnectionError("the connection to Redis is lost") from self._loss
        assert self._transport is not None, "a connection is made before it is handed out"
        self._transport.write(b"".join(map(_pack, commands)))
        await self._can_write.wait()
        if self._loss is not None:
            raise RedisConnectionError("the connection to Redis was lost") from self._loss

    async def read(self) -> object:
        """Return the next reply, an error as an ``ErrorReply``; announcements are dropped.

        Raises:
            RedisError: the connection is lost, or of no use any more.
        """
        while True:
            got = await self._next()
            if not isinstance(got, PushNotification):
                return got

    async def read_or_announcement(self) -> object:
        """Return the next reply, an error as an ``ErrorReply``, or the next ``Announcement``.

        Raises:
            RedisError: the connection is lost, or of no use any more.
        """
        while True:
            got = await self._next()
            if not isinstance(got, PushNotification):
                return got
            if got and got[0] == _INVALIDATE:
                return _announcement(got)

    async def read_push(self) -> list[object] | ErrorReply:
        """Return what the server sends next of itself, its kind first; or an error reply.

        Of use on a connection that is subscribed to a channel, on which no command has a reply.

        Raises:
            RedisError: the connection is lost, or of no use any more.
        """
        got = await self._next()
        if isinstance(got, ErrorReply):
            return got
        if not isinstance(got, PushNotification) or not got:
            raise RedisConnectionError("expected a message of a channel, got a reply")
        return cast("list[object]", got)

    def close(self) -> None:
        """End the connection now; what has not been sent yet never will be."""
        self._lose(RedisConnectionError("the connection to Redis is closed"))
        if self._transport is not None:
            self._transport.abort()

    async def _next(self) -> object:
        while (got := self._parser.take()) is NOT_WHOLE:
            while not self._pieces:
                if self._loss is not None:
                    raise self._loss
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
            self._parser.feed(self._next_piece())
        return got

    def _next_piece(self) -> bytes:
        piece = self._pieces.popleft()
        if len(piece) > _PIECE_BYTES:
            self._pieces.appendleft(piece[_PIECE_BYTES:])
            piece = piece[:_PIECE_BYTES]
        was_full = self._held_bytes > _HELD_BYTES
        self._held_bytes -= len(piece)
        if was_full and self._held_bytes <= _HELD_BYTES:
            assert self._transport is not None, "the pieces have arrived through it"
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return piece

    def _lose(self, loss: RedisConnectionError) -> None:
        if self._loss is None:
            self._loss = loss
            self._can_write.set()
            self._wake()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to write to."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hold what has arrived until it is read."""
        was_full = self._held_bytes > _HELD_BYTES
        self._pieces.append(data)
        self._held_bytes += len(data)
        if not was_full and self._held_bytes > _HELD_BYTES:
            assert self._transport is not None, "the data has arrived through it"
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note that the server has ended the connection; the transport closes itself."""
        self._lose(RedisConnectionError("Connection closed by server."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is lost."""
        self._lose(RedisConnectionError(f"the connection to Redis is lost: {exc or 'closed'}"))

    def pause_writing(self) -> None:
        """Note that the server takes no more for now."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """Note that the server takes more again."""
        self._can_write.set()


def _announcement(push: PushNotification) -> Announcement:
    """Return what a push says has changed; all, if that can't be read out of it."""
    keys = push[1] if len(push) == 2 else None
    is_list = isinstance(keys, list) and all(isinstance(key, bytes) for key in keys)
    return Announcement(cast("list[bytes]", keys) if is_list else None)
