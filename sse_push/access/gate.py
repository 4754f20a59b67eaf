"""Who may notify, and who may listen: what a request shows, and what that is worth.

Knows the headers, the cookie and the query that credentials come in. Does not know how a token is
checked (``tokens``), nor what follows from a yes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any, Literal

from starlette.requests import Request

from sse_push.access.grant import Grant, choose
from sse_push.access.keys import NotifyKey
from sse_push.access.proxies import Proxies
from sse_push.access.tokens import TokenKey, Tokens, load_keys
from sse_push.errors import (
    AmbiguousCredentials,
    InvalidMerchantId,
    Unauthorized,
)
from sse_push.notification import parse_merchant_id
from sse_push.settings import Settings

MERCHANT_HEADER = "X-Merchant-Id"
"""Set by nginx, from what the merchant's own backend has answered; nginx drops one from outside."""

_SCHEME = "bearer"


# -- who may notify


def authorize_notify(
    authorization: Sequence[str], keys: Sequence[NotifyKey] | Literal["none"]
) -> NotifyKey | None:
    """Return the key that came as ``Authorization: Bearer <key>``; None where none is needed.

    Every key is compared, each in constant time, so that the time tells nothing.

    Raises:
        AmbiguousCredentials: the header came twice.
        Unauthorized: no header, another scheme, or a key that is none of ours.

    https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    """
    if keys == "none":
        return None
    presented = _bearer(authorization, "key").encode("utf-8", "surrogateescape")
    matching = [
        key
        for key in keys
        if hmac.compare_digest(presented, key.secret.get_secret_value().encode())
    ]
    if not matching:
        raise Unauthorized("expected a key of notify_keys, got another one")
    return matching[0]


def _bearer(authorization: Sequence[str], what: str) -> str:
    if len(authorization) > 1:
        raise AmbiguousCredentials("expected the header Authorization once, got several")
    scheme, _, got = (authorization[0] if authorization else "").partition(" ")
    if scheme.lower() != _SCHEME or not got:
        raise Unauthorized(f"expected the header Authorization: Bearer <{what}>")
    return got.strip()


# -- who may listen


class Gate:
    """Who may listen to whom: decided for each request, in the way that the settings say.

    Raises:
        ConfigError: the keys of tokens can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._cookie = settings.token_cookie
        self.proxies = Proxies(settings.trusted_proxies, is_unix_socket=settings.uds is not None)
        self.token_keys: tuple[TokenKey, ...] = ()
        self.authorize_subscribe: Callable[[Request[Any], str | None], Grant] = self._anyone
        if settings.subscribe_auth == "header":
            self.authorize_subscribe = self._by_header
        elif settings.subscribe_auth == "token":
            self.authorize_subscribe = self._by_token
            self.token_keys = load_keys(
                settings.token_keys, settings.token_keys_file, settings.token_algorithms
            )
        self._tokens = Tokens(
            self.token_keys,
            audience=settings.token_audience,
            issuer=settings.token_issuer,
            leeway_s=settings.token_leeway_s,
            max_lifetime_s=settings.token_max_lifetime_s,
        )

    def _anyone(self, _request: Request[Any], asked: str | None) -> Grant:
        """Let a client listen to the merchant that it names.

        Raises:
            InvalidMerchantId: it names none.
        """
        return Grant(parse_merchant_id(asked))

    def _by_token(self, request: Request[Any], asked: str | None) -> Grant:
        """Let a client listen to a merchant of its token.

        Raises:
            AmbiguousCredentials: it shows several tokens, or one twice.
            Unauthorized: it shows none, or one that lets nobody in.
            InvalidMerchantId: it names no merchant, and its token several.
            Forbidden: it names a merchant that its token does not.
        """
        claims = self._tokens.check(self._token(request))
        return Grant(
            choose(claims.merchants, asked),
            claims.expires_at,
            claims.subject,
            claims.token_id,
            claims.issued_at,
        )

    def _token(self, request: Request[Any]) -> str:
        got = []
        authorization = request.headers.getlist("authorization")
        if authorization:
            got.append(_bearer(authorization, "token"))
        if self._cookie is not None:
            got += _once(_cookies(request, self._cookie), "the token's cookie")
        got += _once(request.query_params.getlist("token"), "token in the query")
        if not got:
            raise Unauthorized("expected a token: Authorization: Bearer <token>, or ?token=<token>")
        if got.count(got[0]) != len(got):
            raise AmbiguousCredentials("expected one token, got different ones")
        return got[0]

    def _by_header(self, request: Request[Any], asked: str | None) -> Grant:
        """Let a client listen to a merchant that a proxy of ours has found to be its own.

        Raises:
            AmbiguousCredentials: the header came twice.
            Unauthorized: no header came, or not from a proxy of ours.
            InvalidMerchantId: the header, or the query, is not of its form.
            Forbidden: the query names a merchant that the header does not.
        """
        if not self.proxies.trust(request.scope.get("client")):
            raise Unauthorized("expected a request by way of a trusted proxy, got a direct one")
        got = _once(request.headers.getlist(MERCHANT_HEADER), f"the header {MERCHANT_HEADER}")
        if not got:
            raise Unauthorized(f"expected the proxy to set {MERCHANT_HEADER}, got none")
        try:
            merchants = [parse_merchant_id(each.strip()) for each in got[0].split(",")]
        except InvalidMerchantId as exc:
            raise InvalidMerchantId(f"{MERCHANT_HEADER}: {exc}") from exc
        return Grant(choose(merchants, asked))


def _once(got: list[str], what: str) -> list[str]:
    if len(got) > 1:
        raise AmbiguousCredentials(f"expected {what} once, got {len(got)} times")
    return got


def _cookies(request: Request[Any], name: str) -> list[str]:
    """Return every cookie of this name: another one may have been slipped in for a parent domain.

    https://www.rfc-editor.org/rfc/rfc6265#section-8.6
    """
    pairs = (
        pair.partition("=")
        for header in request.headers.getlist("cookie")
        for pair in header.split(";")
    )
    return [value.strip() for key, equals, value in pairs if equals and key.strip() == name]
