"""Replies of Redis out of bytes, with a bound on the size of a reply.

Without it a reply is kept in memory, twice, until it is complete, however large it is. Knows bytes
and where a reply begins. Does not know commands, sockets, nor what becomes of a connection.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from typing import Final

from hiredis import Reader

from sse_push.stream.failures import RedisError
from sse_push.stream.replies import ErrorReply

NOT_WHOLE: Final = object()
"""What ``take`` returns if the next reply is not complete; a reply may be None or False."""

_ATTRIBUTE = b"|"
"""The first byte of an attribute: what a server says of the reply that follows."""


class Garbled(RedisError):
    """What arrived is no reply, and where the next one begins is unknown."""


class ReplyTooLarge(RedisError):
    """A reply exceeds the limit; the rest of it was not read, so the connection is of no use."""


class Parser:
    """Turn what is fed into replies, and take no more than ``limit_bytes`` of one.

    The part of a reply that was fed together with the end of the one before does not count. An
    attribute before a reply is dropped; hiredis makes a list of it, as of an array, so the bytes
    are cut where one may begin. An attribute within a reply is not told from an element.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._reader = Reader(protocolError=Garbled, replyError=ErrorReply, notEnoughData=NOT_WHOLE)
        self._limit_bytes = limit_bytes
        self._piece = b""
        """What was fed last."""
        self._taken = 0
        """How much of it the reader has."""
        self._is_between = True
        """Whether the reader has whole replies, and nothing of the next one."""
        self._is_attribute = False
        """Whether an attribute comes before the next reply."""
        self.partial_bytes = 0
        """How much was fed since the last whole reply."""
        self.received_bytes = 0
        """How much was fed in all."""

    def feed(self, piece: bytes) -> None:
        """Go on with these bytes; call it only after ``take`` has returned ``NOT_WHOLE``.

        Raises:
            ReplyTooLarge: the reply that is not complete exceeds the limit.
        """
        if self.partial_bytes > self._limit_bytes:
            raise ReplyTooLarge(f"expected a reply of at most {self._limit_bytes} bytes, got more")
        self.partial_bytes += len(piece)
        self.received_bytes += len(piece)
        self._piece, self._taken = piece, 0

    def take(self) -> object:
        """Return the next reply, ``NOT_WHOLE`` if it is not complete; an error as a value.

        Raises:
            Garbled: the bytes are no reply.
        """
        while True:
            try:
                reply = self._reader.gets()
            except TypeError as exc:  # a list as the key of a map
                raise Garbled(f"expected a reply, got a map that is none: {exc}") from exc
            if reply is NOT_WHOLE:
                if self._taken == len(self._piece):
                    return NOT_WHOLE
                self._feed_part()
            else:
                self.partial_bytes = 0
                self._is_between = not self._reader.has_data()
                if not self._is_attribute:
                    return reply
                self._is_attribute = False

    def _feed_part(self) -> None:
        """Give the reader what comes before the next byte that may begin an attribute."""
        piece, begin = self._piece, self._taken
        self._is_attribute |= self._is_between and piece.startswith(_ATTRIBUTE, begin)
        end = piece.find(b"\n" + _ATTRIBUTE, begin) + 1 or len(piece)
        self._reader.feed(piece, begin, end - begin)
        self._taken = end
        self._is_between = False
