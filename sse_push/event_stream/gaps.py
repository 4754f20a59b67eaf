"""What lies in the gaps that clients return with: read, parsed and merged once for all of them.

Knows when two clients are owed the same. Does not know connections, nor how entries are stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from sse_push.event_stream.resume import Archive, missed, missed_topics
from sse_push.hub import Pending, Refresh, in_order, merge_into
from sse_push.notification import EntryId, EventId

_KEPT_S = 30.0
"""How long the refreshes of a gap are kept: clients that lost their connections together, and got a
soft answer, return within that time."""

_KEPT_REFRESHES = 4096
"""How many refreshes are kept. They have no data, so that each takes a KiB at most."""


class Gap(NamedTuple):
    """The entries that a client has missed: those after ``start``, up to ``end``.

    Both are of the history of ``end``.
    """

    start: EntryId
    end: EventId


class _Key(NamedTuple):
    """What two clients have in common that are owed the same.

    A stream that is deleted may give IDs again. So the gap alone is not enough: ``version`` rises
    with all that is published of ``merchant``, which is the hub's own object, since a merchant that
    was left by its last client begins anew.
    """

    merchant: Hashable
    version: int
    gap: Gap


class _Kept(NamedTuple):
    """What a gap holds, and until when that is kept."""

    refreshes: tuple[Refresh, ...]
    until: float


class Gaps:
    """Look gaps up in the archive, each one once.

    Clients that return with one last event ID, as all do that lost their connections together, wait
    for one read. What it has found is kept for the next ones.
    """

    def __init__(self, archive: Archive, *, now: Callable[[], float] = time.monotonic) -> None:
        self._archive = archive
        self._now = now
        self._reading: dict[_Key, asyncio.Event] = {}
        """Gaps that a client reads; the event is set when it has, or has left."""
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        """The oldest first."""
        self._kept_refreshes = 0

    async def refreshes(
        self, merchant: Hashable, merchant_id: str, version: int, gap: Gap
    ) -> tuple[Refresh, ...]:
        """Return what is owed for a gap to a client that has settled this version of a merchant.

        The order is that of their IDs. Nothing is owed if no entry of the gap says something.
        """
        key = _Key(merchant, version, gap)
        self._forget()
        while (kept := self._kept.get(key)) is None:
            reading = self._reading.get(key)
            if reading is None:
                return await self._read(key, merchant_id)
            await reading.wait()
        return kept.refreshes

    async def _read(self, key: _Key, merchant_id: str) -> tuple[Refresh, ...]:
        reading = self._reading[key] = asyncio.Event()
        end_id, history = key.gap.end
        try:
            # If another server answers, its history follows, as a resync.
            entries = await self._archive.between(merchant_id, key.gap.start, end_id)
            refreshes = (
                _merged(missed_topics(entries, history, key.version))
                if entries is not None
                else (missed(key.gap.end, key.version),)
            )
            self._keep(key, refreshes)
        finally:
            # A client that leaves, or fails, lets the next one read.
            del self._reading[key]
            reading.set()
        return refreshes

    def _keep(self, key: _Key, refreshes: tuple[Refresh, ...]) -> None:
        self._kept[key] = _Kept(refreshes, self._now() + _KEPT_S)
        self._kept_refreshes += 1 + len(refreshes)
        while self._kept_refreshes > _KEPT_REFRESHES:
            self._drop_oldest()

    def _forget(self) -> None:
        while self._kept and next(iter(self._kept.values())).until <= self._now():
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self._kept_refreshes -= 1 + len(dropped.refreshes)


def _merged(refreshes: tuple[Refresh, ...]) -> tuple[Refresh, ...]:
    pending: Pending = {}
    for refresh in refreshes:
        merge_into(pending, refresh)
    return tuple(in_order(pending))
