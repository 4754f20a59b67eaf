"""The end of a grant: a token that expires, or a revocation, ends the connections that it let in.

Knows when tokens expire and what was revoked. Does not know how a connection ends (``end``), how a
token is checked, nor how a refused client is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason, RefusalReason, Unauthorized
from sse_push.hub.expiry import Expiries
from sse_push.hub.state import SLICE_S, FrameT, Subscription
from sse_push.runtime.timer_wheel import Clock, Timer

_FORGET_INTERVAL_S = 60.0
"""How often revocations are dropped whose tokens have all expired."""


class Grants(Generic[FrameT]):
    """Ends connections whose grant expires or is revoked.

    ``encode_expiring(seconds)`` makes the frame that announces a token's end. ``end`` ends a
    connection; ``offer(subscription, frame)`` offers the announcement, unless the connection is
    blocked.
    """

    def __init__(
        self,
        *,
        expiring_s: float,
        encode_expiring: Callable[[int], FrameT],
        revocations: Revocations,
        end: Callable[[Subscription[FrameT], EndReason], None],
        offer: Callable[[Subscription[FrameT], FrameT], bool],
        clock: Clock,
        wall_clock: Callable[[], float],
    ) -> None:
        self._encode_expiring = encode_expiring
        self._revocations = revocations
        self._end = end
        self._offer = offer
        self._clock = clock
        self._expiries: Expiries[Subscription[FrameT]] = Expiries(
            expiring_s,
            self._announce,
            lambda subscription: end(subscription, EndReason.TOKEN_EXPIRED),
            clock,
            wall_clock,
        )
        self._forgetting: Timer | None = None

    # -- expiry

    def add(self, subscription: Subscription[FrameT]) -> None:
        """Plan the end of a connection, by its leader, whose grant expires."""
        if subscription.grant.expires_at is not None:
            subscription.expiry = self._expiries.add(subscription, subscription.grant.expires_at)
            subscription.expires_at = subscription.expiry.at

    def remove(self, subscription: Subscription[FrameT]) -> None:
        """Drop the plan for a connection that has ended."""
        if subscription.expiry is not None:
            self._expiries.remove(subscription.expiry)
            # Break the reference cycle: a full garbage collection would be needed otherwise.
            subscription.expiry = None

    def _announce(self, subscription: Subscription[FrameT], expires_in_s: int) -> bool:
        """Offer the announcement of a token's end; False if the sink cannot take it now."""
        return self._offer(subscription, self._encode_expiring(expires_in_s))

    # -- revocation

    def require_unrevoked(self, grant: Grant) -> None:
        """Check a grant by a token; a grant without a token cannot be revoked for the future.

        Raises:
            Unauthorized: the grant is revoked.
        """
        if grant.expires_at is not None and self._revocations.revokes(grant):
            raise Unauthorized.invalid_token(
                "expected a token that was not revoked", RefusalReason.TOKEN_REVOKED
            )

    def revoke(
        self,
        revocation: Revocation,
        at: float,
        subscriptions: Iterable[Subscription[FrameT]],
    ) -> None:
        """Remember a revocation, and end those of its merchant's connections that it revokes.

        A revocation that is reported again ends nothing: connections since the first report stay.
        """
        counted_at = self._revocations.add(revocation, at)
        if counted_at is None:
            return
        self._forget_later()
        # Not all that ``Revocations`` refuses: a merged mark refuses grants that nobody revoked.
        self._end_revoked(
            [each for each in subscriptions if revocation.revokes(each.grant, counted_at)]
        )

    def revoke_all(self, until: float, subscriptions: Iterable[Subscription[FrameT]]) -> None:
        """End the connections whose grants were issued until then, and refuse these grants."""
        self._revocations.revoke_all(until)
        self._forget_later()
        revokes = self._revocations.revokes
        self._end_revoked([each for each in subscriptions if revokes(each.grant)])

    def _end_revoked(self, revoked: list[Subscription[FrameT]]) -> None:
        """End connections for one slice, and go on after the event loop has had its turn."""
        deadline = self._clock.time() + SLICE_S
        while revoked:
            self._end(revoked.pop(), EndReason.REVOKED)
            if self._clock.time() >= deadline and revoked:
                self._clock.call_soon(lambda: self._end_revoked(revoked))
                return

    def _forget_later(self) -> None:
        if self._forgetting is None:
            self._forgetting = self._clock.call_later(_FORGET_INTERVAL_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self._revocations.forget()
        if self._revocations:
            self._forget_later()
