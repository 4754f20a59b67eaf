"""Pages of other origins: which of them may listen, and what their browsers are told.

Knows the headers of the Fetch standard. Does not know who may listen to whom.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from sse_push.errors import OriginNotAllowed

ANY = "*"

_PREFLIGHT_AGE_S = 600
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET",
    # What a client of ours may send besides what any page may.
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
}


class Origins:
    """The origins whose pages may listen, besides our own: exact ones, or any."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, headers: Headers) -> None:
        """Refuse a request that a page of another origin makes, unless it is allowed.

        No ``Origin`` and no other sign of a foreign page is fine: a page of our own sends none.

        Raises:
            OriginNotAllowed: the page is of another origin, or of a site that hides its name.
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
            raise OriginNotAllowed("expected a page of an allowed origin, got one of another site")
        if origin is not None and not _is_same(origin.decode("latin-1"), headers.get("host", "")):
            raise OriginNotAllowed("expected an origin of allowed_origins, got another one")

    def mark(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that tells browsers who may read the answer, whatever it is."""
        if not self._allowed:
            return send
        added = self._headers(Headers(scope=scope).getlist("origin"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        return marked

    def _headers(self, got: list[str]) -> list[tuple[bytes, bytes]]:
        # Also where no Origin came: a cache must not give that answer to a page of another one.
        added = [(b"vary", b"Origin")]
        if len(got) != 1 or not self._allows(got[0]):
            return added
        if ANY in self._allowed:
            return [*added, (b"access-control-allow-origin", b"*")]
        return [
            *added,
            (b"access-control-allow-origin", got[0].encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
        ]

    def _allows(self, origin: str) -> bool:
        return origin in self._allowed or ANY in self._allowed


def refuse_pages(headers: Headers) -> None:
    """Refuse whatever a page sends to what is for backends only.

    Raises:
        OriginNotAllowed: there is an ``Origin``, which only browsers send.
    """
    if "origin" in headers:
        raise OriginNotAllowed("expected a request of a backend, got one of a page, with Origin")


def _is_same(origin: str, host: str) -> bool:
    """Compare host and port only: behind a proxy we don't know the scheme."""
    return bool(host) and origin.partition("://")[2] == host.lower()
