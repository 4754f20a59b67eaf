"""The connections over which one process adds entries: one at hand, and those that wait.

Knows when a connection may be used again. Does not know commands, nor what a connection waits for
(``replicas``).
"""

from __future__ import annotations

from sse_push.stream.address import Address
from sse_push.stream.connection import Connection
from sse_push.stream.histories import history_of
from sse_push.stream.opening import open_connection


class Pool:
    """Have one connection at hand, and take back those that were lent.

    While nothing is lent there is one connection, or none. It is replaced once it is lost, or
    outdated; so is one that was lent meanwhile, when it is given back.
    """

    def __init__(self, address: Address, key_prefix: str) -> None:
        self.address = address
        self._key_prefix = key_prefix
        self.at_hand: Connection | None = None
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        """Those that may be used again once they are given back."""
        self._is_outdated = False
        """Whether all connections are to be replaced before the next record."""
        self.server_id = b""
        """The ID of the run of the server that we were last connected to."""
        self.history = ""
        """The name of that server's history."""
        self._used: set[bytes] = set()
        """The IDs of the servers that entries were sent to since ``take_used``."""

    async def connect(self) -> Connection:
        """Return the connection at hand; without one that is well, another one.

        Raises:
            RedisError, OSError: none can be made; nothing was sent, so no record is published.
        """
        if self._is_outdated:
            self.disconnect()
        self._is_outdated = False
        if self.at_hand is not None and not self.at_hand.is_quiet:
            self._drop()
        while self.at_hand is None and self._idle:
            self.at_hand = self._idle.pop()
            if not self.at_hand.is_quiet:
                self._drop()
        if self.at_hand is None:
            self.at_hand = await open_connection(self.address, "append", tracks=False)
        if self.at_hand.server_id != self.server_id:
            self.server_id = self.at_hand.server_id
            self.history = history_of(self.server_id, self._key_prefix)
        return self.at_hand

    def disconnect(self) -> None:
        """Close all connections; those that are lent, when they are given back."""
        self._drop()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._lent.clear()

    def renew(self) -> None:
        """Make new connections before the next record."""
        self._is_outdated = True

    def lend(self) -> Connection:
        """Return the connection at hand, which has another use until it is given back."""
        assert self.at_hand is not None, "records went out over it"
        connection, self.at_hand = self.at_hand, None
        self._lent.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take a connection back; it is used again if nothing more is expected on it."""
        is_current = connection in self._lent
        self._lent.discard(connection)
        if is_current and connection.is_quiet:
            self._idle.append(connection)
        else:
            connection.close()

    def note_use(self) -> None:
        """Note that an entry was sent to the server at hand."""
        self._used.add(self.server_id)

    def take_used(self) -> set[bytes]:
        """Return the IDs of the servers that entries were sent to since the last call."""
        used, self._used = self._used, set()
        return used

    def _drop(self) -> None:
        if self.at_hand is not None:
            self.at_hand.close()
            self.at_hand = None
