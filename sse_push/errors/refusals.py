"""Why a request is refused: the codes for its client, and the reasons for an operator.

Knows the words, and which setting decides. Does not know which error has which reason (``errors``),
nor how a refusal is answered (``http``).
"""

from __future__ import annotations

import enum
from typing import Self


class Refusal(enum.Enum):
    """Why a request is refused: the list of codes, each with its status.

    The value is the code: ``error`` in the answer, and the label of ``sse_push_errors_total``.
    """

    status: int

    def __new__(cls, code: str, status: int) -> Self:
        """Make a member whose value is its code."""
        member = object.__new__(cls)
        member._value_ = code
        member.status = status
        return member

    MALFORMED = "malformed", 400
    UNAUTHORIZED = "unauthorized", 401
    FORBIDDEN = "forbidden", 403
    ORIGIN_NOT_ALLOWED = "origin_not_allowed", 403
    NOT_FOUND = "not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    REQUEST_TIMEOUT = "request_timeout", 408
    TOO_LARGE = "too_large", 413
    UNSUPPORTED = "unsupported", 415
    HOST_NOT_ALLOWED = "host_not_allowed", 421
    RATE_LIMITED = "rate_limited", 429
    HEADERS_TOO_LARGE = "headers_too_large", 431
    INTERNAL = "internal", 500
    UNAVAILABLE = "unavailable", 503

    def body(self, detail: str, **more: object) -> dict[str, object]:
        """Return the JSON object of the answer; ``detail``: ``expected X, got Y``."""
        return {"error": self.value, "detail": detail, **more}


class RefusalReason(enum.Enum):
    """Why a request is refused, for an operator: finer than its code.

    The value is the reason in the log, and the label of ``sse_push_refusals_total``. ``setting``:
    the setting that decides; None: no setting does. A reason to put a client off has the name of
    its ``EndReason``.
    """

    refusal: Refusal
    setting: str | None

    def __new__(cls, text: str, refusal: Refusal, setting: str | None = None) -> Self:
        """Make a member whose value is its text."""
        member = object.__new__(cls)
        member._value_ = text
        member.refusal = refusal
        member.setting = setting
        return member

    NOT_HTTP = "not_http", Refusal.MALFORMED
    BODY_CUT = "body_cut", Refusal.MALFORMED
    MALFORMED_BODY = "malformed_body", Refusal.MALFORMED
    UNKNOWN_FIELD = "unknown_field", Refusal.MALFORMED
    UNKNOWN_PARAMETER = "unknown_parameter", Refusal.MALFORMED
    MALFORMED_MERCHANT = "malformed_merchant", Refusal.MALFORMED
    TOO_MANY_MERCHANTS = (
        "too_many_merchants",
        Refusal.MALFORMED,
        "max_merchants_per_connection",
    )
    REPEATED_PARAMETER = "repeated_parameter", Refusal.MALFORMED
    SEVERAL_CREDENTIALS = "several_credentials", Refusal.MALFORMED
    KEY_MISSING = "key_missing", Refusal.UNAUTHORIZED, "notify_keys"
    KEY_UNKNOWN = "key_unknown", Refusal.UNAUTHORIZED, "notify_keys"
    TOKEN_MISSING = "token_missing", Refusal.UNAUTHORIZED, "subscribe_auth"
    TOKEN_MALFORMED = "token_malformed", Refusal.UNAUTHORIZED
    TOKEN_UNVERIFIED = "token_unverified", Refusal.UNAUTHORIZED, "token_keys"
    TOKEN_CLAIMS = "token_claims", Refusal.UNAUTHORIZED
    TOKEN_AUDIENCE = "token_audience", Refusal.UNAUTHORIZED, "token_audience"
    TOKEN_ISSUER = "token_issuer", Refusal.UNAUTHORIZED, "token_issuer"
    TOKEN_TOO_EARLY = "token_too_early", Refusal.UNAUTHORIZED, "token_leeway_s"
    TOKEN_EXPIRED = "token_expired", Refusal.UNAUTHORIZED
    TOKEN_LIFETIME = "token_lifetime", Refusal.UNAUTHORIZED, "token_max_lifetime_s"
    TOKEN_REVOKED = "token_revoked", Refusal.UNAUTHORIZED
    PROXY_NOT_TRUSTED = "proxy_not_trusted", Refusal.UNAUTHORIZED, "trusted_proxies"
    PROXY_NAMES_NOBODY = "proxy_names_nobody", Refusal.UNAUTHORIZED, "subscribe_auth"
    MERCHANT_NOT_OF_KEY = "merchant_not_of_key", Refusal.FORBIDDEN, "notify_keys"
    MERCHANT_NOT_GRANTED = "merchant_not_granted", Refusal.FORBIDDEN, "subscribe_auth"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed", Refusal.ORIGIN_NOT_ALLOWED, "allowed_origins"
    PAGE_NOT_BACKEND = "page_not_backend", Refusal.ORIGIN_NOT_ALLOWED
    PROXY_NOT_BACKEND = "proxy_not_backend", Refusal.FORBIDDEN
    BACKEND_NOT_TRUSTED = "backend_not_trusted", Refusal.FORBIDDEN, "trusted_backends"
    NOT_FOUND = "not_found", Refusal.NOT_FOUND
    METHOD_NOT_ALLOWED = "method_not_allowed", Refusal.METHOD_NOT_ALLOWED
    REQUEST_TIMEOUT = "request_timeout", Refusal.REQUEST_TIMEOUT, "request_timeout_s"
    BODY_TOO_LARGE = "body_too_large", Refusal.TOO_LARGE, "body_limit_bytes"
    DATA_TOO_LARGE = "data_too_large", Refusal.TOO_LARGE, "data_limit_bytes"
    TOO_MANY_ITEMS = "too_many_items", Refusal.TOO_LARGE, "notify_max_items"
    UNSUPPORTED = "unsupported", Refusal.UNSUPPORTED
    HOST_NOT_ALLOWED = "host_not_allowed", Refusal.HOST_NOT_ALLOWED, "allowed_hosts"
    RATE_LIMITED = "rate_limited", Refusal.RATE_LIMITED, "notify_rate_per_s"
    HEADERS_TOO_LARGE = "headers_too_large", Refusal.HEADERS_TOO_LARGE, "header_limit_bytes"
    INTERNAL = "internal", Refusal.INTERNAL
    NOT_STORED = "not_stored", Refusal.UNAVAILABLE, "redis_url"
    NOT_READY = "not_ready", Refusal.UNAVAILABLE, "redis_url"
    SERVER_STOPPING = "server_stopping", Refusal.UNAVAILABLE
    FULL = "full", Refusal.UNAVAILABLE, "max_connections"
    MERCHANT_FULL = "merchant_full", Refusal.UNAVAILABLE, "max_connections_per_merchant"
    TOO_MANY_CONNECTIONS = (
        "too_many_connections",
        Refusal.UNAVAILABLE,
        "max_connections_per_address",
    )
