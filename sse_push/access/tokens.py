"""Tokens: what a valid one contains, and how one is signed for trying out.

Knows JSON Web Tokens. Does not know how a token reaches the service, nor which merchant is asked
for.

https://www.rfc-editor.org/rfc/rfc7519
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from sse_push.access.keys import TokenSecret
from sse_push.access.token_keys import TokenKey
from sse_push.errors import InvalidMerchantId, RefusalReason, Unauthorized
from sse_push.notification import parse_merchant_id

TOKEN_BYTES = 4096
"""A longer token is refused unread; a cookie can't be longer either."""

_LATEST = 2**53
"""Larger numbers are not valid times: https://www.rfc-editor.org/rfc/rfc7493#section-2.2"""

_UNKNOWN_KEY = "expected a token that is signed with a key of this service"
_EXPECTED: Sequence[tuple[type[Exception], str, RefusalReason]] = (
    (
        jwt.InvalidAudienceError,
        "expected a token for this service, got another aud",
        RefusalReason.TOKEN_AUDIENCE,
    ),
    (
        jwt.InvalidIssuerError,
        "expected a token of this service's issuer, got another iss",
        RefusalReason.TOKEN_ISSUER,
    ),
    (InvalidSubjectError, "expected the claim sub as text", RefusalReason.TOKEN_CLAIMS),
    (InvalidJTIError, "expected the claim jti as text", RefusalReason.TOKEN_CLAIMS),
    (Exception, _UNKNOWN_KEY, RefusalReason.TOKEN_UNVERIFIED),
)
_REASON_OF_CLAIM = {"aud": RefusalReason.TOKEN_AUDIENCE, "iss": RefusalReason.TOKEN_ISSUER}


# -- checking


@dataclass(frozen=True, slots=True)
class TokenRules:
    """The keys that may have signed a token, and what else makes it valid.

    Without ``audience`` a token must have no ``aud``; without ``issuer`` its ``iss`` may be any.
    ``leeway_s``: how far ``iat`` and ``nbf`` may be ahead of our clock.
    """

    keys: Sequence[TokenKey]
    audience: str | None
    issuer: str | None
    leeway_s: float
    max_lifetime_s: float


class Claims(NamedTuple):
    """The claims of a token that a key of ours has signed and that is valid now.

    Times are seconds since 1970.
    """

    merchants: tuple[str, ...]
    expires_at: float
    issued_at: float | None
    subject: str | None
    token_id: str | None


class Tokens:
    """Checks tokens: their signatures by our keys, their times by our clock."""

    def __init__(self, rules: TokenRules, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._wall_clock = wall_clock

    def check(self, text: str) -> Claims:
        """Return the claims of a valid token.

        Raises:
            Unauthorized: the token is malformed or invalid. The text names a claim only after the
                signature was verified; before, every wrong key or signature has the same text.
        """
        if len(text) > TOKEN_BYTES:
            raise Unauthorized.invalid_token(
                f"expected a token of at most {TOKEN_BYTES} bytes, got more",
                RefusalReason.TOKEN_MALFORMED,
            )
        claims = self._verified(text)
        issued_at, expires_at = self._times(claims)
        return Claims(
            _merchants(claims.get("merchant_id")),
            expires_at,
            issued_at,
            cast("str | None", claims.get("sub")),
            cast("str | None", claims.get("jti")),
        )

    def _verified(self, text: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(text)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            raise Unauthorized.invalid_token(
                "expected a token, as in RFC 7519, got another text", RefusalReason.TOKEN_MALFORMED
            ) from exc
        keys = [key for key in self._rules.keys if key.algorithm == header.get("alg")]
        named = [key for key in keys if key.kid is not None and key.kid == header.get("kid")]
        for key in named or keys:
            try:
                return self._decode(text, key)
            except jwt.InvalidSignatureError:
                continue  # the token may be signed with the next key
        raise Unauthorized.invalid_token(_UNKNOWN_KEY, RefusalReason.TOKEN_UNVERIFIED)

    def _decode(self, text: str, key: TokenKey) -> dict[str, Any]:
        try:
            return jwt.decode(
                text,
                key.key,
                algorithms=[key.algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                # Checked by `_times`: PyJWT accepts times that are texts, and a past exp by leeway.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.MissingRequiredClaimError as exc:
            raise Unauthorized.invalid_token(
                f"expected the claim {exc.claim}, got none",
                _REASON_OF_CLAIM.get(exc.claim, RefusalReason.TOKEN_CLAIMS),
            ) from exc
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            whys = ((words, reason) for kind, words, reason in _EXPECTED if isinstance(exc, kind))
            raise Unauthorized.invalid_token(*next(whys)) from exc

    def _times(self, claims: Mapping[str, object]) -> tuple[float | None, float]:
        """Return ``iat`` and ``exp``; the leeway is for ``iat`` and ``nbf``, and not for ``exp``.

        A connection ends at ``exp`` by our clock. With a leeway for ``exp``, an expired token would
        open connections that end at once, again and again.
        """
        now = self._wall_clock()
        expires_at, issued_at = _time_claim(claims, "exp"), _time_claim(claims, "iat")
        not_before = _time_claim(claims, "nbf")
        if expires_at is None:
            raise Unauthorized.invalid_token(
                "expected the claim exp, got none", RefusalReason.TOKEN_CLAIMS
            )
        rules = self._rules
        for name, since in (("nbf", not_before), ("iat", issued_at)):
            if since is not None and since > now + rules.leeway_s:
                raise Unauthorized.invalid_token(
                    f"expected a token that is valid already, got a later {name}",
                    RefusalReason.TOKEN_TOO_EARLY,
                )
        if expires_at <= now:
            raise Unauthorized.invalid_token(
                "expected a token that has not expired", RefusalReason.TOKEN_EXPIRED
            )
        is_too_long = expires_at - now > rules.max_lifetime_s + rules.leeway_s or (
            issued_at is not None and expires_at - issued_at > rules.max_lifetime_s
        )
        if is_too_long:
            raise Unauthorized.invalid_token(
                f"expected a token that lives {rules.max_lifetime_s:g} s at most, got a longer one",
                RefusalReason.TOKEN_LIFETIME,
            )
        return issued_at, expires_at


def _time_claim(claims: Mapping[str, object], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # The comparison is exact for an integer of any size, and false for NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise Unauthorized.invalid_token(
            f"expected the claim {name} as a number of seconds since 1970",
            RefusalReason.TOKEN_CLAIMS,
        )
    return float(value)


def _merchants(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    try:
        merchants = tuple(dict.fromkeys(parse_merchant_id(each) for each in values))
    except InvalidMerchantId as exc:
        raise Unauthorized.invalid_token(
            "expected the claim merchant_id: a merchant, or a list of them",
            RefusalReason.TOKEN_CLAIMS,
        ) from exc
    if not merchants:
        raise Unauthorized.invalid_token(
            "expected the claim merchant_id: a merchant, or a list of them",
            RefusalReason.TOKEN_CLAIMS,
        )
    return merchants


# -- signing


def sign(
    secret: TokenSecret,
    merchants: Sequence[str],
    *,
    lifetime_s: float,
    subject: str | None = None,
    token_id: str | None = None,
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """Return a token signed with HS256 and valid from now; its ``jti`` is random by default."""
    now = int(time.time())
    claims: dict[str, object] = {
        "merchant_id": merchants[0] if len(merchants) == 1 else list(merchants),
        "iat": now,
        "exp": now + int(lifetime_s),
        "jti": token_id or str(uuid.uuid4()),
        "sub": subject,
        "aud": audience,
        "iss": issuer,
    }
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        secret.secret.get_secret_value().encode("utf-8", "surrogateescape"),
        "HS256",
        headers=None if secret.kid is None else {"kid": secret.kid},
    )
