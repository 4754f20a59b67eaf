"""Whether there is room for one more event stream: in all, of its merchant, from its address.

Counts. Does not know what a stream is, how an address was found (``proxies``), nor what whoever
finds no room is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sse_push.errors import EndReason, NotNow

logger = logging.getLogger(__name__)

_WARNING_INTERVAL_S = 60.0


class Room:
    """The places of one process; a limit of 0 for a merchant or an address is none.

    Nothing grows: a merchant or an address without a place is forgotten, and what has no limit is
    not counted.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_connections_per_merchant: int,
        max_connections_per_address: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = max_connections
        self._limit_of_merchant = max_connections_per_merchant
        self._limit_of_address = max_connections_per_address
        self._clock = clock
        self._taken = 0
        self._of_merchant: dict[str, int] = {}
        self._of_address: dict[str, int] = {}
        self._warn_after: dict[EndReason, float] = {}

    def __len__(self) -> int:
        """Return the number of places that are taken."""
        return self._taken

    def place(self) -> Place:
        """Return a place that is not taken yet, to be left at the end of ``with``."""
        return Place(self)

    def _take(self, merchant_id: str, address: str | None) -> None:
        reason = self._limit_reached(merchant_id, address)
        if reason is not None:
            self._warn(reason)
            raise NotNow(reason)
        self._taken += 1
        if self._limit_of_merchant:
            self._of_merchant[merchant_id] = self._of_merchant.get(merchant_id, 0) + 1
        if self._limit_of_address and address is not None:
            self._of_address[address] = self._of_address.get(address, 0) + 1

    def _limit_reached(self, merchant_id: str, address: str | None) -> EndReason | None:
        # What the client can do something about comes first.
        if address is not None and 0 < self._limit_of_address <= self._of_address.get(address, 0):
            return EndReason.TOO_MANY_CONNECTIONS
        if 0 < self._limit_of_merchant <= self._of_merchant.get(merchant_id, 0):
            return EndReason.MERCHANT_FULL
        return EndReason.FULL if self._taken >= self._limit else None

    def _leave(self, merchant_id: str, address: str | None) -> None:
        self._taken -= 1
        if self._limit_of_merchant:
            _count_down(self._of_merchant, merchant_id)
        if self._limit_of_address and address is not None:
            _count_down(self._of_address, address)

    def _warn(self, reason: EndReason) -> None:
        now = self._clock()
        if now >= self._warn_after.get(reason, now):
            self._warn_after[reason] = now + _WARNING_INTERVAL_S
            logger.warning(
                "no room for a connection reason=%s connections=%d", reason.value, self._taken
            )


class Place:
    """One stream's place: left exactly once, however the stream ends, and if it never began."""

    __slots__ = ("_address", "_merchant_id", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._merchant_id: str | None = None
        self._address: str | None = None

    def take(self, merchant_id: str, address: str | None) -> None:
        """Take the place; ``address``: None if the client's address is not counted.

        Raises:
            NotNow: a limit is reached.
        """
        assert self._merchant_id is None, "taken once"
        self._room._take(merchant_id, address)  # noqa: SLF001 (the two are one)
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
            self._room._leave(self._merchant_id, self._address)  # noqa: SLF001
            self._merchant_id = None


def _count_down(counts: dict[str, int], key: str) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
