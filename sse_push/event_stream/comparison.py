"""What one client is owed: its last event ID is compared as soon as its merchant's stream is read.

Knows the hub and the gaps. Does not know what becomes of that: an event stream, or an answer.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sse_push.event_stream.gaps import Gap, Gaps
from sse_push.event_stream.resume import owed
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Refresh, State, Subscription
from sse_push.notification import EntryId, EventId


class Owed(NamedTuple):
    """The result: what the client is owed up to the newest ID that was read; None: no entry."""

    newest: EventId | None
    refreshes: tuple[Refresh, ...]


class Comparison:
    """Compares the last event ID of a client that has its place in the hub.

    The comparison settles all changes up to now. Later ones are pending for the subscription.
    """

    __slots__ = ("_gaps", "_hub", "_last_event_id", "_subscription")

    def __init__(
        self,
        hub: Hub[Frame],
        gaps: Gaps,
        subscription: Subscription[Frame],
        last_event_id: str | None,
    ) -> None:
        self._hub = hub
        self._gaps = gaps
        self._subscription = subscription
        self._last_event_id = last_event_id

    def at_once(self) -> Owed | Gap | None:
        """Compare without waiting.

        Returns the gap that ``result`` must fill if the client's ID is older than the newest, and
        None if the merchant's stream has not been read yet.
        """
        return self._compare() if self._subscription.merchant.is_armed else None

    async def result(self, begun: Gap | None) -> Owed | None:
        """Compare as soon as Redis has answered, from what ``at_once`` has returned.

        Returns None if the subscription has ended before the merchant's stream was read.
        """
        subscription = self._subscription
        found: Owed | Gap | None = begun
        if found is None:
            armed = asyncio.Event()
            self._hub.when_armed(subscription, armed.set)
            await armed.wait()
            if subscription.state is State.ENDED:
                return None
            found = self._compare()
        if isinstance(found, Gap):
            # Changes from now on are pending until the answer: they follow what was missed.
            merchant, version = subscription.merchant, subscription.version
            refreshes = await self._gaps.refreshes(merchant, merchant.id, version, found)
            # Without entries in the gap that say something, the client has missed nothing.
            found = Owed(found.end, refreshes)
        return found

    def _compare(self) -> Owed | Gap:
        newest = self._hub.settle(self._subscription)
        result = owed(self._last_event_id, newest, self._subscription.version)
        if isinstance(result, EntryId):
            assert newest is not None, "an ID can only be older than another ID"
            return Gap(result, newest)
        return Owed(newest, result)
