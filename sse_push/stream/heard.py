"""What is announced, or said by a message of the bell: brought to those who read what has changed.

Knows whose stream a key or a name belongs to. Does not know connections, nor what is read then.
"""

from __future__ import annotations

from collections.abc import Callable

from sse_push.stream.bell import REVOCATIONS
from sse_push.stream.connection import Announcement
from sse_push.stream.keys import Keys
from sse_push.stream.known_revocations import KnownRevocations
from sse_push.stream.leftovers import Leftovers
from sse_push.stream.probe import Probe
from sse_push.stream.tail import Tail


class Heard:
    """Hand on each change that is heard of; ``wake()`` is called when reads may be due."""

    def __init__(
        self,
        keys: Keys,
        tail: Tail,
        revocations: KnownRevocations,
        probe: Probe,
        leftovers: Leftovers,
        wake: Callable[[], None],
    ) -> None:
        self._merchant_of = keys.merchant_of
        self._tail = tail
        self._revocations = revocations
        self._probe = probe
        self._leftovers = leftovers
        self._wake = wake

    def announced(self, announcement: Announcement) -> None:
        """Take what Redis announces on the tracked connection."""
        if announcement.keys is None:
            self._leftovers.clear()
            self._doubt()
        for key in announcement.keys or ():
            merchant_id = self._merchant_of(key)
            if merchant_id is not None:
                self._changed(merchant_id)
            elif key == self._revocations.key:
                self._revocations.mark()
        self._wake()

    def said(self, names: tuple[str, ...] | None) -> None:
        """Take the names in a message of the bell; None: any stream may have changed."""
        if names is None:
            self._doubt()
        for name in names or ():
            if name == REVOCATIONS:
                self._revocations.mark()
            else:
                self._changed(name)
        self._wake()

    def _doubt(self) -> None:
        self._tail.announced(None)
        self._revocations.mark()
        self._probe.announced()

    def _changed(self, merchant_id: str) -> None:
        if merchant_id == self._probe.merchant_id:
            self._probe.announced()
        else:
            self._tail.announced(merchant_id)
            self._leftovers.discard(merchant_id)
