"""The answer to a poll: what its client is owed since its position, told at once.

Knows the hub, and that a poll has a place there for as long as its answer takes. Does not know who
may poll, nor the headers of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sse_push.access.keys import name_merchant
from sse_push.errors import EndReason, NotNow, RefusalReason, Unauthorized
from sse_push.event_stream.comparison import Comparison, Owed
from sse_push.event_stream.listening import Listening, take_places
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


async def poll(streams: EventStreams, listening: Listening) -> Mapping[str, object]:
    """Return the JSON object of the answer, within ``arm_timeout_s``.

    A change after the comparison is left to the next poll: the answer's ID is older than that
    change.

    Raises:
        NotNow: Redis has not answered, or the service stops; the client polls again later.
        Unauthorized: a grant was revoked, or has expired meanwhile.
    """
    hub = streams.hub
    places = take_places(hub, listening, _NO_SINK)
    places[0].end_reason = EndReason.POLLED
    positions = zip(places, listening.last_event_ids, strict=True)
    comparisons = [Comparison(hub, streams.gaps, place, position) for place, position in positions]
    try:
        found = await _compare(comparisons, streams.arm_timeout_s)
    finally:
        hub.unsubscribe(places[0])
    _require_unended(streams, places)
    merchants = {}
    for place, owed in zip(places, found, strict=True):
        if owed is None:
            raise NotNow(EndReason.NOT_READY, name_merchant(place.merchant.id))
        if owed.refreshes:
            merchants[place.merchant.id] = _told(place, owed, is_named=listening.is_named)
    return {"merchants": merchants, "grant": listening.digest}


async def _compare(comparisons: Sequence[Comparison], timeout_s: float) -> list[Owed | None]:
    """Return what each comparison finds within this time; None: Redis has not answered."""
    begun = [comparison.at_once() for comparison in comparisons]
    waiting = {
        at: asyncio.create_task(comparisons[at].result(found), name="poll")
        for at, found in enumerate(begun)
        if not isinstance(found, Owed)
    }
    if waiting:
        try:
            await asyncio.wait(
                waiting.values(), timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION
            )
        finally:
            late = [each for each in waiting.values() if not each.done()]
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)
    return [
        found if isinstance(found, Owed) else _result(waiting[at]) for at, found in enumerate(begun)
    ]


def _result(waiting: asyncio.Task[Owed | None]) -> Owed | None:
    return None if waiting.cancelled() else waiting.result()


def _told(place: Subscription[Frame], owed: Owed, *, is_named: bool) -> Mapping[str, object]:
    """Return one object for all that is owed; its ID is that of all that was compared.

    All refreshes that a comparison finds have one reason. The answer arrives as a whole or not at
    all, so that no client holds its ID without its topics.
    """
    name = f"{place.merchant.id}@" if is_named else ""
    topics = [refresh.topic for refresh in owed.refreshes]
    return {
        "id": None if owed.newest is None else f"{name}{owed.newest}",
        "topics": None if None in topics else topics,
        "reason": owed.refreshes[0].reason,
    }


def _require_unended(streams: EventStreams, places: Sequence[Subscription[Frame]]) -> None:
    """Refuse a client whose places were taken away while Redis was asked.

    Raises:
        NotNow: the service stops; or a merchant's connections were ended, and may return.
        Unauthorized: a grant of the client has come to its end.
    """
    reason = places[0].end_reason
    if reason is EndReason.POLLED:
        return
    for place in places:
        streams.hub.require_unrevoked(place.grant)
    if reason is EndReason.TOKEN_EXPIRED:
        raise Unauthorized.invalid_token(
            "expected a token that is valid until the answer, got one that expired before",
            RefusalReason.TOKEN_EXPIRED,
        )
    is_stopping = reason is EndReason.SERVER_STOPPING
    raise NotNow(EndReason.SERVER_STOPPING if is_stopping else EndReason.NOT_READY)
