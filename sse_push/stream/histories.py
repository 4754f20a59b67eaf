"""The histories of servers: each ID that is passed on says in which one its entry stands.

Knows that another run of a server, or another server, may have lost entries, so that an entry ID
proves nothing there. Does not know who compares the IDs.
"""

from __future__ import annotations

import hashlib

from sse_push.notification import (
    HISTORY_CHARACTERS,
    Change,
    EntryId,
    EventId,
    is_one_history,
)
from sse_push.stream.listener import Listener


def history_of(server_id: bytes) -> str:
    """Return the name of the history that a run of a server has; empty if the run has no ID.

    Every process gives it the same name.
    """
    return hashlib.sha256(server_id).hexdigest()[:HISTORY_CHARACTERS] if server_id else ""


class NamesHistory:
    """Passes on what the tail finds, with the name of the history that it was found in."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.name = ""

    def connected(self, server_id: bytes) -> bool:
        """Name the history of this server from now on; False unless it is the one before."""
        before, self.name = self.name, history_of(server_id)
        return is_one_history(before, self.name)

    def armed(self, merchant_id: str, newest: EntryId | None) -> None:
        """Pass on that a stream has been read for the first time."""
        event_id = None if newest is None else EventId(newest, self.name)
        self._listener.armed(merchant_id, event_id)

    def publish(self, change: Change) -> None:
        """Pass on a change."""
        self._listener.publish(change, self.name)
