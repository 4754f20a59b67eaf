"""Tokens over HTTP: every form that is accepted, and every form that is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
import jwt
import pytest

from tests.harness.access import APP, COOKIE, refused, status_of
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.tokens import (
    AUDIENCE,
    NEXT_SECRET,
    SECRET,
    STRANGE_SECRET,
    claims_of,
    part,
    private_key,
    public_jwk,
    public_pem,
    raw_payload,
    raw_token,
    token_of,
)

INVALID = 'Bearer error="invalid_token"'

UNKNOWN_KEY = "expected a token that is signed with a key of this service"
MALFORMED = "expected a token, as in RFC 7519, got another text"
NO_CLAIM = "expected the claim {}, got none"
NO_NUMBER = "expected the claim {} as a number of seconds since 1970"
NO_MERCHANT = "expected the claim merchant_id: a merchant, or a list of them"
EXPIRED = "expected a token that has not expired"
TOO_LONG = "expected a token that lives 3600 s at most, got a longer one"

HS256 = {"alg": "HS256", "typ": "JWT"}


# -- accepted tokens


SIGNED: dict[str, Callable[[], str]] = {
    "HS256": token_of,
    "HS256 by the other secret": lambda: token_of(key=NEXT_SECRET),
    "HS256 with kid": lambda: token_of(key=NEXT_SECRET, headers={"kid": "new"}),
    "HS256 with an unknown kid": lambda: token_of(key=SECRET, headers={"kid": "x"}),
    "RS256": lambda: token_of(algorithm="RS256", key=private_key("RS256")),
    "RS256 with kid": lambda: token_of(
        algorithm="RS256", key=private_key("RS256"), headers={"kid": "rsa"}
    ),
    "ES256": lambda: token_of(algorithm="ES256", key=private_key("ES256")),
    "EdDSA": lambda: token_of(algorithm="EdDSA", key=private_key("EdDSA")),
    "an integer, as PHP has it": lambda: token_of(42),
    "a list": lambda: token_of(["41", 42]),
    "a list of one": lambda: token_of([42]),
    "several audiences": lambda: token_of(aud=["other.test", AUDIENCE]),
    "exp with a fraction": lambda: token_of(exp=time.time() + 60.5),
    "all claims": lambda: token_of(
        sub="user-1", jti="token-1", iat=int(time.time()), nbf=int(time.time())
    ),
    "iat of a clock that is ahead": lambda: token_of(iat=int(time.time()) + 3),
    "nbf of a clock that is ahead": lambda: token_of(nbf=int(time.time()) + 3),
    "the longest lifetime": lambda: token_of(expires_in_s=3600),
}


@pytest.mark.parametrize("name", SIGNED)
async def test_a_valid_token_opens_a_stream(guarded: Service, name: str) -> None:
    token = SIGNED[name]()

    async with open_stream(guarded.url, query=f"merchant_id=42&token={token}") as stream:
        ready = await stream.next("ready")

    assert stream.status == 200
    assert '"merchant_id":"42"' in ready.data


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_may_be_in_the_header(client: httpx2.AsyncClient, scheme: str) -> None:
    assert await status_of(client, Authorization=f"{scheme} {token_of()}") == 200


@pytest.mark.parametrize(
    "cookies", [f"{COOKIE}={{}}", f"a=b; {COOKIE}={{}};c=d", f"{COOKIE}x=y;  {COOKIE}={{}}", "x;{}"]
)
async def test_a_token_may_be_in_a_cookie(client: httpx2.AsyncClient, cookies: str) -> None:
    exists = f"{COOKIE}=" in cookies

    status = await status_of(client, Cookie=cookies.format(token_of()))

    assert status == (200 if exists else 401)


async def test_the_same_token_may_be_in_several_places(client: httpx2.AsyncClient) -> None:
    token = token_of()

    status = await status_of(
        client, f"token={token}", Authorization=f"Bearer {token}", Cookie=f"{COOKIE}={token}"
    )

    assert status == 200


async def test_a_token_for_one_merchant_needs_no_merchant_in_the_url(guarded: Service) -> None:
    async with open_stream(guarded.url, query=f"token={token_of('one')}") as stream:
        ready = await stream.next("ready")

    assert '"merchant_id":"one"' in ready.data


async def test_a_notification_arrives_at_a_client_with_a_token(
    guarded: Service, merchant: str
) -> None:
    publisher = Publisher(guarded.url)
    async with open_stream(guarded.url, query=f"token={token_of(merchant)}") as stream:
        await stream.next("refresh")
        entry_id = await publisher.notify(merchant)
        event = await stream.next("refresh", 2)
    await publisher.close()

    assert event.id == f"{merchant}@{entry_id}"


# -- refused tokens


def twisted(text: str) -> str:
    """Return a token with another signature, of the same form."""
    head, _, signature = text.rpartition(".")
    return f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def stretched(text: str) -> str:
    """Return a token whose claims were changed after it was signed."""
    head, _, signature = text.split(".")
    return f"{head}.{part(claims_of('43'))}.{signature}"


ODD: dict[str, tuple[Callable[[], str], str]] = {
    # malformed
    "empty": (lambda: "", MALFORMED),
    "one word": (lambda: "hello", MALFORMED),
    "two parts": (lambda: token_of().rpartition(".")[0], MALFORMED),
    "four parts": (lambda: f"{token_of()}.{part('{}')}", MALFORMED),
    "only dots": (lambda: "..", MALFORMED),
    "another alphabet": (lambda: "äöü.äöü.äöü", MALFORMED),
    "a space within": (lambda: token_of().replace(".", ". ", 1), MALFORMED),
    "a NUL within": (lambda: f"{token_of()}\0", MALFORMED),
    "a line end within": (lambda: f"{token_of()}\r\nX: 1", MALFORMED),
    "half a byte": (lambda: f"{token_of()}A=", MALFORMED),
    "a header that is no JSON": (lambda: raw_token("{", claims_of()), MALFORMED),
    "a header that is a list": (lambda: raw_token([HS256], claims_of()), MALFORMED),
    "a header that is deep": (lambda: raw_token("[" * 1500, claims_of()), MALFORMED),
    "a header of no UTF-8": (lambda: raw_token(b'{"alg":"\xff"}', claims_of()), MALFORMED),
    "a kid that is a number": (lambda: raw_token({**HS256, "kid": 1}, claims_of()), MALFORMED),
    "an unknown critical header": (
        lambda: raw_token({**HS256, "crit": ["x"], "x": 1}, claims_of()),
        MALFORMED,
    ),
    # no signature by a key of the service
    "alg none": (lambda: jwt.encode(claims_of(), "", "none"), UNKNOWN_KEY),
    "alg None": (lambda: f"{part({'alg': 'None'})}.{part(claims_of())}.", UNKNOWN_KEY),
    "no alg": (lambda: raw_token({}, claims_of()), UNKNOWN_KEY),
    "alg null": (lambda: raw_token({"alg": None}, claims_of()), UNKNOWN_KEY),
    "alg that is a list": (lambda: raw_token({"alg": ["HS256"]}, claims_of()), UNKNOWN_KEY),
    "alg in lower case": (lambda: raw_token({"alg": "hs256"}, claims_of()), UNKNOWN_KEY),
    "an algorithm that is not allowed": (
        lambda: token_of(algorithm="HS384", key=SECRET + SECRET),
        UNKNOWN_KEY,
    ),
    "another algorithm of the same key": (
        lambda: token_of(algorithm="PS256", key=private_key("RS256")),
        UNKNOWN_KEY,
    ),
    "a public key as a secret": (
        lambda: raw_token(HS256, claims_of(), public_pem("RS256")),
        UNKNOWN_KEY,
    ),
    "HMAC under the name of RSA": (lambda: raw_token({"alg": "RS256"}, claims_of()), UNKNOWN_KEY),
    "a detached payload": (
        lambda: raw_token({**HS256, "b64": False, "crit": ["b64"]}, b""),
        UNKNOWN_KEY,
    ),
    "another secret": (lambda: token_of(key=STRANGE_SECRET), UNKNOWN_KEY),
    "another secret than kid says": (
        lambda: token_of(key=SECRET, headers={"kid": "new"}),
        UNKNOWN_KEY,
    ),
    "another RSA key": (
        lambda: token_of(algorithm="RS256", key=private_key("RS-strange")),
        UNKNOWN_KEY,
    ),
    "another curve point": (
        lambda: token_of(algorithm="ES256", key=private_key("ES-strange")),
        UNKNOWN_KEY,
    ),
    "another Ed25519 key": (
        lambda: token_of(algorithm="EdDSA", key=private_key("Ed-strange")),
        UNKNOWN_KEY,
    ),
    "another signature": (lambda: twisted(token_of()), UNKNOWN_KEY),
    "no signature": (lambda: token_of().rpartition(".")[0] + ".", UNKNOWN_KEY),
    "claims of another token": (lambda: stretched(token_of()), UNKNOWN_KEY),
    "a key of its own within": (
        lambda: token_of(
            algorithm="RS256",
            key=private_key("RS-strange"),
            headers={"jwk": public_jwk("RS-strange"), "jku": "http://127.0.0.1:1/keys"},
        ),
        UNKNOWN_KEY,
    ),
    "claims that are no JSON": (lambda: raw_token(HS256, "{"), UNKNOWN_KEY),
    "claims that are a list": (lambda: raw_token(HS256, [claims_of()]), UNKNOWN_KEY),
    "claims that are deep": (lambda: raw_token(HS256, "[" * 1500), UNKNOWN_KEY),
    # wrong times
    "expired": (lambda: token_of(expires_in_s=-1), EXPIRED),
    "expired within the leeway": (lambda: token_of(exp=time.time() - 0.01), EXPIRED),
    "exp of 1970": (lambda: token_of(exp=0), EXPIRED),
    "no exp": (lambda: token_of(exp=...), NO_CLAIM.format("exp")),
    "exp null": (lambda: token_of(exp=None), NO_CLAIM.format("exp")),
    "exp as text": (lambda: token_of(exp=str(int(time.time()) + 60)), NO_NUMBER.format("exp")),
    "exp as a list": (lambda: token_of(exp=[1]), NO_NUMBER.format("exp")),
    "exp true": (lambda: token_of(exp=True), NO_NUMBER.format("exp")),
    "exp below zero": (lambda: token_of(exp=-1), NO_NUMBER.format("exp")),
    "exp huge": (lambda: token_of(exp=10**300), NO_NUMBER.format("exp")),
    "exp beyond a float": (lambda: token_of(exp=10**400), NO_NUMBER.format("exp")),
    "exp infinite": (
        lambda: raw_token(HS256, raw_payload(exp="Infinity")),
        NO_NUMBER.format("exp"),
    ),
    "exp overflowing": (
        lambda: raw_token(HS256, raw_payload(exp="1e999")),
        NO_NUMBER.format("exp"),
    ),
    "exp no number": (lambda: raw_token(HS256, raw_payload(exp="NaN")), NO_NUMBER.format("exp")),
    "not yet valid": (
        lambda: token_of(nbf=int(time.time()) + 30),
        "expected a token that is valid already, got a later nbf",
    ),
    "issued later": (
        lambda: token_of(iat=int(time.time()) + 30),
        "expected a token that is valid already, got a later iat",
    ),
    "nbf as text": (lambda: token_of(nbf="1"), NO_NUMBER.format("nbf")),
    "iat as an object": (lambda: token_of(iat={}), NO_NUMBER.format("iat")),
    "too long a lifetime": (lambda: token_of(expires_in_s=3700), TOO_LONG),
    "too long a lifetime since iat": (
        lambda: token_of(expires_in_s=60, iat=int(time.time()) - 3600),
        TOO_LONG,
    ),
    # for another service
    "no aud": (lambda: token_of(aud=...), NO_CLAIM.format("aud")),
    "another aud": (
        lambda: token_of(aud="other.test"),
        "expected a token for this service, got another aud",
    ),
    "aud as a number": (
        lambda: token_of(aud=5),
        "expected a token for this service, got another aud",
    ),
    "no iss": (lambda: token_of(iss=...), NO_CLAIM.format("iss")),
    "another iss": (
        lambda: raw_token(HS256, raw_payload(iss='"https://other.test"')),
        "expected a token of this service's issuer, got another iss",
    ),
    "iss as a number": (
        lambda: raw_token(HS256, raw_payload(iss="5")),
        "expected a token of this service's issuer, got another iss",
    ),
    "sub as a number": (
        lambda: raw_token(HS256, raw_payload(sub="5")),
        "expected the claim sub as text",
    ),
    "jti as a number": (
        lambda: raw_token(HS256, raw_payload(jti="5")),
        "expected the claim jti as text",
    ),
    # no valid merchant
    "no merchant_id": (lambda: token_of(...), NO_MERCHANT),
    "merchant_id null": (lambda: token_of(None), NO_MERCHANT),
    "an empty list": (lambda: token_of([]), NO_MERCHANT),
    "a list in a list": (lambda: token_of([["42"]]), NO_MERCHANT),
    "a list with null": (lambda: token_of(["42", None]), NO_MERCHANT),
    "a wildcard": (lambda: token_of("*"), NO_MERCHANT),
    "an empty text": (lambda: token_of(""), NO_MERCHANT),
    "a line end": (lambda: token_of("42\n"), NO_MERCHANT),
    "a float": (lambda: token_of(42.0), NO_MERCHANT),
    "true": (lambda: token_of(merchant_id=True), NO_MERCHANT),
    "an object": (lambda: token_of({"42": 1}), NO_MERCHANT),
    "over 64 characters": (lambda: token_of("x" * 65), NO_MERCHANT),
    # size
    "over 4 KB": (
        lambda: token_of(more="x" * 4096),
        "expected a token of at most 4096 bytes, got more",
    ),
    "16 KB": (lambda: "x" * 16_000, "expected a token of at most 4096 bytes, got more"),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_invalid_token_is_refused_with_the_reason(
    client: httpx2.AsyncClient, name: str
) -> None:
    make, detail = ODD[name]
    token = make()

    answer = await client.get("/events", params={"merchant_id": "42", "token": token})

    assert refused(answer) == (401, "unauthorized", detail)
    assert answer.headers["www-authenticate"] == INVALID
    assert len(token) < 8 or token not in answer.text


async def test_the_error_without_a_token_names_the_places_for_one(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/events?merchant_id=42")

    assert refused(answer) == (
        401,
        "unauthorized",
        "expected a token: Authorization: Bearer <token>, or ?token=<token>",
    )
    assert answer.headers["www-authenticate"] == "Bearer"  # RFC 6750: no error code without a token


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer:x", ""])
async def test_another_scheme_is_refused(client: httpx2.AsyncClient, authorization: str) -> None:
    answer = await client.get("/events", headers={"Authorization": authorization})

    assert refused(answer) == (
        401,
        "unauthorized",
        "expected the header Authorization: Bearer <token>",
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [("token={}", 200), ("", 401), ("token=x", 401), ("token={}&merchant_id=43", 403)],
)
async def test_head_shows_the_status_that_an_event_source_hides(
    client: httpx2.AsyncClient, query: str, status: int
) -> None:
    answer = await client.head(f"/events?{query.format(token_of())}", headers={"Origin": APP})

    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers["access-control-allow-origin"] == APP


async def test_a_notify_key_is_no_token(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/events?merchant_id=42", headers={"Authorization": f"Bearer {KEY}"})

    assert refused(answer) == (401, "unauthorized", MALFORMED)


async def test_a_token_is_no_notify_key(client: httpx2.AsyncClient) -> None:
    answer = await client.post(
        "/notify", json={"merchant_id": "42"}, headers={"Authorization": f"Bearer {token_of()}"}
    )

    assert refused(answer)[:2] == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("merchants", ["43", 43, ["43"], ["43", "44"], ["4", "422"]])
@pytest.mark.parametrize("exists", [False, True])
async def test_another_merchant_is_forbidden_whether_it_exists_or_not(
    redis: Redis, client: httpx2.AsyncClient, merchants: object, *, exists: bool
) -> None:
    merchant = "42"
    if exists:
        redis.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", "seats")
    else:
        redis.cli("DEL", f"sse_push:{{{merchant}}}")

    answer = await client.get(f"/events?merchant_id={merchant}&token={token_of(merchants)}")

    assert refused(answer) == (
        403,
        "forbidden",
        "expected a merchant that you may listen to, got '42'",
    )


async def test_a_malformed_merchant_in_the_url_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/events", params={"merchant_id": "4 2", "token": token_of()})

    assert refused(answer)[:2] == (400, "malformed")


@pytest.mark.parametrize(
    ("query", "headers", "detail"),
    [
        (
            "token={0}&token={0}",
            [],
            "expected token in the query once, got 2 times",
        ),
        (
            "token={0}",
            [("Authorization", "Bearer {1}")],
            "expected one token, got several that differ",
        ),
        ("token={0}", [("Cookie", COOKIE + "={1}")], "expected one token, got several that differ"),
        (
            "",
            [("Authorization", "Bearer {0}"), ("Cookie", COOKIE + "={1}")],
            "expected one token, got several that differ",
        ),
        (
            "token=",
            [("Authorization", "Bearer {0}")],
            "expected one token, got several that differ",
        ),
        (
            "",
            [("Authorization", "Bearer {0}"), ("Authorization", "Bearer {0}")],
            "expected the header Authorization once, got several",
        ),
        (
            "",
            [("Cookie", COOKIE + "={0}; " + COOKIE + "={0}")],
            "expected the token's cookie once, got 2 times",
        ),
        (
            "",
            [("Cookie", COOKIE + "={0}"), ("Cookie", COOKIE + "={1}")],
            "expected the token's cookie once, got 2 times",
        ),
        (
            "token={0}&merchant_id=42&grant=1&grant=1",
            [],
            "grant: expected once in the query, got 2 times",
        ),
    ],
)
async def test_credentials_that_are_repeated_or_differ_are_malformed(
    client: httpx2.AsyncClient, query: str, headers: list[tuple[str, str]], detail: str
) -> None:
    tokens = token_of(), token_of(["42", "43"])

    answer = await client.get(
        f"/events?{query.format(*tokens)}",
        headers=[(name, value.format(*tokens)) for name, value in headers],
    )

    assert refused(answer) == (400, "malformed", detail)


def test_the_table_of_invalid_tokens_has_every_kind_of_refusal() -> None:
    """A row that is deleted by mistake makes this test fail."""
    details: set[Any] = {detail for _, detail in ODD.values()}

    assert len(ODD) >= 36
    assert {UNKNOWN_KEY, MALFORMED, EXPIRED, TOO_LONG, NO_MERCHANT} <= details
