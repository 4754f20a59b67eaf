"""The JSON that the demo's own page posts, and that a page of another site cannot.

Knows media types. Does not know what a body means.
"""

from __future__ import annotations

from starlette.requests import Request

from sse_push.errors import UnsupportedMediaType
from sse_push.http.bodies import JSON, read_body, require_media_type
from sse_push.notification import parse_json


async def read_json(request: Request, limit_bytes: int) -> object:
    """Return the decoded body.

    A page of another site may send any other type, or none, without asking first.

    Raises:
        UnsupportedMediaType: the body has no type, or another one than JSON.
        TooLarge: the body is longer than ``limit_bytes``.
        InvalidNotification: the body is no JSON.

    https://fetch.spec.whatwg.org/#cors-safelisted-request-header
    """
    if "content-type" not in request.headers:
        raise UnsupportedMediaType(f"expected {JSON}, got no type")
    require_media_type(request, JSON)
    return parse_json(await read_body(request, limit_bytes))
