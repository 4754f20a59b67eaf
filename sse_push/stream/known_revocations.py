"""Which revocations are known: the stream of revocations, read on the tracked connection.

Knows the replies to its reads. Does not know which read comes next, nor what an answer means:
``revocations`` decides that; nor when the connection is made (``follow``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from sse_push.stream.aside import Aside
from sse_push.stream.contract import parse_revocations, read_revocations_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.listener import Listener
from sse_push.stream.pipeline import Request
from sse_push.stream.replies import Refusals, is_refusal
from sse_push.stream.revocations import Knowledge, RevocationTail

logger = logging.getLogger(__name__)


class KnownRevocations:
    """Read the stream of revocations to its end, and again whenever it may have changed.

    The revocations go to the ``listener``. ``aside`` makes a read harmless, if need be. ``wake()``
    is called when another may be due.
    """

    def __init__(
        self,
        listener: Listener,
        refusals: Refusals,
        aside: Aside,
        key: str,
        wake: Callable[[], None],
    ) -> None:
        self._tail = RevocationTail(listener.revoke, listener.revoke_all)
        self._refusals = refusals
        self._aside = aside
        self.key = key.encode()
        self._wake = wake
        self._read_at = -math.inf
        self._complete = asyncio.Event()
        """Set while the stream has been read to its end on this connection."""

    @property
    def is_complete(self) -> bool:
        """Whether the stream has been read to its end on this connection."""
        return self._complete.is_set()

    @property
    def read_age_s(self) -> float:
        """Seconds since the stream was last read; infinite if it never was."""
        return time.monotonic() - self._read_at

    async def wait_until_complete(self, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` for the stream to be read to its end."""
        if not self._complete.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._complete.wait()

    def connected(self) -> None:
        """Begin again on a new connection, on which nothing has been read."""
        self._tail.connected()

    def lost(self) -> None:
        """Note that the connection is gone: a revocation of now would not be announced."""
        self._complete.clear()

    def mark(self) -> None:
        """Have the stream read: it may have changed."""
        self._tail.mark()

    def next_request(self) -> Request | None:
        """Return the read that is due, if one is."""
        read = self._tail.next_read()
        if read is None:
            return None
        request = (read_revocations_command(self.key.decode(), read), self._on_reply)
        is_apart = None in self._aside.standings.records
        return self._aside.request(None, *request) if is_apart else request

    def _on_reply(self, reply: object) -> None:
        if isinstance(reply, RedisConnectionError):
            # The revocations are read again on the next connection.
            self._aside.lost(None, reply)
            return
        entries = parse_revocations(reply)
        if is_refusal(reply):
            # The server refuses, which says nothing of the stream.
            self._refusals.add(None, reply)
            self._tail.failed()
        elif entries is None:
            # The key holds no stream, or one whose entries are too large.
            self._refusals.discard(None)
            if self._tail.knowledge is not Knowledge.UNREADABLE:
                logger.warning("revocations can't be read cause=%s", reply)
            self._tail.failed()
        else:
            self._refusals.discard(None)
            self._tail.answered(entries)
            self._read_at = time.monotonic()
        if self._tail.knowledge is Knowledge.COMPLETE:
            self._complete.set()
        else:
            self._complete.clear()
        self._wake()
