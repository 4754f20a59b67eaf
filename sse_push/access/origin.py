"""Pages of other origins: which of them may listen, and the CORS headers of each answer.

Knows the headers of the Fetch standard. Does not know which merchant a client may listen to.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from sse_push.errors import OriginNotAllowed, RefusalReason

ANY = "*"

_FIRST_LABEL = re.compile(r"(https?://)[a-z0-9_-]+\.")

_is_usual = re.compile(rb"null|[a-z][a-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+").fullmatch

_PREFLIGHT_AGE_S = 600
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET",
    # What the browser module and an EventSource polyfill may send, besides the safelisted ones.
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
}

_EXPOSED = (b"access-control-expose-headers", b"Retry-After")
"""A page of another origin reads no other header than the safelisted ones: a poll's pace is there.

https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name
"""


class Origins:
    """The other origins whose pages may listen: exact ones, or any (``*``).

    ``https://*.shop.example`` is any origin whose host has one label more.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)
        self._has_wildcards = any("://*." in each for each in allowed)

    def check(self, headers: Headers) -> None:
        """Refuse a request by a page of another origin, unless that origin is allowed.

        A request without ``Origin`` passes, unless ``Sec-Fetch-Site`` says that it comes from
        another site: a page of our own origin sends no ``Origin`` with a GET.

        Raises:
            OriginNotAllowed: the page is of another origin, or of a site that hides its origin.
        """
        origin = site = None
        for name, value in headers.raw:
            if name == b"origin":
                if origin is not None:
                    raise OriginNotAllowed("expected the header Origin once, got several")
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if origin is not None and self._allows(origin.decode("latin-1")):
            return
        # https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
        if site == b"cross-site":
            raise OriginNotAllowed(
                "expected a page of an allowed origin, got one of another site", who=_named(origin)
            )
        if origin is not None and not _is_same(origin.decode("latin-1"), headers.get("host", "")):
            raise OriginNotAllowed(
                "expected an origin of allowed_origins, got another one", who=_named(origin)
            )

    def with_cors_headers(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that adds the CORS headers to each answer, errors too."""
        if not self._allowed:
            return send
        added = self._headers(Headers(scope=scope).getlist("origin"))
        is_allowed = len(added) > 1  # beside Vary

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *added]
                if is_allowed and any(name == b"retry-after" for name, _ in headers):
                    headers.append(_EXPOSED)
                message = {**message, "headers": headers}
            await send(message)

        return send_with_headers

    def _headers(self, origins: list[str]) -> list[tuple[bytes, bytes]]:
        # Vary without Origin too: a cache must not give that answer to a page of another origin.
        added = [(b"vary", b"Origin")]
        if len(origins) != 1 or not self._allows(origins[0]):
            return added
        if ANY in self._allowed:
            return [*added, (b"access-control-allow-origin", b"*")]
        return [
            *added,
            (b"access-control-allow-origin", origins[0].encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
        ]

    def _allows(self, origin: str) -> bool:
        if origin in self._allowed or ANY in self._allowed:
            return True
        match = _FIRST_LABEL.match(origin) if self._has_wildcards else None
        return match is not None and f"{match[1]}*.{origin[match.end() :]}" in self._allowed


def require_backend(headers: Headers) -> None:
    """Refuse a request by a page, of any origin, to an endpoint for backends.

    Raises:
        OriginNotAllowed: the request has the header ``Origin``, which only browsers send.
    """
    if "origin" in headers:
        raise OriginNotAllowed(
            "expected a request of a backend, got one of a page, with Origin",
            reason=RefusalReason.PAGE_NOT_BACKEND,
            who=_named(headers["origin"].encode("latin-1")),
        )


def _named(origin: bytes | None) -> str:
    """Return what the log calls an origin: only one of the usual form as it is."""
    if origin is None:
        return "a site without Origin"
    return f"origin {origin.decode()}" if _is_usual(origin) else "a malformed origin"


def _is_same(origin: str, host: str) -> bool:
    """Compare host and port only: behind a proxy nobody knows whether it is http or https."""
    scheme, _, name = origin.partition("://")
    return bool(host) and scheme in ("http", "https") and name == host.lower()
