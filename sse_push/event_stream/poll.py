"""The answer to a poll: what its client is owed since its position, told at once.

Knows the hub, and that a poll has a place there for as long as its answer takes. Does not know who
may poll, nor the headers of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sse_push.access.grant import Grant
from sse_push.access.keys import name_merchant
from sse_push.errors import EndReason, NotNow, RefusalReason, Unauthorized
from sse_push.event_stream.comparison import Comparison, Owed
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.wire import Frame
from sse_push.hub import Subscription


class _NoSink:
    """The way to a client that is answered as a whole: what the hub offers meanwhile is dropped.

    Refreshes are not offered to it, since a poll never goes live; a client of a poll needs neither
    heartbeats nor the announcement of its token's end.
    """

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, _reason: EndReason) -> None:
        """Drop the reason: the subscription has it."""


_NO_SINK = _NoSink()


async def poll(
    streams: EventStreams, grant: Grant, last_event_id: str | None, *, is_named: bool
) -> Mapping[str, object]:
    """Return the JSON object of the answer, within ``arm_timeout_s``.

    A change after the comparison is left to the next poll: the answer's ID is older than that
    change. ``is_named``: the ID of the answer names its merchant.

    Raises:
        NotNow: Redis has not answered, or the service stops; the client polls again later.
        Unauthorized: the grant was revoked, or has expired meanwhile.
    """
    hub = streams.hub
    subscription = hub.subscribe(grant, _NO_SINK)
    subscription.end_reason = EndReason.POLLED
    comparison = Comparison(hub, streams.gaps, subscription, last_event_id)
    try:
        found = comparison.at_once()
        if not isinstance(found, Owed):
            async with asyncio.timeout(streams.arm_timeout_s):
                found = await comparison.result(found)
    except TimeoutError:
        raise NotNow(EndReason.NOT_READY, name_merchant(grant.merchant_id)) from None
    finally:
        hub.unsubscribe(subscription)
    _require_unended(streams, subscription)
    assert found is not None, "without a result, the place has ended"
    if not found.refreshes:
        return {"merchants": {}}
    return {"merchants": {grant.merchant_id: _told(grant.merchant_id, found, is_named=is_named)}}


def _told(merchant_id: str, owed: Owed, *, is_named: bool) -> Mapping[str, object]:
    """Return one object for all that is owed; its ID is that of all that was compared.

    All refreshes that a comparison finds have one reason. The answer arrives as a whole or not at
    all, so that no client holds its ID without its topics.
    """
    name = f"{merchant_id}@" if is_named else ""
    topics = [refresh.topic for refresh in owed.refreshes]
    return {
        "id": None if owed.newest is None else f"{name}{owed.newest}",
        "topics": None if None in topics else topics,
        "reason": owed.refreshes[0].reason,
    }


def _require_unended(streams: EventStreams, subscription: Subscription[Frame]) -> None:
    """Refuse a client whose place was taken away while Redis was asked.

    Raises:
        NotNow: the service stops; or the merchant's connections were ended, and may return.
        Unauthorized: the client's grant has come to its end.
    """
    reason = subscription.end_reason
    if reason is EndReason.POLLED:
        return
    streams.hub.require_unrevoked(subscription.grant)
    if reason is EndReason.TOKEN_EXPIRED:
        raise Unauthorized.invalid_token(
            "expected a token that is valid until the answer, got one that expired before",
            RefusalReason.TOKEN_EXPIRED,
        )
    is_stopping = reason is EndReason.SERVER_STOPPING
    raise NotNow(EndReason.SERVER_STOPPING if is_stopping else EndReason.NOT_READY)
