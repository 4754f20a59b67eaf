"""What a client listens to, on an event stream or by polling, and its place at each merchant.

Knows whose IDs name their merchant. Does not know what a client is told.
"""

from __future__ import annotations

from typing import NamedTuple

from sse_push.access.grant import Grant
from sse_push.errors import EndReason
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Sink, Subscription


class Listening(NamedTuple):
    """What a client listens to, and where it stands: a last event ID for each grant, in order."""

    grants: tuple[Grant, ...]
    last_event_ids: tuple[str | None, ...]
    is_named: bool = False
    """The IDs that the client gets name their merchant, since its URL does not name just one."""
    digest: str | None = None
    """Stands for the client's rights, in its ``ready``; None: it did not ask."""

    def __str__(self) -> str:
        """Return the merchants, for the log."""
        return ",".join(grant.merchant_id for grant in self.grants)


class _NamingSink:
    """The way to a client whose IDs name their merchant."""

    __slots__ = ("_merchant_id", "_sink")

    def __init__(self, merchant_id: str, sink: Sink[Frame]) -> None:
        self._merchant_id = merchant_id
        self._sink = sink

    def offer(self, frame: Frame) -> bool:
        return self._sink.offer(frame.named(self._merchant_id))

    def end(self, reason: EndReason) -> None:
        self._sink.end(reason)


def take_places(
    hub: Hub[Frame], listening: Listening, sink: Sink[Frame]
) -> tuple[Subscription[Frame], ...]:
    """Give a client its place at each of its merchants; the first place leads.

    Raises:
        Unauthorized: a grant was revoked; no place is given.
    """
    grants = listening.grants
    ways = [_NamingSink(each.merchant_id, sink) if listening.is_named else sink for each in grants]
    if len(grants) == 1:
        return (hub.subscribe(grants[0], ways[0]),)
    return hub.subscribe_all(tuple(zip(grants, ways, strict=True)))
