"""Bodies of requests: read up to a limit, and decoded from JSON or from a form.

Knows media types. Does not know what a body means (``notification``, ``access.revocation``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from sse_push.errors import InvalidNotification, TooLarge, UnsupportedMediaType
from sse_push.notification import FIELDS, parse_json

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
IDENTITY = "identity"

_FORM_FIELDS_MAX = 16
"""More than a notification has, so that the error can name an unknown field."""


async def read_body(request: Request[Any], limit_bytes: int) -> bytes:
    """Read a body up to a limit, whatever size its headers announce.

    Raises:
        TooLarge: the body is longer than ``limit_bytes``; the rest is not read.
        ClientDisconnect: the client left before the end of the body.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"body: expected at most {limit_bytes} bytes, got more")
    return bytes(body)


def require_media_type(request: Request[Any], *expected: str) -> str:
    """Return the type of the body, without parameters; a request without a type has JSON.

    Raises:
        UnsupportedMediaType: the type is not one of ``expected``, or the body is compressed.

    https://www.rfc-editor.org/rfc/rfc9110#section-8.4
    """
    encoding = request.headers.get("content-encoding", IDENTITY).lower()
    if encoding != IDENTITY:
        raise UnsupportedMediaType(f"Content-Encoding: expected none, got {encoding[:80]!r}")
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type not in expected:
        raise UnsupportedMediaType(f"expected {' or '.join(expected)}, got {media_type[:80]!r}")
    return media_type


def parse_form(body: bytes) -> dict[str, object]:
    """Decode a form strictly: UTF-8, each field once; the value of ``data`` is JSON.

    Raises:
        InvalidNotification: the body is not such a form; the text says what was expected.

    https://url.spec.whatwg.org/#urlencoded-parsing
    """
    if body.lstrip()[:1] in (b"{", b"["):
        raise InvalidNotification(f"expected a form, got JSON: send Content-Type: {JSON}")
    fields = body.count(b"&") + 1
    if fields > _FORM_FIELDS_MAX:
        raise InvalidNotification(
            f"expected a form of {', '.join(FIELDS)}, got one of {fields} fields"
        )
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError as exc:
        raise InvalidNotification("expected a form, merchant_id=…, of UTF-8") from exc
    form: dict[str, object] = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidNotification("expected each field once, got one twice")
    if "data" in form:
        form["data"] = parse_json(str(form["data"]).encode())
    return form
