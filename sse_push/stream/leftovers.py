"""Which keys Redis tracks for nobody: those of missing streams that everybody has left.

Redis remembers each key that was read on a tracked connection, until the key changes; the end of
the connection changes nothing about that. An existing stream changes, or expires, some day. A
missing one never does, and anybody who may name a merchant can make Redis remember one. Knows how
many may be left over. Does not know how Redis is made to forget one (``contract``).
"""

from __future__ import annotations

from collections import OrderedDict

LEFTOVERS = 10_000
"""How many keys may be left over per process. Redis takes 130 bytes for each: 1.3 MB."""

_WAITING = 10_000
"""How many more are remembered while Redis is away; then the first ones stay in its memory."""


class Leftovers:
    """Count the missing streams that everybody has left, and name those to be forgotten.

    To be forgotten is no reason to expect no announcement: whoever follows the stream by then hears
    that its key has changed, and reads it, as after any other change.
    """

    def __init__(self, most: int = LEFTOVERS) -> None:
        self._most = most
        self._merchants: OrderedDict[str, None] = OrderedDict()
        """Those who were left first come first."""

    def left(self, merchant_id: str) -> bool:
        """Note that nobody follows a stream any more which was missing, as far as we know.

        True if there are more than may be now: ``take`` some.
        """
        self._merchants[merchant_id] = None
        if len(self._merchants) > self._most + _WAITING:
            self._merchants.popitem(last=False)
        return len(self._merchants) > self._most

    def discard(self, merchant_id: str) -> None:
        """Note that somebody follows the stream again, or that its key was announced."""
        self._merchants.pop(merchant_id, None)

    def clear(self) -> None:
        """Note that Redis remembers nothing: all keys were flushed, or it is another run of it."""
        self._merchants.clear()

    def take(self, most: int) -> list[str]:
        """Return at most ``most`` merchants whose keys Redis is to forget now."""
        count = min(most, max(0, len(self._merchants) - self._most))
        return [self._merchants.popitem(last=False)[0] for _ in range(count)]
