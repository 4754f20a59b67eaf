"""Connections that wait for their clients: for a request, or to take the bytes of an answer.

Knows since when each of them waits, and how many bytes wait with it. Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple, Protocol

from sse_push.runtime.log_pace import LogPace
from sse_push.runtime.timer_wheel import Clock, Timer

logger = logging.getLogger(__name__)

OTHER_CONNECTIONS = 192
"""Connections beside ``max_connections`` event streams: of backends, of a proxy that keeps some
open, of clients that are asked to come back later. Only when all are taken a resting one is cut."""

_LOOKS = 4
"""How often, within the time of a client that takes no bytes, its connection is looked at."""


class Connection(Protocol):
    """The part of a protocol that is used here."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the connection."""


class _Unsent(NamedTuple):
    """How many bytes have waited since some time, to which none was added."""

    size_bytes: int
    since: float


class Waiting:
    """The connections that wait for their clients, those first that have waited longest.

    A connection waits from its start to the head of its first request, between two requests, and
    while its client takes no bytes. An event stream does not: the hub knows its client.

    With more than ``limit`` connections in all, a new one takes the place of the one that has
    waited longest. A connection whose client takes no bytes for ``send_timeout_s``, or a quarter
    more, is cut, also if it is about to close: it could not close before its client took them.
    """

    def __init__(self, *, limit: int, send_timeout_s: float, clock: Clock) -> None:
        self._limit = limit
        self._send_timeout_s = send_timeout_s
        self._clock = clock
        self._timer: Timer | None = None
        self._order: dict[Connection, None] = {}
        self._unsent: dict[Connection, _Unsent] = {}
        self._pace = LogPace(clock.time)

    def __len__(self) -> int:
        """Return how many connections wait."""
        return len(self._order)

    def add(self, connection: Connection, count: int) -> None:
        """Add a new connection, the last of ``count`` in all; beyond the limit, cut another one.

        If no other one waits, all have event streams or get an answer now, and none is cut.
        """
        if count > self._limit:
            self._cut_longest(count)
        self.begin(connection)

    def begin(self, connection: Connection) -> None:
        """Let a connection wait, from now on or as before; maybe an answer was written to it."""
        self._order[connection] = None
        self._unsent.pop(connection, None)
        if self._timer is None:
            self._timer = self._clock.call_later(self._send_timeout_s / _LOOKS, self._look)

    def end(self, connection: Connection) -> None:
        """Let a connection wait no longer; no effect on one that does not wait."""
        self._order.pop(connection, None)

    def _cut_longest(self, count: int) -> None:
        longest = next(iter(self._order), None)
        if longest is None:
            return
        self.end(longest)
        longest.transport.abort()
        if cut := self._pace.count("cut"):
            logger.warning("resting connections cut count=%d connections=%d", cut, count)

    def _look(self) -> None:
        """Cut the clients that take no bytes.

        An answer that is added to what waits begins the time anew: else as many bytes as were taken
        could be added meanwhile. A client that asks on, and does not read, is stopped by the flow
        control of its connection after some answers.
        """
        now = self._clock.time()
        unsent = {}
        for connection in list(self._order):
            size_bytes = connection.transport.get_write_buffer_size()
            if size_bytes:
                found = self._unsent.get(connection)
                if found is None or found.size_bytes != size_bytes:
                    found = _Unsent(size_bytes, now)
                unsent[connection] = found
                if now - found.since >= self._send_timeout_s:
                    logger.debug("client takes no bytes of an answer unsent=%d", size_bytes)
                    connection.transport.abort()
        self._unsent = unsent
        self._timer = None
        if self._order:
            self._timer = self._clock.call_later(self._send_timeout_s / _LOOKS, self._look)
