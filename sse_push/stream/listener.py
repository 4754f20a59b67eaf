"""Who receives what is found in Redis: the behavior that a follower asks for.

Knows changes and revocations. Does not know who that is (the hub), nor how anything was found.
"""

from __future__ import annotations

from typing import Protocol

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, EventId


class Listener(Protocol):
    """Receives what the follower finds; the hub."""

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        """Note that a watched stream has been read for the first time; None: it has no entry."""

    def publish(self, change: Change, history: str) -> None:
        """Pass on a change of a stream that is armed; its IDs are of this ``history``."""

    def revoke(self, revocation: Revocation, at: float) -> None:
        """Apply a revocation that Redis took at this time, in seconds since 1970."""

    def revoke_all(self, until: float) -> None:
        """Revoke every grant that was issued until then: some revocation may be missing."""
