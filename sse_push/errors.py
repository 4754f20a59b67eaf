"""What can go wrong, by name.

Knows nothing about HTTP or Redis: ``app`` turns these into answers, ``cli`` into exit codes.
"""

from __future__ import annotations

from typing import Literal

Outcome = Literal["not_published", "unknown"]


class PushError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(PushError):
    """A setting is unknown, missing, out of range, or contradicts another; nothing was started."""


class InvalidNotification(PushError):
    """A notification is not one; the text says what was expected and what came."""


class InvalidRevocation(PushError):
    """A revocation is not one; the text says what was expected and what came."""


class TooLarge(PushError):
    """Something is over a limit of ``Settings``; the text names the limit."""


class InvalidEntryId(PushError):
    """A text is not ``<ms>-<seq>``; as a last event ID it means: position unknown."""


class InvalidMerchantId(PushError):
    """A text cannot name a merchant."""


class AmbiguousCredentials(PushError):
    """A request shows several credentials, or one several times, and only one can be meant."""


class Unauthorized(PushError):
    """Nobody has shown that they may do this; trying again without a change is no use.

    ``challenge`` is for the header ``WWW-Authenticate``: a token that came, and lets nobody in, is
    told from none.

    https://www.rfc-editor.org/rfc/rfc6750#section-3
    """

    def __init__(self, text: str, challenge: str = "Bearer") -> None:
        super().__init__(text)
        self.challenge = challenge


class Forbidden(PushError):
    """Somebody we know may not do this with this merchant, whether or not there is such a one."""


class OriginNotAllowed(PushError):
    """A page of another origin asks, by a browser that would show it our answer."""


class TooManyNotifications(PushError):
    """A key notifies more often than it may; ``retry_after_s`` is when it may again, in seconds."""

    def __init__(self, text: str, retry_after_s: int = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StreamUnavailable(PushError):
    """Redis did not take, or did not give, entries.

    ``outcome`` is ``"not_published"`` only if the command was certainly not executed; with
    ``"unknown"`` it may have been. Trying again is safe in both cases: a refresh is idempotent.
    """

    def __init__(self, text: str, outcome: Outcome = "not_published") -> None:
        super().__init__(text)
        self.outcome: Outcome = outcome
