"""The client library's parser of replies, with a bound on the size of a reply.

Without it a reply is kept in memory, twice, until it is complete, however large it is. Knows bytes
and where a reply begins. Does not know commands, nor what becomes of a connection.
"""

from __future__ import annotations

from asyncio import StreamReader
from typing import cast

from hiredis import Reader
from redis._parsers.hiredis import _AsyncHiredisParser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError


class ReplyTooLarge(RedisError):
    """A reply exceeds the limit; the rest of it was not read, so the connection is of no use."""


class BoundedParser(_AsyncHiredisParser):
    """Parse replies, and read no more than ``limit_bytes`` of one that is not complete.

    Whoever waits for a reply sets ``partial_bytes`` to 0 first. A part of a reply that arrived
    together with the one before, at most ``socket_read_size`` bytes, does not count.
    """

    __slots__ = ("_limit_bytes", "partial_bytes", "received_bytes")

    def __init__(self, socket_read_size: int, *, limit_bytes: int) -> None:
        super().__init__(socket_read_size)
        self._limit_bytes = limit_bytes
        self.partial_bytes = 0
        """How much has arrived of the reply that is waited for."""
        self.received_bytes = 0
        """How much has arrived since the parser was made."""

    async def read_from_socket(self) -> bool:
        """Take the next piece of a reply that is not complete.

        Raises:
            ReplyTooLarge: the reply exceeds the limit.
            RedisError: the connection is lost.
        """
        if self.partial_bytes > self._limit_bytes:
            raise ReplyTooLarge(f"expected a reply of at most {self._limit_bytes} bytes, got more")
        piece = await cast("StreamReader", self._stream).read(self._read_size)
        if not piece:
            raise RedisConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
        self.partial_bytes += len(piece)
        self.received_bytes += len(piece)
        cast("Reader", self._reader).feed(piece)
        return True
