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

_UNNAMED = "sse_push"
"""The prefix from before there was a choice: its histories have their names without it, so that an
update costs no browser a refetch."""


def history_of(server_id: bytes, key_prefix: str) -> str:
    """Return the name of the history that a run of a server has; empty if the run has no ID.

    Every process gives it the same name. Under another prefix of keys it is another history.
    """
    if not server_id:
        return ""
    named = server_id if key_prefix == _UNNAMED else server_id + b" " + key_prefix.encode()
    return hashlib.sha256(named).hexdigest()[:HISTORY_CHARACTERS]


class NamesHistory:
    """Passes on what the tail finds, with the name of the history that it was found in."""

    def __init__(self, listener: Listener, key_prefix: str) -> None:
        self._listener = listener
        self._key_prefix = key_prefix
        self.name = ""

    def connected(self, server_id: bytes) -> bool:
        """Name the history of this server from now on; False unless it is the one before."""
        before, self.name = self.name, history_of(server_id, self._key_prefix)
        return is_one_history(before, self.name)

    def armed(self, merchant_id: str, newest: EntryId | None) -> None:
        """Pass on that a stream has been read for the first time."""
        event_id = None if newest is None else EventId(newest, self.name)
        self._listener.armed(merchant_id, event_id)

    def publish(self, change: Change) -> None:
        """Pass on a change."""
        self._listener.publish(change, self.name)
