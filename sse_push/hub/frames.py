"""The frame of all that is pending for one connection: bounded, and encoded once for many.

Knows that clients which return together are owed the same. Does not know when a frame is written
(``fan_out``), nor the wire format (``encode`` makes the frames).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic

from sse_push.hub.refresh import Pending, Refresh, in_order
from sse_push.hub.state import FrameT

_DATA_BYTES = 32_768
"""How much data several refreshes in the frame of one connection may have. A client that does not
read keeps its frame in memory, as do all others that do not read."""

_KEPT = 64
"""How many merchants' last frames are kept, of some 50 KiB at most."""


class PendingFrames(Generic[FrameT]):
    """Encode what is pending for one connection; the same again is the same frame."""

    def __init__(self, encode: Callable[[str, Sequence[Refresh]], FrameT]) -> None:
        self._encode = encode
        self._kept: OrderedDict[str, tuple[list[Refresh], FrameT]] = OrderedDict()
        """The last frame of each merchant, and what it was made of; the oldest first."""

    def frame(self, merchant_id: str, pending: Pending) -> FrameT:
        """Return one frame of all these refreshes, in the order of their IDs."""
        refreshes = in_order(pending)
        kept = self._kept.get(merchant_id)
        if kept is not None and kept[0] == refreshes:
            return kept[1]
        frame = self._encode(merchant_id, _bounded(refreshes))
        if kept is None and len(self._kept) >= _KEPT:
            self._kept.popitem(last=False)
        self._kept[merchant_id] = refreshes, frame
        return frame


def _bounded(refreshes: list[Refresh]) -> list[Refresh]:
    """Return the refreshes without data, if several have too much of it: the client fetches."""
    if len(refreshes) == 1:
        return refreshes  # what the backend was allowed to send, and a fan-out writes as well
    size_bytes = sum(len(each.data.encode()) for each in refreshes if each.data is not None)
    if size_bytes <= _DATA_BYTES:
        return refreshes
    return [replace(each, data=None) for each in refreshes]
