"""What adds to nodes of a cluster that are no members: not yet, or not any more.

A node has no slots before its first one has arrived, and yet a reply may send a record there (ASK).
And a primary that has lost its last slot still owes the answers to what it was sent. Knows for how
long such a node is of use. Does not know why it is no member (``cluster``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sse_push.stream.address import Place

AppenderT = TypeVar("AppenderT")


class Guests(Generic[AppenderT]):
    """Keep an appender per place for ``keep_s`` after its last use.

    ``begin(place)`` makes one that runs, ``end(appender)`` stops it.
    """

    def __init__(
        self,
        begin: Callable[[Place], AppenderT],
        end: Callable[[AppenderT], None],
        *,
        keep_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin = begin
        self._end = end
        self._keep_s = keep_s
        self._now = now
        self._guests: dict[Place, tuple[AppenderT, float]] = {}
        """Each with the time of its last use."""

    def at(self, place: Place) -> AppenderT:
        """Return what adds at a place, from now on if nothing did."""
        guest, _ = self._guests.get(place) or (self._begin(place), 0)
        self._guests[place] = guest, self._now()
        return guest

    def keep(self, place: Place, appender: AppenderT) -> None:
        """Let the appender of a member that has gone answer what it was sent."""
        if place in self._guests:
            self._end(self._guests[place][0])
        self._guests[place] = appender, self._now()

    def end_unused(self) -> None:
        """End those that nobody has used for a while."""
        before = self._now() - self._keep_s
        for place, (appender, used_at) in list(self._guests.items()):
            if used_at <= before:
                del self._guests[place]
                self._end(appender)
