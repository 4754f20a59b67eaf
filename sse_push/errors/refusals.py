"""Why a request is refused: the codes, each with its status.

Knows the words. Does not know which error is which refusal (``errors``), nor how a refusal is
answered (``http``).
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
