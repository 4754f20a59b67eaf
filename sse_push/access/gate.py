"""Who may notify, and who may listen: credentials are read from a request and checked.

Knows the headers, the cookie and the query parameter that carry credentials. Does not know how a
token is checked (``tokens``), nor what an authorized request goes on to do.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any, Literal

from starlette.requests import Request

from sse_push.access.grant import Grant, Rights, choose_merchants, hash_claim
from sse_push.access.keys import NotifyKey
from sse_push.access.proxies import OWS, Proxies
from sse_push.access.tokens import TokenRules, Tokens
from sse_push.errors import (
    AmbiguousCredentials,
    InvalidMerchantId,
    InvalidQuery,
    RefusalReason,
    Unauthorized,
)
from sse_push.notification import parse_merchant_id

MERCHANT_HEADER = "X-Merchant-Id"
"""nginx sets this header from the answer of the merchant's backend, and drops a client's header."""

_SCHEME = "bearer"

ListenMode = Literal["none", "token", "header"]
"""Who may listen: anyone, a client with a token, or a client whose merchant a proxy names."""


# -- who may notify


def authorize_notify(
    authorization: Sequence[str], keys: Sequence[NotifyKey] | Literal["none"]
) -> NotifyKey | None:
    """Return the key of ``Authorization: Bearer <key>``, or None if no key is needed.

    Every key is compared, each in constant time, so that the time of an answer discloses nothing.

    Raises:
        AmbiguousCredentials: the request has several ``Authorization`` headers.
        Unauthorized: the header is missing, has another scheme, or another key.

    https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    """
    if keys == "none":
        return None
    presented = _bearer(authorization, "key", RefusalReason.KEY_MISSING).encode(
        "utf-8", "surrogateescape"
    )
    matching = [
        key
        for key in keys
        if hmac.compare_digest(presented, key.secret.get_secret_value().encode())
    ]
    if not matching:
        raise Unauthorized(
            "expected a key of notify_keys, got another one", reason=RefusalReason.KEY_UNKNOWN
        )
    return matching[0]


def _bearer(authorization: Sequence[str], credential: str, missing: RefusalReason) -> str:
    if len(authorization) > 1:
        raise AmbiguousCredentials("expected the header Authorization once, got several")
    scheme, _, value = (authorization[0] if authorization else "").partition(" ")
    if scheme.lower() != _SCHEME or not value:
        raise Unauthorized(
            f"expected the header Authorization: Bearer <{credential}>", reason=missing
        )
    return value.strip(OWS)


# -- who may listen


class Gate:
    """Decides for each request to ``/events`` which merchants its client may listen to."""

    def __init__(
        self,
        mode: ListenMode,
        *,
        proxies: Proxies,
        max_merchants: int,
        digest_key: bytes = b"",
        token_rules: TokenRules | None = None,
        token_cookie: str | None = None,
    ) -> None:
        """Build the gate; ``token_rules`` are needed in the mode ``"token"``, and only there."""
        self.proxies = proxies
        self._cookie = token_cookie
        self._max_merchants = max_merchants
        self._digest_key = digest_key
        self._authorize: Callable[[Request[Any], Sequence[str]], Rights] = self._anyone
        if mode == "header":
            self._authorize = self._by_header
        elif mode == "token":
            assert token_rules is not None, "a gate of tokens has its rules"
            self._tokens = Tokens(token_rules)
            self._authorize = self._by_token

    def authorize_subscribe(self, request: Request[Any], requested: Sequence[str]) -> Rights:
        """Let the client listen to the merchants that it requests, or to all of its own.

        Raises:
            AmbiguousCredentials: the request carries several credentials.
            Unauthorized: the credentials are missing or invalid.
            InvalidMerchantId: a merchant is malformed, or missing though nothing else names one.
            Forbidden: the client may not listen to a merchant that it requests.
            InvalidQuery: there are more merchants than one connection may have.
        """
        rights = self._authorize(request, requested)
        if len(rights.grants) > self._max_merchants:
            raise InvalidQuery(
                f"expected at most {self._max_merchants} merchants on one connection, got "
                f"{len(rights.grants)}: name fewer by merchant_id, and open another connection",
                reason=RefusalReason.TOO_MANY_MERCHANTS,
            )
        return rights

    def digest(self, rights: Rights) -> str:
        """Return what stands for these rights, in all processes with the same ``digest_key``."""
        return rights.digest(self._digest_key)

    def _anyone(self, _request: Request[Any], requested: Sequence[str]) -> Rights:
        """Let the client listen to the merchants that the query names.

        Raises:
            InvalidMerchantId: the query has no ``merchant_id``, or a malformed one.
        """
        if len(requested) > 1:
            return Rights(tuple(map(Grant, dict.fromkeys(map(parse_merchant_id, requested)))))
        return Rights((Grant(parse_merchant_id(requested[0] if requested else None)),))

    def _by_token(self, request: Request[Any], requested: Sequence[str]) -> Rights:
        """Let the client listen to merchants of its token.

        Raises:
            AmbiguousCredentials: the request carries several tokens, or one place carries two.
            Unauthorized: the token is missing or invalid.
            InvalidMerchantId: the query has a malformed merchant.
            Forbidden: the token is not for a merchant in the query.
        """
        claims = self._tokens.check(self._token(request))
        rest = (
            claims.expires_at,
            None if claims.subject is None else hash_claim(claims.subject),
            None if claims.token_id is None else hash_claim(claims.token_id),
            claims.issued_at,
        )
        chosen = choose_merchants(claims.merchants, requested)
        return Rights(tuple(Grant(each, *rest) for each in chosen), claims.merchants)

    def _token(self, request: Request[Any]) -> str:
        tokens = []
        authorization = request.headers.getlist("authorization")
        if authorization:
            tokens.append(_bearer(authorization, "token", RefusalReason.TOKEN_MISSING))
        if self._cookie is not None:
            tokens += _at_most_one(_cookies(request, self._cookie), "the token's cookie")
        tokens += _at_most_one(request.query_params.getlist("token"), "token in the query")
        if not tokens:
            raise Unauthorized("expected a token: Authorization: Bearer <token>, or ?token=<token>")
        if tokens.count(tokens[0]) != len(tokens):
            raise AmbiguousCredentials("expected one token, got several that differ")
        return tokens[0]

    def _by_header(self, request: Request[Any], requested: Sequence[str]) -> Rights:
        """Let the client listen to merchants that a trusted proxy has named in its header.

        Raises:
            AmbiguousCredentials: the request has the header several times.
            Unauthorized: the header is missing, or the request is not from a trusted proxy.
            InvalidMerchantId: the header, or the query, is malformed.
            Forbidden: the header does not name a merchant in the query.
        """
        if not self.proxies.trusts(request.scope.get("client")):
            raise Unauthorized(
                "expected a request by way of a trusted proxy, got a direct one",
                reason=RefusalReason.PROXY_NOT_TRUSTED,
            )
        values = request.headers.getlist(MERCHANT_HEADER)
        header = _at_most_one(values, f"the header {MERCHANT_HEADER}")
        if not header:
            raise Unauthorized(
                f"expected the proxy to set {MERCHANT_HEADER}, got none",
                reason=RefusalReason.PROXY_NAMES_NOBODY,
            )
        try:
            named = tuple(parse_merchant_id(each.strip(OWS)) for each in header[0].split(","))
        except InvalidMerchantId as exc:
            raise InvalidMerchantId(f"{MERCHANT_HEADER}: {exc}") from exc
        return Rights(tuple(map(Grant, choose_merchants(named, requested))), named)


def _at_most_one(values: list[str], place: str) -> list[str]:
    if len(values) > 1:
        raise AmbiguousCredentials(f"expected {place} once, got {len(values)} times")
    return values


def _cookies(request: Request[Any], name: str) -> list[str]:
    """Return every cookie of this name: a second one may have been set for a parent domain.

    A browser takes ``\\xa0__Host-push`` for another name than ``__Host-push``, and lets a page over
    plain HTTP set it: such a cookie must not be taken for the token's.

    https://www.rfc-editor.org/rfc/rfc6265#section-8.6
    """
    pairs = (
        pair.partition("=")
        for header in request.headers.getlist("cookie")
        for pair in header.split(";")
    )
    return [value.strip(OWS) for key, equals, value in pairs if equals and key.strip(OWS) == name]
