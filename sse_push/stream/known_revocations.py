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

from sse_push.stream.contract import Command, parse_revocations, read_revocations_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.pipeline import OnReply, Request
from sse_push.stream.reading import Reading
from sse_push.stream.replies import is_elsewhere, is_refusal
from sse_push.stream.revocations import Knowledge, RevocationTail

logger = logging.getLogger(__name__)


class KnownRevocations:
    """Read the stream of revocations to its end, and again whenever it may have changed.

    ``tail`` decides on the reads, and passes the revocations on.
    """

    def __init__(self, tail: RevocationTail, reading: Reading, key: str) -> None:
        self._tail = tail
        self._refusals, self._aside, self._moving, self._wake = reading
        self.is_here = self._moving is None
        """Whether this server has the stream; in a cluster one primary does, and is told so."""
        self._stays = 0
        """How often it has come and gone: a reply that is for a stay before is ignored."""
        self.key = key.encode()
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
        if self.is_here:
            self._tail.connected()

    def arrive(self) -> None:
        """Read the stream from now on: this server has it."""
        self.is_here = True
        self._stays += 1
        self._tail.connected()
        self._wake()

    def leave(self) -> None:
        """Read the stream no longer: another server has it."""
        self.is_here = False
        self._stays += 1
        self._complete.clear()

    def lost(self) -> None:
        """Note that the connection is gone: a revocation of now would not be announced."""
        self._complete.clear()

    def mark(self) -> bool:
        """Have the stream read: it may have changed; False if it is not here."""
        if self.is_here:
            self._tail.mark()
        return self.is_here

    def next_request(self) -> Request | None:
        """Return the read that is due, if one is."""
        read = self._tail.next_read() if self.is_here else None
        if read is None:
            return None
        command = read_revocations_command(self.key.decode(), read)
        request = (command, self._on_first_reply(command))
        is_apart = None in self._aside.standings.records
        return self._aside.request(None, *request) if is_apart else request

    def _on_first_reply(self, command: Command) -> OnReply:
        stay = self._stays

        def on_reply(reply: object) -> None:
            if isinstance(reply, RedisConnectionError):
                # The revocations are read again on the next connection.
                self._aside.lost(None, reply)
                return
            moving = self._moving
            if moving is None or not moving.takes(None, reply, command, on_answer):
                on_answer(reply)

        def on_answer(reply: object) -> None:
            if stay == self._stays:
                self._on_reply(reply)

        return on_reply

    def _on_reply(self, reply: object) -> None:
        entries = parse_revocations(reply)
        if self._moving is not None and is_elsewhere(reply):
            # Nobody's fault; the sweep reads again until their new owner is known.
            self._tail.failed()
        elif is_refusal(reply):
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
