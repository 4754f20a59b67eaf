"""The register of one process: which connection listens to which merchants.

Knows which merchant has a connection, and reports that to the source of changes. Does not know when
a connection begins or ends (``hub``), nor what is pending for it.
"""

from __future__ import annotations

from typing import Generic

from sse_push.hub.state import FrameT, Merchant, Source, Subscription


class Register(Generic[FrameT]):
    """The connections of this process, and the merchants that they listen to.

    Set ``source`` before the first connection.
    """

    def __init__(self) -> None:
        self.source: Source | None = None
        self._merchants: dict[str, Merchant[FrameT]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return the number of connections; one that listens to several merchants counts once."""
        return self._count

    @property
    def merchant_count(self) -> int:
        """The number of merchants with a connection."""
        return len(self._merchants)

    def _merchant(self, merchant_id: str) -> Merchant[FrameT]:
        merchant = self._merchants.get(merchant_id)
        if merchant is None:
            merchant = self._merchants[merchant_id] = Merchant(merchant_id)
        return merchant

    def _subscriptions(self) -> list[Subscription[FrameT]]:
        """Return all subscriptions: of a connection, one per merchant."""
        return [one for each in self._merchants.values() for one in each.subscriptions]

    def _add(self, connection: tuple[Subscription[FrameT], ...]) -> None:
        self._count += 1
        for subscription in connection:
            merchant = subscription.merchant
            merchant.subscriptions[subscription] = None
            if len(merchant.subscriptions) == 1:
                assert self.source is not None, "expected a source before the first connection"
                self.source.watch(merchant.id)

    def _remove(self, connection: tuple[Subscription[FrameT], ...]) -> None:
        self._count -= 1
        for subscription in connection:
            subscription.leave()
            merchant = subscription.merchant
            del merchant.subscriptions[subscription]
            if not merchant.subscriptions:
                # Without a connection there is nobody to write to.
                if merchant.timer is not None:
                    merchant.timer.cancel()
                del self._merchants[merchant.id]
                assert self.source is not None, "expected the source that watches the merchant"
                self.source.unwatch(merchant.id)
