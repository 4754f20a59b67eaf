from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sse_push.access.keys import ALGORITHMS, TokenSecret
from sse_push.access.token_keys import load_keys
from sse_push.errors import ConfigError
from tests.harness.tokens import (
    NEXT_SECRET,
    SECRET,
    jwk_set,
    private_pem,
    public_jwk,
    public_pem,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def error_of(path: Path, algorithms: Sequence[str] = ALGORITHMS) -> str:
    with pytest.raises(ConfigError) as caught:
        load_keys([], path, algorithms)
    text = str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value.__cause__)
    return text.replace(str(path), "FILE")


def test_a_file_may_have_several_public_keys(path: Path) -> None:
    path.write_text(
        f"ours\n{public_pem('RS256')}\n# old\n{public_pem('ES256')}{public_pem('EdDSA')}"
    )

    keys = load_keys([], path, ALGORITHMS)

    assert [(key.algorithm, key.kid) for key in keys] == [
        ("RS256", None),
        ("ES256", None),
        ("EdDSA", None),
    ]


def test_a_jwk_set_has_keys_with_their_kid(path: Path) -> None:
    oct_key = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    jwk_set(
        path,
        public_jwk("RS256", kid="a", alg="RS256", use="sig", key_ops=["verify"]),
        public_jwk("ES256", kid="b"),
        public_jwk("EdDSA"),
        {**oct_key, "kid": "d"},
    )

    keys = load_keys([], path, ALGORITHMS)

    assert [(key.algorithm, key.kid) for key in keys] == [
        ("RS256", "a"),
        ("ES256", "b"),
        ("EdDSA", None),
        ("HS256", "d"),
    ]
    assert keys[3].key == b"secret-secret-secret-secret-secret"


def test_keys_for_other_uses_are_ignored(path: Path) -> None:
    """RFC 7517: keys of unknown types or for other uses are ignored."""
    jwk_set(
        path,
        public_jwk("RS256", kid="good"),
        public_jwk("RS256", alg="RSA-OAEP"),
        public_jwk("RS256", alg="RS512"),
        public_jwk("RS256", use="enc"),
        public_jwk("RS256", key_ops=["encrypt"]),
        public_jwk("ES384"),
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kty": "future"},
        {},
        {"kty": ["RSA"], "crv": {}},
    )

    assert [key.kid for key in load_keys([], path, ALGORITHMS)] == ["good"]


def test_only_keys_of_an_allowed_algorithm_are_used(path: Path) -> None:
    path.write_text(public_pem("RS256") + public_pem("ES256"))

    keys = load_keys([TokenSecret.parse(SECRET)], path, ["ES256"])

    assert [key.algorithm for key in keys] == ["ES256"]
    assert error_of(path, ["HS256", "EdDSA"]) == (
        "token_keys, token_keys_file: expected a key for HS256, EdDSA (token_algorithms), "
        "got keys for: ES256, RS256"
    )


def test_keys_of_settings_and_of_a_file_are_used_together(path: Path) -> None:
    jwk_set(path, public_jwk("RS256", kid="rsa"))
    secrets = [TokenSecret.parse(text) for text in (SECRET, f"next={NEXT_SECRET}")]

    keys = load_keys(secrets, path, ["HS256", "RS256"])

    assert [(key.algorithm, key.kid) for key in keys] == [
        ("HS256", None),
        ("HS256", "next"),
        ("RS256", "rsa"),
    ]


def jwks_text(*keys: object) -> Callable[[], str]:
    return lambda: json.dumps({"keys": keys})


def jwk_text(kind: str, **more: object) -> Callable[[], str]:
    return lambda: json.dumps({"keys": [public_jwk(kind, **more)]})


NEITHER = (
    "expected a JWK Set (JSON) or public keys (PEM), got neither; a file of HMAC secrets is "
    "SSE_PUSH_TOKEN_SECRETS_FILE"
)

BROKEN: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", NEITHER),
    "a secret": (lambda: SECRET, NEITHER),
    "half a PEM": (
        lambda: public_pem("ES256")[:-20],
        NEITHER,
    ),
    "a private key": (
        lambda: public_pem("ES256") + private_pem("ES256"),
        "expected public keys, got a private one, number 2",
    ),
    "a certificate": (
        lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "expected PUBLIC KEY, got CERTIFICATE, number 1",
    ),
    "a broken PEM": (
        lambda: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "expected a public key, got a broken one, number 1",
    ),
    "another curve": (
        lambda: public_pem("ES384"),
        "expected RSA, P-256 or Ed25519, got another type, number 1",
    ),
    "Ed448": (
        lambda: public_pem("Ed448"),
        "expected RSA, P-256 or Ed25519, got another type, number 1",
    ),
    "weak RSA": (
        lambda: public_pem("RS-weak"),
        "expected RSA of 2048 bits or more, got 1024",
    ),
    "weak RSA in a set": (
        jwk_text("RS-weak"),
        "expected RSA of 2048 bits or more, got 1024",
    ),
    "no JSON": (lambda: "{", 'expected a JWK Set, {"keys": […]}, got another JSON, or none'),
    "deep JSON": (
        lambda: '{"keys":' + "[" * 100_000,
        'expected a JWK Set, {"keys": […]}, got another JSON, or none',
    ),
    "one JWK": (
        lambda: json.dumps(public_jwk("ES256")),
        'expected a JWK Set, {"keys": […]}, got another JSON, or none',
    ),
    "keys that are none": (
        jwks_text("a", "b"),
        'expected a JWK Set, {"keys": […]}, got another JSON, or none',
    ),
    "no keys": (
        jwks_text(),
        "token_keys, token_keys_file: expected a key for HS256, RS256, ES256, EdDSA "
        "(token_algorithms), got keys for: none",
    ),
    "a private JWK": (
        jwk_text("ES256", d="AAAA"),
        "expected public keys, got a private one, number 1",
    ),
    "a kid that is a number": (
        jwk_text("ES256", kid=5),
        "expected kid as text, got another type, number 1",
    ),
    "a broken RSA key": (
        jwk_text("RS256", n="!"),
        "expected a RSA key, got a broken one, number 1",
    ),
    "an RSA key without e": (
        jwks_text({"kty": "RSA", "n": "AQAB"}),
        "expected a RSA key, got a broken one, number 1",
    ),
    "an EC key that is off its curve": (
        jwk_text("ES256", x="A" * 43),
        "expected a EC key, got a broken one, number 1",
    ),
    "an EC key of numbers": (
        jwk_text("ES256", x=5),
        "expected a EC key, got a broken one, number 1",
    ),
    "a short Ed25519 key": (
        jwk_text("EdDSA", x="AAAA"),
        "expected a OKP key, got a broken one, number 1",
    ),
    "a weak secret": (
        jwks_text({"kty": "oct", "k": "c2VjcmV0"}),
        "expected HMAC secrets of at least 32 bytes, got one of 6; `openssl rand -hex 32` makes a "
        "good secret",
    ),
    "an empty secret": (
        jwks_text({"kty": "oct", "k": ""}),
        "expected a oct key, got a broken one, number 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_and_its_content_is_not_shown(path: Path, name: str) -> None:
    make, text = BROKEN[name]
    path.write_text(make())

    error = error_of(path)

    assert error == (text if text.startswith("token_keys") else f"token_keys_file FILE: {text}")


def test_an_unreadable_file_is_named(path: Path) -> None:
    assert error_of(path) == (
        "token_keys_file FILE: expected a file to read, got: No such file or directory"
    )
    path.mkdir()
    assert error_of(path) == "token_keys_file FILE: expected a file to read, got: Is a directory"
    path.rmdir()
    path.write_bytes(b"\xff\xfe" * 40)
    assert error_of(path) == "token_keys_file FILE: expected text, got something else"


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_a_public_key_is_not_accepted_as_a_secret(kind: str) -> None:
    secret = TokenSecret.parse(public_pem(kind))

    with pytest.raises(ConfigError, match=r"^token_keys: expected HMAC secrets, got a key of"):
        load_keys([secret], None, ALGORITHMS)
