"""Functions that forget a rule: each in the place of the real one leaves a browser behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sse_push.event_stream import resume
from sse_push.event_stream.comparison import Owed
from sse_push.event_stream.opening import Opening
from sse_push.event_stream.wire import Frame, Standing
from sse_push.hub import Hub, Refresh, State, Subscription
from sse_push.hub.heartbeats import Heartbeats
from sse_push.hub.refresh import Pending
from sse_push.notification import Entry, EntryId, EventId
from sse_push.stream.reads import telling


def keeps_the_newest_data(self: Refresh, newer: Refresh) -> Refresh:
    topic = self.topic if self.topic == newer.topic else None
    return Refresh(newer.version, newer.id, topic, newer.data, None, newer.reason)


def keeps_the_newest_by(self: Refresh, newer: Refresh) -> Refresh:
    topic = self.topic if self.topic == newer.topic else None
    return Refresh(newer.version, newer.id, topic, None, newer.by, newer.reason)


def in_any_order(pending: Pending) -> list[Refresh]:
    return sorted(pending.values(), key=lambda refresh: str(refresh.topic))


def tells_the_id_before_the_refresh(found: Owed | asyncio.Task[Owed | None]) -> Standing:
    owed = found if isinstance(found, Owed) else found.done() and found.result()
    return owed.newest if owed else None


def gives_a_missing_stream_an_id(
    last_event_id: str | None, newest: EventId | None, version: int
) -> Sequence[Refresh] | EntryId:
    if newest is None and last_event_id:
        return ()  # "0-0 is the newest, and nothing is newer than what it knows"
    return _owed(last_event_id, newest, version)


def takes_what_is_left_for_all(
    start: EntryId, end: EntryId, entries: list[Entry]
) -> tuple[Entry, ...] | None:
    return telling([entry for entry in entries if start < entry.id <= end])


def of_any_merchant(
    _merchant_id: str,
    places: Sequence[Sequence[str]],
    *,
    is_named: bool,  # noqa: ARG001
) -> str | None:
    return places[0][0].rpartition("@")[2] or None


def tells_no_position(self: Opening) -> None:
    for place, _ in self._untold:
        self._streams.hub.admit(place, ())
    self._untold = ()


def blocks_one_place_only(self: Heartbeats[Frame], subscription: Subscription[Frame]) -> None:
    _block(self, subscription)
    for each in subscription.connection:
        if each is not subscription:
            is_joining = each.state is State.JOINING_BLOCKED
            each.become(State.JOINING if is_joining else State.FLOWING)


def drains_the_leader_only(self: Hub[Frame], subscription: Subscription[Frame]) -> None:
    if subscription.state in (State.BLOCKED, State.JOINING_BLOCKED):
        self._heartbeats.unblock(subscription)
    self.offer_pending(subscription)


def always_one(_name: str, _other: str) -> bool:
    return True


def also_without_a_name(name: str, other: str) -> bool:
    return name == other


_owed = resume.owed
_block = Heartbeats.block
