"""The keys that check tokens: read from settings and from a file, each tied to one algorithm.

Knows JWK Sets, PEM, and which key is good enough. Does not know what a token is.

https://www.rfc-editor.org/rfc/rfc7517
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sse_push.access.keys import Algorithm, TokenSecret, require_strong
from sse_push.errors import ConfigError

_RSA_BITS_MIN = 2048
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_JWK_ALGORITHMS: dict[tuple[str, str | None], Algorithm] = {
    ("oct", None): "HS256",
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}


class TokenKey(NamedTuple):
    """A key that checks signatures, by one algorithm only: that of the key's type."""

    algorithm: Algorithm
    key: Any
    kid: str | None = None


def load_keys(
    secrets: Sequence[TokenSecret], path: Path | None, algorithms: Sequence[str]
) -> tuple[TokenKey, ...]:
    """Return the keys of ``token_keys`` and ``token_keys_file`` that may be used.

    A key is used only with the algorithm of its own type, so that a public key, which everybody
    has, is never used as an HMAC secret.

    Raises:
        ConfigError: a file or a key is unusable, or no key is left. The text names the file or the
            setting and never repeats a part of a key.
    """
    found = [_from_secret(secret) for secret in secrets]
    if path is not None:
        found += _from_file(path)
    usable = tuple(key for key in found if key.algorithm in algorithms)
    if not usable:
        got = ", ".join(sorted({key.algorithm for key in found})) or "none"
        raise ConfigError(
            f"token_keys, token_keys_file: expected a key for {', '.join(algorithms)} "
            f"(token_algorithms), got keys for: {got}"
        )
    return usable


def _from_secret(configured: TokenSecret) -> TokenKey:
    secret = configured.secret.get_secret_value().encode("utf-8", "surrogateescape")
    try:
        prepared = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise ConfigError(
            "token_keys: expected HMAC secrets, got a key of another type; "
            "public keys go into a file, token_keys_file"
        ) from None
    return TokenKey("HS256", prepared, configured.kid)


def _from_file(path: Path) -> list[TokenKey]:
    name = f"token_keys_file {path}"
    # `from None`: some causes hold a part of the file.
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
        raise ValueError(
            "expected a JWK Set (JSON) or public keys (PEM), got neither; a file of HMAC secrets "
            "is SSE_PUSH_TOKEN_SECRETS_FILE"
        )
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
    """Yield the keys of a JWK Set; keys of other types or for other uses are ignored.

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


def _algorithm_of_jwk(key: Mapping[str, object]) -> Algorithm | None:
    kind = (str(key.get("kty")), str(key["crv"]) if "crv" in key else None)
    algorithm = _JWK_ALGORITHMS.get(kind)
    uses = key.get("key_ops")
    checks_signatures = (
        key.get("alg") in (None, algorithm)
        and key.get("use") in (None, "sig")
        and (not isinstance(uses, list) or "verify" in uses)
    )
    return algorithm if checks_signatures else None


def _from_jwk(key: dict[str, Any], algorithm: Algorithm, number: int) -> TokenKey:
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
        assert _algorithm_of(made) == algorithm, "kty and crv decide the key's type"
    return TokenKey(algorithm, made, kid)


def _algorithm_of(key: object) -> Algorithm | None:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS_MIN:
            raise ValueError(f"expected RSA of {_RSA_BITS_MIN} bits or more, got {key.key_size}")
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
