"""Error replies of Redis, sorted once: whose error it is, and what follows.

Knows the codes with which an error reply begins. Does not know commands, connections or streams.

================  ================================  ==============================================
whose             on a read                         on an append
================  ================================  ==============================================
``STREAM``        the stream is unreadable, like    ``not_published``
                  one without entries; a resync
                  if it held any
``SERVER``        the worker is not ready; one      ``not_published``
                  warning; the stream keeps its
                  state, and is read again with
                  growing pauses (``Refusals``)
``ELSEWHERE``     read again where the cluster      ``not_published``; sent once more to the node
                  says (``moving``); without a      that the reply names, if the cluster is known
                  cluster as the next one
``WRONG_SERVER``  the connection is dropped, and    ``not_published``; the connection is dropped,
                  the stream is read again on the   and the next command goes over a new one,
                  next one; one warning             which may lead to another server
================  ================================  ==============================================

An error reply always means that its command was not executed. A code that is not in ``WHOSE`` is
the server's: nothing is concluded from it about a stream.

https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeGuard

from sse_push.stream.failures import RedisError

logger = logging.getLogger(__name__)

_PAUSE_BASE_S = 0.1
_PAUSE_CAP_S = 2.0


class Whose(Enum):
    """Whose error a reply is."""

    STREAM = "the stream's"
    """The key of this stream holds something else; every other stream is well."""
    SERVER = "the server's"
    """The server refuses the command for now, or to this user, whichever the stream."""
    ELSEWHERE = "another node's"
    """Another node of a cluster has the stream, or none has it now; all others are well."""
    WRONG_SERVER = "the wrong server's"
    """Another server is the right one, or this one is not what it was."""


WHOSE: Mapping[str, Whose] = {
    "WRONGTYPE": Whose.STREAM,
    "BUSY": Whose.SERVER,
    "MISCONF": Whose.SERVER,
    "NOAUTH": Whose.SERVER,
    "NOPERM": Whose.SERVER,
    "NOREPLICAS": Whose.SERVER,
    "OOM": Whose.SERVER,
    "ASK": Whose.ELSEWHERE,
    "CLUSTERDOWN": Whose.ELSEWHERE,
    "LOADING": Whose.WRONG_SERVER,
    "MASTERDOWN": Whose.WRONG_SERVER,
    "MOVED": Whose.ELSEWHERE,
    "READONLY": Whose.WRONG_SERVER,
    "TRYAGAIN": Whose.ELSEWHERE,
}
"""Whose error it is, by its code."""


NOT_HERE = frozenset({Whose.ELSEWHERE, Whose.WRONG_SERVER})
"""To a single server both mean the same: connect anew."""


class WrongServer(RedisError):
    """A reply says that another server is the right one: connect anew."""


class ErrorReply(Exception):
    """An error reply, as the server wrote it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

    @property
    def whose(self) -> Whose:
        """Whose error it is."""
        return WHOSE.get(self.code, Whose.SERVER)


def is_refusal(reply: object) -> TypeGuard[ErrorReply]:
    """Tell whether the server refuses a read.

    Raises:
        WrongServer: another server may take it; the stream is read again on the next connection.
    """
    if not isinstance(reply, ErrorReply) or reply.whose is Whose.STREAM:
        return False
    if reply.whose in NOT_HERE:
        raise WrongServer(str(reply))
    return True


def is_elsewhere(reply: object) -> TypeGuard[ErrorReply]:
    """Tell whether a node of a cluster says that it does not have the stream, or nobody has it."""
    return isinstance(reply, ErrorReply) and reply.whose is Whose.ELSEWHERE


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row; random, so that loads spread."""
    cap_s = min(_PAUSE_CAP_S, _PAUSE_BASE_S * 2 ** min(failures, 16))
    return random.uniform(cap_s / 2, cap_s)  # noqa: S311 (spreads load)


class Refusals:
    """The streams whose last read the server refused; what the log says of them.

    One warning at the first refusal, one line when all of them have been read. A stream is known by
    its merchant; that of the revocations by None.
    """

    def __init__(self) -> None:
        self._streams: set[str | None] = set()
        self._began_at = 0.0
        self._began = asyncio.Event()
        """Set while any stream is refused."""

    def __bool__(self) -> bool:
        """Whether any stream is refused."""
        return bool(self._streams)

    def add(self, stream: str | None, cause: Exception) -> None:
        """Note that a read was refused."""
        if not self._streams:
            self._began_at = time.monotonic()
            self._began.set()
            logger.warning("redis refuses reads cause=%s", cause)
        self._streams.add(stream)

    def discard(self, stream: str | None) -> None:
        """Note that a stream has been read, or is of no interest any more."""
        if stream in self._streams:
            self._streams.remove(stream)
            if not self._streams:
                self._began.clear()
                after_s = time.monotonic() - self._began_at
                logger.info("redis answers reads again after_s=%.1f", after_s)

    async def retry(self, send_again: Callable[[], None]) -> None:
        """Have the reads sent again, for ever, with pauses that grow while all are refused."""
        while True:
            await self._began.wait()
            failures = 0
            while self._streams:
                await asyncio.sleep(pause_s(failures))
                failures += 1
                send_again()
