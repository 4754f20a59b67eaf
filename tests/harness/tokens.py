"""Tokens for tests: valid ones, as a merchant's backend signs them, and invalid ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from sse_push.access.keys import ALGORITHMS, TokenSecret
from sse_push.access.token_keys import TokenKey, load_keys
from sse_push.access.tokens import TokenRules, Tokens

SECRET = "a-secret-of-the-tests-0123456789-abcdef"
NEXT_SECRET = "another-secret-of-the-tests-9876543210-f"
STRANGE_SECRET = "a-secret-of-another-service-0123456789-ab"
AUDIENCE = "push.test"
ISSUER = "https://shop.test"

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


@cache
def private_key(kind: str) -> PrivateKey:
    """Return the one private key of this kind, whose public half a service may have."""
    if kind.startswith("RS"):
        return rsa.generate_private_key(65537, 1024 if kind == "RS-weak" else 2048)
    if kind.startswith("ES"):
        return ec.generate_private_key(ec.SECP384R1() if kind == "ES384" else ec.SECP256R1())
    return (
        ed448.Ed448PrivateKey.generate()
        if kind == "Ed448"
        else ed25519.Ed25519PrivateKey.generate()
    )


def public_pem(kind: str) -> str:
    return (
        private_key(kind)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def private_pem(kind: str) -> str:
    return (
        private_key(kind)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def public_jwk(kind: str, **more: object) -> dict[str, Any]:
    name = {"RS": "RS256", "ES": "ES256", "Ed": "EdDSA"}[kind[:2]]
    if kind == "ES384":
        name = "ES384"
    algorithm = jwt.get_algorithm_by_name(name)
    made: dict[str, Any] = algorithm.to_jwk(private_key(kind).public_key(), as_dict=True)
    return {**made, **more}


def jwk_set(path: Path, *keys: Mapping[str, object]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path


def claims_of(
    merchant_id: object = "42", expires_in_s: float = 60, **more: object
) -> dict[str, Any]:
    """Return valid claims; a claim of ``...`` is left out."""
    claims = {
        "merchant_id": merchant_id,
        "exp": int(time.time() + expires_in_s),
        "aud": AUDIENCE,
        "iss": ISSUER,
        **more,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def token_of(
    merchant_id: object = "42",
    *,
    algorithm: str = "HS256",
    key: Any = SECRET,
    headers: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    return jwt.encode(claims_of(merchant_id, **claims), key, algorithm, headers=headers)


def checker_of(
    *secrets: str,
    keys: Sequence[TokenKey] = (),
    audience: str | None = None,
    issuer: str | None = None,
    leeway_s: float = 5,
    wall_clock: Callable[[], float] = time.time,
) -> Tokens:
    """Return a checker of tokens with these secrets, in the form of the setting, and these keys."""
    parsed = [TokenSecret.parse(text) for text in secrets]
    rules = TokenRules(
        keys=(*(load_keys(parsed, None, ALGORITHMS) if secrets else ()), *keys),
        audience=audience,
        issuer=issuer,
        leeway_s=leeway_s,
        max_lifetime_s=3600,
    )
    return Tokens(rules, wall_clock=wall_clock)


def part(value: object) -> str:
    """Return one part of a token, from JSON text, bytes, or a value to encode."""
    if not isinstance(value, bytes):
        value = (value if isinstance(value, str) else json.dumps(value)).encode()
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def raw_token(header: object, payload: object, key: str | bytes = SECRET) -> str:
    """Sign any two parts with HMAC-SHA-256."""
    text = f"{part(header)}.{part(payload)}"
    secret = key.encode() if isinstance(key, str) else key
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def raw_payload(**claims: str) -> str:
    """Return valid claims as JSON text; given claims replace them as they are."""
    good = {name: json.dumps(value) for name, value in claims_of().items()}
    return "{" + ",".join(f'"{name}":{text}' for name, text in {**good, **claims}.items()) + "}"
