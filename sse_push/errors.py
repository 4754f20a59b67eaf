"""Everything that can go wrong, and every reason for which a connection ends, by name.

Does not know HTTP or Redis: ``http`` turns errors into answers, ``cli`` into exit codes.

PushError
├── ConfigError            the settings; nothing was started
├── InvalidNotification    the request
├── InvalidRevocation      the request
├── InvalidMerchantId      the request
├── InvalidEntryId         the request; as a last event ID: position unknown
├── TooLarge               the request, over a limit
├── AmbiguousCredentials   who asks: several answers
├── Unauthorized           who asks: no answer
├── Forbidden              who asks: known, and not allowed
├── OriginNotAllowed       who asks: a page of another origin
├── TooManyNotifications   how often
├── NotNow                 the service: a client of events is asked to come back
└── StreamUnavailable      Redis
"""

from __future__ import annotations

import enum
from typing import Literal, Self

Outcome = Literal["not_published", "unknown"]


class Occasion(enum.Flag):
    """When a reason is given."""

    END = enum.auto()
    """At the end of a connection that was served."""
    SOFT_ANSWER = enum.auto()
    """Instead of serving a connection."""
    NGINX = enum.auto()
    """By nginx, which answers instead of the service."""


class EndReason(enum.Enum):
    """Why a connection ended, or is not served: the one list.

    The value is what logs, metrics and the ``goodbye`` event say. ``occasions`` says when,
    ``reaction`` what the client does then. nginx's files, the documentation and the browser module
    are tested against this list.
    """

    occasions: Occasion
    reaction: str

    def __new__(cls, text: str, occasions: Occasion, reaction: str) -> Self:
        """Make a member whose value is its text."""
        member = object.__new__(cls)
        member._value_ = text
        member.occasions = occasions
        member.reaction = reaction
        return member

    CLIENT_DISCONNECTED = "client_disconnected", Occasion.END, "gone"
    STALLED = "stalled", Occasion.END, "reconnects when it notices the cut"
    CONNECTION_AGE = "connection_age", Occasion.END, "reconnects"
    SERVER_STOPPING = "server_stopping", Occasion.END | Occasion.SOFT_ANSWER, "reconnects"
    TOKEN_EXPIRED = "token_expired", Occasion.END, "renews its token, then reconnects"
    REVOKED = "revoked", Occasion.END, "reconnects, and is refused with 401 if it has no new token"
    FAILED = "failed", Occasion.END, "reconnects"
    """An error of the service's own, which its log has."""
    NOT_READY = "not_ready", Occasion.SOFT_ANSWER, "reconnects later"
    FULL = "full", Occasion.SOFT_ANSWER, "reconnects later"
    MERCHANT_FULL = "merchant_full", Occasion.SOFT_ANSWER, "reconnects later"
    TOO_MANY_CONNECTIONS = (
        "too_many_connections",
        Occasion.SOFT_ANSWER | Occasion.NGINX,
        "reconnects later",
    )
    UPSTREAM_UNAVAILABLE = "upstream_unavailable", Occasion.NGINX, "reconnects later"

    @classmethod
    def on(cls, occasion: Occasion) -> tuple[Self, ...]:
        """Return the reasons that are given on an occasion."""
        return tuple(reason for reason in cls if occasion in reason.occasions)


class PushError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(PushError):
    """A setting is unknown, missing, out of range, or contradicts another; nothing was started."""


class InvalidNotification(PushError):
    """A notification is not one; the text says what was expected and what was given."""


class InvalidRevocation(PushError):
    """A revocation is not one; the text says what was expected and what was given."""


class TooLarge(PushError):
    """Something is over a limit of ``Settings``; the text names the limit."""


class InvalidEntryId(PushError):
    """A text is not ``<ms>-<seq>``; as a last event ID it means: position unknown."""


class InvalidMerchantId(PushError):
    """A text cannot name a merchant."""


class AmbiguousCredentials(PushError):
    """A request shows several credentials, or one several times, and only one can be meant."""


class Unauthorized(PushError):
    """The caller has not shown that it may do this; the same request will be refused again.

    ``challenge`` is the value of the header ``WWW-Authenticate``: it tells a token that was refused
    from no token at all.

    https://www.rfc-editor.org/rfc/rfc6750#section-3
    """

    def __init__(self, text: str, challenge: str = "Bearer") -> None:
        super().__init__(text)
        self.challenge = challenge

    @classmethod
    def invalid_token(cls, text: str) -> Self:
        """Return the error of a token that was shown and lets nobody in."""
        return cls(text, 'Bearer error="invalid_token"')


class Forbidden(PushError):
    """The caller is known and not allowed; whether the merchant exists is not disclosed."""


class OriginNotAllowed(PushError):
    """A page of another origin asks, by a browser that would show it our answer."""


class TooManyNotifications(PushError):
    """A key notifies more often than it may; ``retry_after_s`` is when it may again, in seconds."""

    def __init__(self, text: str, retry_after_s: int = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class NotNow(PushError):
    """A client of ``GET /events`` cannot be served now, and is asked to come back later."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class StreamUnavailable(PushError):
    """Redis did not take, or did not give, entries.

    ``outcome`` is ``"not_published"`` only if the command was certainly not executed; with
    ``"unknown"`` it may have been. Trying again is safe in both cases: a refresh is idempotent.
    """

    def __init__(self, text: str, outcome: Outcome = "not_published") -> None:
        super().__init__(text)
        self.outcome: Outcome = outcome
