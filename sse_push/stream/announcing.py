"""Connections on which a process hears of changes: a tracked one, or a subscribed one beside it.

Knows which of the two a server allows, and that nothing may be read before both are ready. Does not
know what follows from a change (``follow``), nor the form of a message (``bell``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Never

from sse_push.stream.address import Address
from sse_push.stream.bell import TRIAL, BellChoice, BellKind, Hearing
from sse_push.stream.connection import Connection
from sse_push.stream.contract import publish_command, subscribe_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import (
    CONNECT_LIMIT_S,
    REPLY_LIMIT_BYTES,
    TrackingRefused,
    Unsuited,
    open_connection,
)
from sse_push.stream.replies import ErrorReply

logger = logging.getLogger(__name__)

_AT_ONCE = 256
"""After so many messages other tasks have a turn; a full buffer is read without suspending."""

OnChange = Callable[[tuple[str, ...] | None], None]
"""Takes the names in a message; None: any stream may have changed."""


class Opened(NamedTuple):
    """The connection for reads, and the subscribed one, if Redis does not announce by itself."""

    reading: Connection
    subscribed: Connection | None

    def close(self) -> None:
        """End both."""
        self.reading.close()
        if self.subscribed is not None:
            self.subscribed.close()


class Announcing:
    """Make these connections, and hand on the messages of the channel.

    A process falls back to messages only if Redis answers CLIENT TRACKING with an error, never
    because an announcement did not arrive: that is for the probe to judge. Each new connection
    tries CLIENT TRACKING again.
    """

    def __init__(
        self, address: Address, channel: str, choice: BellChoice, *, reply_limit_bytes: int
    ) -> None:
        self.address = address
        self._channel = channel
        self._choice = choice
        self.reply_limit_bytes = reply_limit_bytes
        self.kind: BellKind = "pubsub" if choice == "pubsub" else "tracking"
        """By which the last connection hears of changes."""

    async def open(self) -> Opened:
        """Connect; from here on each change after a read is heard.

        Raises:
            Unsuited: the server refuses, or can't serve us.
            RedisError, OSError: a connection can't be made in time.
        """
        if self._choice == "pubsub":
            return await self._open_both("bell = pubsub")
        try:
            reading = await self._open_reading(tracks=True)
        except TrackingRefused as exc:
            if self._choice == "tracking":
                raise
            opened = await self._open_both(str(exc))
            if self.kind != "pubsub":
                logger.warning("redis refuses tracking, changes are heard by PUBLISH cause=%s", exc)
            self.kind = "pubsub"
            return opened
        if self.kind != "tracking":
            logger.info("redis allows tracking again")
        self.kind = "tracking"
        return Opened(reading, None)

    async def hear(self, subscribed: Connection | None, on_change: OnChange) -> Never:
        """Hand on what each message says, for ever; without a subscription there is none.

        Raises:
            RedisError: the subscription has ended; messages may be lost.
        """
        if subscribed is None:
            await asyncio.Event().wait()  # until it is canceled
        assert subscribed is not None, "the wait above has no end"
        hearing = Hearing()
        while True:
            for _ in range(_AT_ONCE):
                pushed = await _next_push(subscribed)
                if pushed[0] != b"message" or not isinstance(pushed[-1], bytes):
                    raise RedisConnectionError(f"expected a message, got {pushed[0]!r}")
                on_change(hearing.heard(pushed[-1]))
            await asyncio.sleep(0)

    async def _open_reading(self, *, tracks: bool) -> Connection:
        return await open_connection(self.address, "tail", self.reply_limit_bytes, tracks=tracks)

    async def _open_both(self, why: str) -> Opened:
        """Connect, and subscribe before anything is read."""
        reading = await self._open_reading(tracks=False)
        try:
            subscribed = await self._subscribe(reading.server_id, why)
            try:
                await self._try_to_publish(reading, why)
            except BaseException:
                subscribed.close()
                raise
        except BaseException:
            reading.close()
            raise
        return Opened(reading, subscribed)

    async def _subscribe(self, server_id: bytes, why: str) -> Connection:
        connection = await open_connection(self.address, "bell", REPLY_LIMIT_BYTES, tracks=False)
        try:
            _require_same(connection.server_id, server_id)
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await connection.send([subscribe_command(self._channel)])
                await _next_push(connection, f"{why}; SUBSCRIBE: ")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _try_to_publish(self, reading: Connection, why: str) -> None:
        # Not on the subscribed connection: Valkey 9.1.2 tears the messages of a client that
        # publishes to a channel of its own.
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await reading.send([publish_command(self._channel, TRIAL)])
            reply = await reading.read()
        if isinstance(reply, ErrorReply):
            raise Unsuited(f"{why}; PUBLISH: {reply}")


def _require_same(server_id: bytes, other_id: bytes) -> None:
    if server_id != other_id:
        raise Unsuited("expected one server behind the address of Redis, got two")


async def _next_push(connection: Connection, context: str = "") -> list[object]:
    got = await connection.read_push()
    if isinstance(got, ErrorReply):
        raise Unsuited(f"{context}{got}")
    return got
