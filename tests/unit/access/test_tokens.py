"""Keys and claims; what is refused over HTTP is in ``tests/integration/test_auth.py``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest

from sse_push.access.keys import TokenSecret
from sse_push.access.tokens import (
    ALGORITHMS,
    TOKEN_BYTES,
    Claims,
    TokenKey,
    Tokens,
    load_keys,
    sign,
)
from sse_push.errors import ConfigError, Unauthorized
from tests.harness.tokens import (
    AUDIENCE,
    ISSUER,
    NEXT_SECRET,
    SECRET,
    jwk_set,
    private_key,
    private_pem,
    public_jwk,
    public_pem,
    token_of,
)

NOW = 1_800_000_000
ALL = tuple(ALGORITHMS)


def tokens_of(
    *secrets: str,
    keys: Sequence[TokenKey] = (),
    audience: str | None = None,
    issuer: str | None = None,
    leeway_s: float = 5,
    now: float = NOW,
) -> Tokens:
    secret_keys = load_keys([TokenSecret.parse(each) for each in secrets], None, ALL)
    return Tokens(
        (*secret_keys, *keys),
        audience=audience,
        issuer=issuer,
        leeway_s=leeway_s,
        max_lifetime_s=3600,
        wall_clock=lambda: now,
    )


def signed(**claims: Any) -> str:
    return token_of(**{"exp": NOW + 60, "aud": ..., "iss": ..., **claims})


def refusal(tokens: Tokens, text: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        tokens.check(text)
    assert caught.value.challenge == 'Bearer error="invalid_token"'
    return str(caught.value)


# -- claims


def test_a_token_says_whom_its_owner_may_listen_to_and_until_when() -> None:
    text = signed(merchant_id=[42, "a.b", "42"], iat=NOW - 5.5, nbf=NOW, sub="u", jti="t")

    assert tokens_of(SECRET).check(text) == Claims(("42", "a.b"), NOW + 60, NOW - 5.5, "u", "t")
    assert tokens_of(SECRET).check(signed()) == Claims(("42",), NOW + 60, None, None, None)


@pytest.mark.parametrize(
    ("exp", "is_good"),
    [(NOW, False), (NOW + 0.25, True), (NOW - 1, False), (NOW + 3605, True), (NOW + 3606, False)],
)
def test_exp_is_never_forgiven_and_never_far(exp: float, *, is_good: bool) -> None:
    if is_good:
        assert tokens_of(SECRET).check(signed(exp=exp)).expires_at == exp
    else:
        assert refusal(tokens_of(SECRET), signed(exp=exp)).startswith("expected a token that ")


@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize(("leeway_s", "is_good"), [(0, False), (4.9, False), (5, True)])
def test_the_leeway_is_for_a_clock_ahead_of_ours(
    name: str, leeway_s: float, *, is_good: bool
) -> None:
    tokens = tokens_of(SECRET, leeway_s=leeway_s)
    text = signed(**{name: NOW + 5})

    if is_good:
        assert tokens.check(text).merchants == ("42",)
    else:
        assert (
            refusal(tokens, text) == f"expected a token that is valid already, got a later {name}"
        )


@pytest.mark.parametrize(("lifetime_s", "is_good"), [(3600, True), (3600.5, False)])
def test_a_life_is_measured_from_iat(lifetime_s: float, *, is_good: bool) -> None:
    text = signed(exp=NOW + 60, iat=NOW + 60 - lifetime_s)

    if is_good:
        tokens_of(SECRET).check(text)
    else:
        assert refusal(tokens_of(SECRET), text) == (
            "expected a token that lives 3600 s at most, got a longer one"
        )


def test_a_token_with_aud_is_not_for_a_service_without() -> None:
    """RFC 7519: whoever does not find itself in aud must refuse the token."""
    assert refusal(tokens_of(SECRET), signed(aud="other")) == (
        "expected a token for this service, got another aud"
    )
    tokens_of(SECRET, audience=AUDIENCE).check(signed(aud=["other", AUDIENCE]))
    tokens_of(SECRET).check(signed(iss="anyone"))
    tokens_of(SECRET, issuer=ISSUER).check(signed(iss=ISSUER))


def test_a_token_may_be_as_long_as_the_limit() -> None:
    text = signed(more="x" * 2900)
    assert len(text) <= TOKEN_BYTES

    tokens_of(SECRET).check(text)
    assert refusal(tokens_of(SECRET), text + "x" * TOKEN_BYTES) == (
        "expected a token of at most 4096 bytes, got more"
    )


@pytest.mark.parametrize("text", ["\udcff.\udcff.\udcff", "a.b.c\ud800"])
def test_half_a_surrogate_is_no_token(text: str) -> None:
    assert refusal(tokens_of(SECRET), text).startswith("expected a token, as in RFC 7519")


# -- which key


def test_a_kid_that_is_known_decides() -> None:
    tokens = tokens_of(f"old={SECRET}", f"new={NEXT_SECRET}")

    for kid, secret in (("old", SECRET), ("new", NEXT_SECRET), ("other", NEXT_SECRET)):
        tokens.check(signed(key=secret, headers={"kid": kid}))
    assert refusal(tokens, signed(key=SECRET, headers={"kid": "new"})).endswith("of this service")


def test_a_key_is_used_with_the_algorithm_of_its_type_only() -> None:
    """Also where its own code would take it: an RSA key checks PS256 as well."""
    keys = [TokenKey("RS256", private_key("RS256").public_key())]
    tokens = Tokens(
        keys, audience=None, issuer=None, leeway_s=0, max_lifetime_s=3600, wall_clock=lambda: NOW
    )

    tokens.check(signed(algorithm="RS256", key=private_key("RS256")))
    for algorithm in ("RS512", "PS256"):
        assert refusal(tokens, signed(algorithm=algorithm, key=private_key("RS256"))).endswith(
            "of this service"
        )


# -- the keys of a file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def error_of(path: Path, algorithms: Sequence[str] = ALL) -> str:
    with pytest.raises(ConfigError) as caught:
        load_keys([], path, algorithms)
    text = str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value.__cause__)
    return text.replace(str(path), "FILE")


def test_public_keys_stand_one_after_the_other(path: Path) -> None:
    path.write_text(
        f"ours\n{public_pem('RS256')}\n# old\n{public_pem('ES256')}{public_pem('EdDSA')}"
    )

    keys = load_keys([], path, ALL)

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

    keys = load_keys([], path, ALL)

    assert [(key.algorithm, key.kid) for key in keys] == [
        ("RS256", "a"),
        ("ES256", "b"),
        ("EdDSA", None),
        ("HS256", "d"),
    ]
    assert keys[3].key == b"secret-secret-secret-secret-secret"


def test_keys_for_something_else_are_passed_over(path: Path) -> None:
    """RFC 7517: what is not understood, or of another use, is ignored."""
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

    assert [key.kid for key in load_keys([], path, ALL)] == ["good"]


def test_only_keys_of_an_allowed_algorithm_are_used(path: Path) -> None:
    path.write_text(public_pem("RS256") + public_pem("ES256"))

    keys = load_keys([TokenSecret.parse(SECRET)], path, ["ES256"])

    assert [key.algorithm for key in keys] == ["ES256"]
    assert error_of(path, ["HS256", "EdDSA"]) == (
        "token_keys, token_keys_file: expected a key for HS256, EdDSA (token_algorithms), "
        "got keys for: ES256, RS256"
    )


def jwks_text(*keys: object) -> Callable[[], str]:
    return lambda: json.dumps({"keys": keys})


def jwk_text(kind: str, **more: object) -> Callable[[], str]:
    return lambda: json.dumps({"keys": [public_jwk(kind, **more)]})


BROKEN: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "expected a JWK Set (JSON) or public keys (PEM), got neither"),
    "a secret": (lambda: SECRET, "expected a JWK Set (JSON) or public keys (PEM), got neither"),
    "half a PEM": (
        lambda: public_pem("ES256")[:-20],
        "expected a JWK Set (JSON) or public keys (PEM), got neither",
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
        "each HMAC secret needs at least 32 bytes, one has 6; `openssl rand -hex 32` makes "
        "a good one",
    ),
    "an empty secret": (
        jwks_text({"kty": "oct", "k": ""}),
        "expected a oct key, got a broken one, number 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_of_no_keys_is_refused_by_its_name_and_not_shown(path: Path, name: str) -> None:
    make, said = BROKEN[name]
    path.write_text(make())

    error = error_of(path)

    assert error == (said if said.startswith("token_keys") else f"token_keys_file FILE: {said}")


def test_a_file_that_is_no_file_is_refused_by_its_name(path: Path) -> None:
    assert error_of(path) == (
        "token_keys_file FILE: expected a file to read, got: No such file or directory"
    )
    path.mkdir()
    assert error_of(path) == "token_keys_file FILE: expected a file to read, got: Is a directory"
    path.rmdir()
    path.write_bytes(b"\xff\xfe" * 40)
    assert error_of(path) == "token_keys_file FILE: expected text, got something else"


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_a_public_key_is_no_secret(kind: str) -> None:
    secret = TokenSecret.parse(public_pem(kind))

    with pytest.raises(ConfigError, match=r"^token_keys: expected HMAC secrets, got a key of"):
        load_keys([secret], None, ALL)


# -- making


def test_a_token_that_is_made_is_one() -> None:
    secret = TokenSecret.parse(f"kid={SECRET}")
    made = sign(secret, ["42", "43"], lifetime_s=60, audience=AUDIENCE, issuer=ISSUER)
    one = sign(TokenSecret.parse(SECRET), ["42"], lifetime_s=60, subject="u", token_id="t")

    many = jwt.decode(made, SECRET, ["HS256"], audience=AUDIENCE, issuer=ISSUER)
    claims = jwt.decode(one, SECRET, ["HS256"])

    assert jwt.get_unverified_header(made)["kid"] == "kid"
    assert "kid" not in jwt.get_unverified_header(one)
    assert many["merchant_id"] == ["42", "43"]
    assert len(many["jti"]) == 36
    assert claims == {
        "merchant_id": "42",
        "iat": claims["iat"],
        "exp": claims["iat"] + 60,
        "jti": "t",
        "sub": "u",
    }
    assert not math.isclose(claims["iat"], 0)
