"""Three lists: the package's errors, why a request is refused, and why a connection ends.

Knows which refusal (``refusals``) each error is; ``words`` shows values in their texts. Does not
know how a refusal is answered (``http``), nor the exit status of the command line (``__main__``).

PushError
├── ConfigError                the settings are wrong; nothing was started
├── InvalidEntryId             a text is no entry ID; as a last event ID it counts as unknown
├── NotNow                     503 unavailable, or a soft answer
└── RequestError               a request, or an item of its array, is refused
    ├── AmbiguousCredentials   400 malformed
    ├── InvalidMerchantId      400 malformed
    ├── InvalidNotification    400 malformed
    ├── InvalidQuery           400 malformed
    ├── InvalidRevocation      400 malformed
    ├── Unauthorized           401 unauthorized
    ├── Forbidden              403 forbidden
    ├── OriginNotAllowed       403 origin_not_allowed
    ├── HostNotAllowed         421 host_not_allowed
    ├── TooLarge               413 too_large
    ├── UnsupportedMediaType   415 unsupported
    ├── TooManyNotifications   429 rate_limited
    └── StreamUnavailable      503 unavailable
"""

from __future__ import annotations

import enum
from typing import ClassVar, Literal, Self

from sse_push.errors.refusals import Refusal as Refusal
from sse_push.errors.refusals import RefusalReason as RefusalReason

Outcome = Literal["not_published", "unknown"]


# -- why a connection ends


class Occasion(enum.Flag):
    """When an ``EndReason`` is given."""

    END = enum.auto()
    """At the end of a connection that was served."""
    SOFT_ANSWER = enum.auto()
    """In a soft answer: an event stream of one ``goodbye``, instead of a connection."""
    NGINX = enum.auto()
    """In nginx's own soft answer, while the service does not answer."""


class EndReason(enum.Enum):
    """Why a connection ends, or is not served: the list of reasons.

    The value is the reason in logs, metrics and the ``goodbye`` event. ``occasions``: when it is
    given; ``reaction``: what the client does then. Tests hold nginx's files, the documentation and
    the browser module against this list.
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
    POLLED = "polled", Occasion.END, "polls again"
    """The connection was a poll, which is answered."""
    FAILED = "failed", Occasion.END, "reconnects"
    """The service itself has failed; its log has the error."""
    NOT_READY = "not_ready", Occasion.SOFT_ANSWER, "reconnects later"
    """Redis has not told which tokens are revoked, or what a poll is owed."""
    FULL = "full", Occasion.SOFT_ANSWER, "reconnects later"
    MERCHANT_FULL = "merchant_full", Occasion.SOFT_ANSWER, "reconnects later"
    TOO_MANY_CONNECTIONS = (
        "too_many_connections",
        Occasion.SOFT_ANSWER | Occasion.NGINX,
        "reconnects later",
    )
    """One client address has too many connections."""
    RATE_LIMITED = "rate_limited", Occasion.NGINX, "reconnects later"
    """One client address asks too often."""
    UPSTREAM_UNAVAILABLE = "upstream_unavailable", Occasion.NGINX, "reconnects later"
    """nginx gets no answer from the service."""

    @classmethod
    def on(cls, occasion: Occasion) -> tuple[Self, ...]:
        """Return the reasons that are given on an occasion."""
        return tuple(reason for reason in cls if occasion in reason.occasions)


# -- the errors


class PushError(Exception):
    """Base of the errors that this package raises on purpose."""


class ConfigError(PushError):
    """A setting is unknown, missing, out of range, or contradicts another; nothing was started."""


class InvalidEntryId(PushError):
    """A text is not ``<ms>-<seq>``; as a last event ID it counts as unknown."""


class NotNow(PushError):
    """A client of ``GET /events`` can't be served now, and is asked to come back later."""

    def __init__(self, reason: EndReason, who: str | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.who = who


class RequestError(PushError):
    """A request, or an item of the array in its body, is refused.

    ``who`` is for the log: the key, merchant, origin or host that the refusal is about, without a
    secret; None: the client's address says most.
    """

    usual: ClassVar[RefusalReason]
    """The reason of an error that is raised without one."""

    def __init__(
        self, text: str, *, reason: RefusalReason | None = None, who: str | None = None
    ) -> None:
        super().__init__(text)
        self.reason = reason or self.usual
        self.who = who

    @property
    def refusal(self) -> Refusal:
        """The code and the status of the answer."""
        return self.reason.refusal


class AmbiguousCredentials(RequestError):
    """A request has several credentials, or one credential twice, where only one can count."""

    usual = RefusalReason.SEVERAL_CREDENTIALS


class InvalidMerchantId(RequestError):
    """A value is not of the form of a merchant's ID."""

    usual = RefusalReason.MALFORMED_MERCHANT


class InvalidNotification(RequestError):
    """The body of a request, or an item of its array, is not a notification."""

    usual = RefusalReason.MALFORMED_BODY


class InvalidQuery(RequestError):
    """The query of a request has a parameter several times."""

    usual = RefusalReason.REPEATED_PARAMETER


class InvalidRevocation(RequestError):
    """The body of a request, or an entry in Redis, is not a revocation."""

    usual = RefusalReason.MALFORMED_BODY


class Unauthorized(RequestError):
    """The caller has shown no valid credential; the same request will be refused again.

    ``challenge`` is the value of the header ``WWW-Authenticate``, by which a client distinguishes
    an invalid token from a missing one.

    https://www.rfc-editor.org/rfc/rfc6750#section-3
    """

    usual = RefusalReason.TOKEN_MISSING

    def __init__(
        self,
        text: str,
        challenge: str = "Bearer",
        *,
        reason: RefusalReason | None = None,
        who: str | None = None,
    ) -> None:
        super().__init__(text, reason=reason, who=who)
        self.challenge = challenge

    @classmethod
    def invalid_token(cls, text: str, reason: RefusalReason) -> Self:
        """Return the error of a token that is invalid, expired or revoked."""
        return cls(text, 'Bearer error="invalid_token"', reason=reason)


class Forbidden(RequestError):
    """The caller is known and not allowed; whether the merchant exists is not disclosed."""

    usual = RefusalReason.MERCHANT_NOT_GRANTED


class OriginNotAllowed(RequestError):
    """A page of another origin has sent the request, and could read the answer."""

    usual = RefusalReason.ORIGIN_NOT_ALLOWED


class HostNotAllowed(RequestError):
    """A request asks for a host that is not one of the service: maybe a stranger's page sent it."""

    usual = RefusalReason.HOST_NOT_ALLOWED


class TooLarge(RequestError):
    """A body, a part of it or an array is over a limit of ``Settings``; the text has the limit."""

    usual = RefusalReason.BODY_TOO_LARGE


class UnsupportedMediaType(RequestError):
    """The body of a request is of a type that its path does not read."""

    usual = RefusalReason.UNSUPPORTED


class TooManyNotifications(RequestError):
    """A key notifies more often than it may, until ``retry_after_s`` seconds have passed."""

    usual = RefusalReason.RATE_LIMITED

    def __init__(self, text: str, retry_after_s: int = 1, *, who: str | None = None) -> None:
        super().__init__(text, who=who)
        self.retry_after_s = retry_after_s


class StreamUnavailable(RequestError):
    """Redis has not stored, or not returned, entries.

    ``outcome`` is ``"not_published"`` only if Redis has certainly not executed the command, and
    ``"unknown"`` if it may have. The caller may try again in both cases: a refresh is idempotent.
    """

    usual = RefusalReason.NOT_STORED

    def __init__(self, text: str, outcome: Outcome = "not_published") -> None:
        super().__init__(text)
        self.outcome: Outcome = outcome
