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

    def _reserve(self, merchant_ids: tuple[str, ...], address: str | None) -> None:
        # Nothing is counted before every limit is known to have room. First the limit that the
        # client itself can do most about.
        if address is not None and 0 < self._address_limit <= self._by_address.get(address, 0):
            raise NotNow(EndReason.TOO_MANY_CONNECTIONS)
        if self._merchant_limit:
            for each in merchant_ids:
                if self._by_merchant.get(each, 0) >= self._merchant_limit:
                    raise NotNow(EndReason.MERCHANT_FULL, name_merchant(each))
        if self._reserved >= self._limit:
            raise NotNow(EndReason.FULL)
        self._reserved += 1
        if self._merchant_limit:
            for each in merchant_ids:
                self._by_merchant[each] = self._by_merchant.get(each, 0) + 1
        if self._address_limit and address is not None:
            self._by_address[address] = self._by_address.get(address, 0) + 1

    def _release(self, merchant_ids: tuple[str, ...], address: str | None) -> None:
        self._reserved -= 1
        if self._merchant_limit:
            for each in merchant_ids:
                _count_down(self._by_merchant, each)
        if self._address_limit and address is not None:
            _count_down(self._by_address, address)


class Place:
    """One connection's place in the room, as a context manager.

    The end of the ``with`` block releases the place exactly once, however the connection ended,
    and does nothing if the place was never reserved.
    """

    __slots__ = ("_address", "_merchant_ids", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._merchant_ids: tuple[str, ...] = ()
        """Empty until the place is reserved."""
        self._address: str | None = None

    def reserve(self, merchant_ids: tuple[str, ...], address: str | None) -> None:
        """Reserve the place: one in the process, one of its address, and one at each merchant.

        The merchants are distinct. Without an ``address`` the connection counts for no address.

        Raises:
            NotNow: a limit is reached; no place is reserved anywhere.
        """
        assert merchant_ids, "expected a merchant, got none"
        assert not self._merchant_ids, "reserved once"
        self._room._reserve(merchant_ids, address)  # noqa: SLF001 (a room and its places are one unit)
        self._merchant_ids, self._address = merchant_ids, address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._merchant_ids:
            self._room._release(self._merchant_ids, self._address)  # noqa: SLF001 (as above)
            self._merchant_ids = ()


def _count_down(counts: dict[str, int], key: str) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
