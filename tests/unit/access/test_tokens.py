"""Valid and invalid claims; HTTP answers are in ``tests/integration/access/test_tokens.py``."""

from __future__ import annotations

import math
from typing import Any

import jwt
import pytest

from sse_push.access.keys import TokenSecret
from sse_push.access.token_keys import TokenKey
from sse_push.access.tokens import TOKEN_BYTES, Claims, Tokens, sign
from sse_push.errors import Unauthorized
from tests.harness.tokens import (
    AUDIENCE,
    ISSUER,
    NEXT_SECRET,
    SECRET,
    checker_of,
    private_key,
    token_of,
)

NOW = 1_800_000_000


def tokens_of(*secrets: str, **rules: Any) -> Tokens:
    return checker_of(*secrets, **rules, wall_clock=lambda: NOW)


def signed(**claims: Any) -> str:
    return token_of(**{"exp": NOW + 60, "aud": ..., "iss": ..., **claims})


def refusal(tokens: Tokens, text: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        tokens.check(text)
    assert caught.value.challenge == 'Bearer error="invalid_token"'
    return str(caught.value)


# -- claims


def test_the_claims_of_a_valid_token_are_returned() -> None:
    text = signed(merchant_id=[42, "a.b", "42"], iat=NOW - 5.5, nbf=NOW, sub="u", jti="t")

    assert tokens_of(SECRET).check(text) == Claims(("42", "a.b"), NOW + 60, NOW - 5.5, "u", "t")
    assert tokens_of(SECRET).check(signed()) == Claims(("42",), NOW + 60, None, None, None)


@pytest.mark.parametrize(
    ("exp", "is_good"),
    [(NOW, False), (NOW + 0.25, True), (NOW - 1, False), (NOW + 3605, True), (NOW + 3606, False)],
)
def test_exp_has_no_leeway_and_a_greatest_distance(exp: float, *, is_good: bool) -> None:
    if is_good:
        assert tokens_of(SECRET).check(signed(exp=exp)).expires_at == exp
    else:
        assert refusal(tokens_of(SECRET), signed(exp=exp)).startswith("expected a token that ")


@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize(("leeway_s", "is_good"), [(0, False), (4.9, False), (5, True)])
def test_the_leeway_is_for_iat_and_nbf_of_a_clock_ahead_of_ours(
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
def test_a_lifetime_is_measured_from_iat(lifetime_s: float, *, is_good: bool) -> None:
    text = signed(exp=NOW + 60, iat=NOW + 60 - lifetime_s)

    if is_good:
        tokens_of(SECRET).check(text)
    else:
        assert refusal(tokens_of(SECRET), text) == (
            "expected a token that lives 3600 s at most, got a longer one"
        )


def test_a_token_with_aud_is_refused_by_a_service_without_audience() -> None:
    """RFC 7519: a service that aud does not name must refuse the token."""
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
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    assert refusal(tokens_of(SECRET), text).startswith("expected a token, as in RFC 7519")


# -- which key


def test_a_known_kid_decides_which_key_is_tried() -> None:
    tokens = tokens_of(f"old={SECRET}", f"new={NEXT_SECRET}")

    for kid, secret in (("old", SECRET), ("new", NEXT_SECRET), ("other", NEXT_SECRET)):
        tokens.check(signed(key=secret, headers={"kid": kid}))
    assert refusal(tokens, signed(key=SECRET, headers={"kid": "new"})).endswith("of this service")


def test_a_key_is_used_with_the_algorithm_of_its_type_only() -> None:
    """Though the library could do more: an RSA key also checks PS256."""
    tokens = tokens_of(keys=[TokenKey("RS256", private_key("RS256").public_key())])

    tokens.check(signed(algorithm="RS256", key=private_key("RS256")))
    for algorithm in ("RS512", "PS256"):
        assert refusal(tokens, signed(algorithm=algorithm, key=private_key("RS256"))).endswith(
            "of this service"
        )


# -- signing


def test_a_signed_token_is_valid() -> None:
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
