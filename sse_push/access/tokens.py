"""Tokens: which keys check them, what they say, and how one is made for trying out.

Knows JSON Web Tokens and their keys. Does not know how a token reaches us, nor which merchant is
asked for.

https://www.rfc-editor.org/rfc/rfc7519
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from sse_push.access.keys import TokenSecret, require_strong
from sse_push.errors import ConfigError, InvalidMerchantId, Unauthorized
from sse_push.notification import parse_merchant_id

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
TOKEN_BYTES = 4096
"""A longer token is refused unread; a cookie can't be longer either."""

_RSA_BITS_MIN = 2048
_LATEST = 2**53
"""A time beyond this is none: https://www.rfc-editor.org/rfc/rfc7493#section-2.2"""

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_JWK_ALGORITHMS = {
    ("oct", None): "HS256",
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}

_NOT_OURS = "expected a token that is signed with a key of this service"
_EXPECTED = (
    (jwt.InvalidAudienceError, "expected a token for this service, got another aud"),
    (jwt.InvalidIssuerError, "expected a token of this service's issuer, got another iss"),
    (InvalidSubjectError, "expected the claim sub as text"),
    (InvalidJTIError, "expected the claim jti as text"),
)


# -- keys


class TokenKey(NamedTuple):
    """A key that checks signatures, by the one algorithm that is its own."""

    algorithm: str
    key: Any
    kid: str | None = None


def load_keys(
    secrets: Sequence[TokenSecret], path: Path | None, algorithms: Sequence[str]
) -> tuple[TokenKey, ...]:
    """Return the keys of ``token_keys`` and ``token_keys_file`` that may be used.

    A key is used only with the algorithm of its own type, so that a public key, which everybody
    has, is never taken as an HMAC secret.

    Raises:
        ConfigError: which file or setting, and what was expected; never what stands in it.
    """
    found = [_from_secret(each) for each in secrets]
    if path is not None:
        found += _read(path)
    usable = tuple(key for key in found if key.algorithm in algorithms)
    if not usable:
        got = ", ".join(sorted({key.algorithm for key in found})) or "none"
        raise ConfigError(
            f"token_keys, token_keys_file: expected a key for {', '.join(algorithms)} "
            f"(token_algorithms), got keys for: {got}"
        )
    return usable


def _from_secret(each: TokenSecret) -> TokenKey:
    secret = each.secret.get_secret_value().encode("utf-8", "surrogateescape")
    try:
        prepared = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise ConfigError(
            "token_keys: expected HMAC secrets, got a key of another type; "
            "public keys go into a file, token_keys_file"
        ) from None
    return TokenKey("HS256", prepared, each.kid)


def _read(path: Path) -> list[TokenKey]:
    name = f"token_keys_file {path}"
    # Causes are left out below: some hold what stands in the file.
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise ConfigError(f"{name}: expected a file to read, got: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: expected text, got something else") from None
    try:
        if text.lstrip().startswith("{"):
            return list(_from_jwk_set(text))
        return list(_from_pem(text))
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}") from None


def _from_pem(text: str) -> Iterator[TokenKey]:
    blocks = list(_PEM.finditer(text))
    if not blocks:
        raise ValueError("expected a JWK Set (JSON) or public keys (PEM), got neither")
    for number, block in enumerate(blocks, 1):
        if "PRIVATE" in block[1]:
            raise ValueError(f"expected public keys, got a private one, number {number}")
        if not block[1].endswith("PUBLIC KEY"):
            raise ValueError(f"expected PUBLIC KEY, got {block[1][:40]}, number {number}")
        try:
            key = load_pem_public_key(block[0].encode())
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(f"expected a public key, got a broken one, number {number}") from None
        algorithm = _algorithm_of(key)
        if algorithm is None:
            raise ValueError(f"expected RSA, P-256 or Ed25519, got another type, number {number}")
        yield TokenKey(algorithm, key)


def _from_jwk_set(text: str) -> Iterator[TokenKey]:
    """Yield the keys of a JWK Set; those of other types or uses are passed over.

    https://www.rfc-editor.org/rfc/rfc7517#section-5
    """
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, KeyError, RecursionError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('expected a JWK Set, {"keys": […]}, got another JSON, or none')
    for number, key in enumerate(keys, 1):
        algorithm = _algorithm_of_jwk(key)
        if algorithm is not None:
            yield _from_jwk(key, algorithm, number)


def _algorithm_of_jwk(key: Mapping[str, object]) -> str | None:
    kind = (str(key.get("kty")), str(key["crv"]) if "crv" in key else None)
    algorithm = _JWK_ALGORITHMS.get(kind)
    uses = key.get("key_ops")
    is_for_us = (
        key.get("alg") in (None, algorithm)
        and key.get("use") in (None, "sig")
        and (not isinstance(uses, list) or "verify" in uses)
    )
    return algorithm if is_for_us else None


def _from_jwk(key: dict[str, Any], algorithm: str, number: int) -> TokenKey:
    kid = key.get("kid")
    if "d" in key:
        raise ValueError(f"expected public keys, got a private one, number {number}")
    if kid is not None and not isinstance(kid, str):
        raise ValueError(f"expected kid as text, got another type, number {number}")
    try:
        made = jwt.PyJWK(key, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"expected a {key['kty']} key, got a broken one, number {number}"
        ) from None
    if isinstance(made, bytes):
        require_strong(len(made))
    else:
        assert _algorithm_of(made) == algorithm, "its kty and crv have said so"
    return TokenKey(algorithm, made, kid)


def _algorithm_of(key: object) -> str | None:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS_MIN:
            raise ValueError(f"expected RSA of {_RSA_BITS_MIN} bits or more, got {key.key_size}")
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None


# -- checking


class Claims(NamedTuple):
    """What a token says that was signed by one of our keys, and is valid now.

    Times are seconds since 1970.
    """

    merchants: tuple[str, ...]
    expires_at: float
    issued_at: float | None
    subject: str | None
    token_id: str | None


class Tokens:
    """Checks tokens: their signature by our keys, their times by our clock."""

    def __init__(
        self,
        keys: Sequence[TokenKey],
        *,
        audience: str | None,
        issuer: str | None,
        leeway_s: float,
        max_lifetime_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s
        self._max_lifetime_s = max_lifetime_s
        self._wall_clock = wall_clock

    def check(self, text: str) -> Claims:
        """Return what a token says.

        Raises:
            Unauthorized: it says nothing that we may believe. The text names a claim only once the
                signature was right; until then it is the same for every cause but the form.
        """
        if len(text) > TOKEN_BYTES:
            raise Unauthorized.invalid_token(
                f"expected a token of at most {TOKEN_BYTES} bytes, got more"
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
                "expected a token, as in RFC 7519, got another text"
            ) from exc
        keys = [key for key in self._keys if key.algorithm == header.get("alg")]
        named = [key for key in keys if key.kid is not None and key.kid == header.get("kid")]
        for key in named or keys:
            try:
                return self._decode(text, key)
            except jwt.InvalidSignatureError:
                continue  # the next key may be the one
        raise Unauthorized.invalid_token(_NOT_OURS)

    def _decode(self, text: str, key: TokenKey) -> dict[str, Any]:
        try:
            return jwt.decode(
                text,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Ours: PyJWT takes times that are texts, and forgives an exp that is past.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.MissingRequiredClaimError as exc:
            raise Unauthorized.invalid_token(f"expected the claim {exc.claim}, got none") from exc
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            expected = (said for kind, said in _EXPECTED if isinstance(exc, kind))
            raise Unauthorized.invalid_token(next(expected, _NOT_OURS)) from exc

    def _times(self, claims: Mapping[str, object]) -> tuple[float | None, float]:
        """Return ``iat`` and ``exp``; the leeway is for a clock ahead of ours, and not for ``exp``.

        A stream ends at its ``exp`` by our clock; a connection that is ended before it begins
        would only come back.
        """
        now = self._wall_clock()
        expires_at, issued_at = _seconds(claims, "exp"), _seconds(claims, "iat")
        not_before = _seconds(claims, "nbf")
        if expires_at is None:
            raise Unauthorized.invalid_token("expected the claim exp, got none")
        for name, since in (("nbf", not_before), ("iat", issued_at)):
            if since is not None and since > now + self._leeway_s:
                raise Unauthorized.invalid_token(
                    f"expected a token that is valid already, got a later {name}"
                )
        if expires_at <= now:
            raise Unauthorized.invalid_token("expected a token that has not expired")
        is_too_long = expires_at - now > self._max_lifetime_s + self._leeway_s or (
            issued_at is not None and expires_at - issued_at > self._max_lifetime_s
        )
        if is_too_long:
            raise Unauthorized.invalid_token(
                f"expected a token that lives {self._max_lifetime_s:g} s at most, got a longer one"
            )
        return issued_at, expires_at


def _seconds(claims: Mapping[str, object], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # The comparison is exact for an integer of any size, and false for NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise Unauthorized.invalid_token(
            f"expected the claim {name} as a number of seconds since 1970"
        )
    return float(value)


def _merchants(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    try:
        merchants = tuple(dict.fromkeys(parse_merchant_id(each) for each in values))
    except InvalidMerchantId as exc:
        raise Unauthorized.invalid_token(
            "expected the claim merchant_id: a merchant, or a list of them"
        ) from exc
    if not merchants:
        raise Unauthorized.invalid_token(
            "expected the claim merchant_id: a merchant, or a list of them"
        )
    return merchants


# -- making


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
    """Return a token by HS256, valid from now; without ``token_id`` it gets one of its own."""
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
