"""How many connections one process serves: in all, per merchant, and per client address.

Knows counts, and the limit of each. Does not know what a connection is, how an address was found
(``proxies``), nor how a client without a place is answered.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sse_push.access.keys import name_merchant
from sse_push.errors import EndReason, NotNow


class Room:
    """The places of one process, and who has them; 0 per merchant or per address: no limit.

    Memory is bounded by the open connections: a merchant or an address without a place is
    forgotten, and without its limit never counted.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_connections_per_merchant: int,
        max_connections_per_address: int,
    ) -> None:
        self._limit = max_connections
        self._merchant_limit = max_connections_per_merchant
        self._address_limit = max_connections_per_address
        self._reserved = 0
        self._by_merchant: dict[str, int] = {}
        self._by_address: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of reserved places."""
        return self._reserved

    def place(self) -> Place:
        """Return a place to reserve later; its ``with`` block releases it."""
        return Place(self)

    def _reserve(self, merchant_id: str, address: str | None) -> None:
        reason = self._limit_reached(merchant_id, address)
        if reason is not None:
            is_of_merchant = reason is EndReason.MERCHANT_FULL
            raise NotNow(reason, name_merchant(merchant_id) if is_of_merchant else None)
        self._reserved += 1
        if self._merchant_limit:
            self._by_merchant[merchant_id] = self._by_merchant.get(merchant_id, 0) + 1
        if self._address_limit and address is not None:
            self._by_address[address] = self._by_address.get(address, 0) + 1

    def _limit_reached(self, merchant_id: str, address: str | None) -> EndReason | None:
        # First the limit that the client itself can do most about.
        if address is not None and 0 < self._address_limit <= self._by_address.get(address, 0):
            return EndReason.TOO_MANY_CONNECTIONS
        if 0 < self._merchant_limit <= self._by_merchant.get(merchant_id, 0):
            return EndReason.MERCHANT_FULL
        return EndReason.FULL if self._reserved >= self._limit else None

    def _release(self, merchant_id: str, address: str | None) -> None:
        self._reserved -= 1
        if self._merchant_limit:
            _count_down(self._by_merchant, merchant_id)
        if self._address_limit and address is not None:
            _count_down(self._by_address, address)


class Place:
    """One connection's place in the room, as a context manager.

    The end of the ``with`` block releases the place exactly once, however the connection ended,
    and does nothing if the place was never reserved.
    """

    __slots__ = ("_address", "_merchant_id", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._merchant_id: str | None = None
        self._address: str | None = None

    def reserve(self, merchant_id: str, address: str | None) -> None:
        """Reserve the place; without an ``address`` the connection counts for no address.

        Raises:
            NotNow: a limit is reached.
        """
        assert self._merchant_id is None, "reserved once"
        self._room._reserve(merchant_id, address)  # noqa: SLF001 (a room and its places are one unit)
        self._merchant_id, self._address = merchant_id, address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._merchant_id is not None:
            self._room._release(self._merchant_id, self._address)  # noqa: SLF001 (as above)
            self._merchant_id = None


def _count_down(counts: dict[str, int], key: str) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
