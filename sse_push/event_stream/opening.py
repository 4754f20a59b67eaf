"""How every event stream opens, whichever way it is written: ``ready``, then what is owed.

Knows the hub, and when a client goes live at each of its merchants. Does not know how what it is
owed is found (``comparison``), nor how bytes reach the client.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import secrets

from sse_push.errors import EndReason
from sse_push.event_stream.comparison import Comparison, Owed
from sse_push.event_stream.gaps import Gap
from sse_push.event_stream.listening import Listening, take_places
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.wire import (
    Frame,
    Standing,
    encode_position,
    encode_ready,
    encode_ready_for_all,
)
from sse_push.hub import Sink, Subscription

logger = logging.getLogger(__name__)

_Found = Owed | asyncio.Task[Owed | None]
"""What the comparison at one merchant has found, or will find; then None: the connection ended."""

_connection_numbers = itertools.count(1)


@functools.cache
def _process_name(_pid: int) -> str:
    """Return what distinguishes a process from any other, now and later, on any machine."""
    return secrets.token_hex(4)


class Opening:
    """A connection's place in the hub at each of its merchants, and its first bytes.

    The places are taken before Redis is asked: a change that is published meanwhile is not lost.

    Raises:
        Unauthorized: a grant was revoked.
    """

    __slots__ = ("_is_late", "_listening", "_streams", "_untold", "_waiting", "places")

    def __init__(self, streams: EventStreams, listening: Listening, sink: Sink[Frame]) -> None:
        """Take the places."""
        self._streams = streams
        self._listening = listening
        self.places = take_places(streams.hub, listening, sink)
        self._waiting: tuple[asyncio.Task[Owed | None], ...] = ()
        """Each waits for Redis on behalf of one merchant."""
        self._is_late = False
        """The first bytes were written: who joins from now on joins late."""
        self._untold: tuple[tuple[Subscription[Frame], Frame], ...] = ()
        """The places that join late and are owed nothing, each with its ``position``."""

    @property
    def subscription(self) -> Subscription[Frame]:
        """The place that leads."""
        return self.places[0]

    async def first_bytes(self) -> bytes:
        """Return the first bytes to write, within ``arm_timeout_s``: proxies flush on them.

        If Redis has not answered for a merchant by then, they say nothing of that merchant; what is
        owed, or its position, is offered to the sink when Redis has answered.
        """
        hub = self._streams.hub
        found: list[_Found] = []
        positions = self._listening.last_event_ids
        for place, last_event_id in zip(self.places, positions, strict=True):
            comparison = Comparison(hub, self._streams.gaps, place, last_event_id)
            owed = comparison.at_once()
            if isinstance(owed, Owed):
                hub.admit(place, owed.refreshes)
                found.append(owed)
            else:
                found.append(self._join_later(place, comparison, owed))
        if self._waiting:
            await self._wait()
        pieces = [self._ready(found)]
        for place in self.places:
            frame = hub.first_frame(place)
            if frame is not None:
                named = frame.named(place.merchant.id) if self._listening.is_named else frame
                pieces.append(named.body)
        return b"".join(pieces)

    def drained(self) -> None:
        """Note that the client can take bytes again, and offer it all that waits for that."""
        self._streams.hub.drained(self.subscription)
        if self._untold:
            self._tell()

    async def close(self) -> None:
        """Give up the places, and stop waiting for Redis."""
        self._streams.hub.unsubscribe(self.subscription)
        for waiting in self._waiting:
            waiting.cancel()
        if self._waiting:
            await asyncio.wait(self._waiting)

    def _ready(self, found: list[_Found]) -> bytes:
        streams, listening = self._streams, self._listening
        connection_id = f"{_process_name(os.getpid())}-{next(_connection_numbers)}"
        if len(found) > 1:
            return encode_ready_for_all(
                {
                    place.merchant.id: _standing(each)
                    for place, each in zip(self.places, found, strict=True)
                },
                retry_ms=streams.jittered_retry_ms(),
                heartbeat_s=streams.heartbeat_s,
                connection_id=connection_id,
                grant=listening.digest,
            )
        newest = _standing(found[0])
        return encode_ready(
            self.subscription.merchant.id,
            retry_ms=streams.jittered_retry_ms(),
            heartbeat_s=streams.heartbeat_s,
            connection_id=connection_id,
            newest=None if isinstance(newest, str) else newest,
            is_named=listening.is_named,
            grant=listening.digest,
        )

    def _join_later(
        self, place: Subscription[Frame], comparison: Comparison, gap: Gap | None
    ) -> asyncio.Task[Owed | None]:
        """Let a task wait for Redis on behalf of one merchant."""
        joining = self._join(place, comparison, gap)
        waiting = asyncio.create_task(joining, name=f"join {place.merchant.id}")
        self._waiting = (*self._waiting, waiting)
        return waiting

    async def _wait(self) -> None:
        """Wait for Redis for at most ``arm_timeout_s``; after that the tasks wait alone."""
        _, late = await asyncio.wait(
            self._waiting,
            timeout=self._streams.arm_timeout_s,
            return_when=asyncio.FIRST_EXCEPTION,
        )
        self._is_late = True
        for each in late:
            each.add_done_callback(self._check)

    async def _join(
        self, place: Subscription[Frame], comparison: Comparison, gap: Gap | None
    ) -> Owed | None:
        """Go live at one merchant as soon as Redis has answered."""
        owed = await comparison.result(gap)
        if owed is None:
            return None
        if self._is_late and len(self.places) > 1 and not owed.refreshes:
            # ``ready`` said that the position follows. Later changes stay pending until then.
            position = encode_position(place.merchant.id, owed.newest)
            self._untold = (*self._untold, (place, position))
            self._tell()
            return owed
        self._streams.hub.admit(place, owed.refreshes)
        if self._is_late:
            self._streams.hub.offer_pending(place)
        return owed

    def _tell(self) -> None:
        """Offer each position that was not told; a refresh that is pending by now stands for it."""
        hub, untold = self._streams.hub, self._untold
        self._untold = ()
        for place, position in untold:
            if place.pending or hub.offer(place, position):
                hub.admit(place, ())
                hub.offer_pending(place)
            else:
                self._untold = (*self._untold, (place, position))

    def _check(self, waiting: asyncio.Task[Owed | None]) -> None:
        """End a connection whose joining has failed late: it would get nothing but heartbeats.

        A failure before the first bytes is raised by ``first_bytes``.
        """
        if not waiting.cancelled() and waiting.exception() is not None:
            logger.error("joining failed, ending the stream", exc_info=waiting.exception())
            self._streams.hub.end(self.subscription, EndReason.FAILED)


def _standing(found: _Found) -> Standing:
    """Return where a client stands at one merchant, for ``ready``.

    An ID moves the client forward: it stands there only if nothing up to it is owed.
    """
    if isinstance(found, Owed):
        return "owed" if found.refreshes else found.newest
    if not found.done() or (owed := found.result()) is None:
        return "pending"
    return _standing(owed)
