"""Who may listen, and who may notify: every way in, and every way that is none, over HTTP."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.harness.nginx import Nginx, recording, yes
from tests.harness.processes import workers_of
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.tokens import (
    AUDIENCE,
    ISSUER,
    NEXT_SECRET,
    SECRET,
    STRANGE_SECRET,
    claims_of,
    jwk_set,
    part,
    private_key,
    public_jwk,
    public_pem,
    raw_payload,
    raw_token,
    token_of,
)
from tests.harness.waiting import LATE_S, SECOND, until, wait_for
from tests.integration.test_app import serving_here

LIMITED_KEY = "a-key-for-some-0123456789"
COOKIE = "__Host-push"
INVALID = 'Bearer error="invalid_token"'

NOT_OURS = "expected a token that is signed with a key of this service"
NO_TOKEN = "expected a token, as in RFC 7519, got another text"
NO_CLAIM = "expected the claim {}, got none"
NO_NUMBER = "expected the claim {} as a number of seconds since 1970"
NO_MERCHANT = "expected the claim merchant_id: a merchant, or a list of them"
EXPIRED = "expected a token that has not expired"
TOO_LONG = "expected a token that lives 3600 s at most, got a longer one"

HS256 = {"alg": "HS256", "typ": "JWT"}


@pytest.fixture(scope="module")
def guarded(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that asks for tokens, of every kind that it knows."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = jwk_set(
        folder / "keys.json",
        public_jwk("RS256", kid="rsa"),
        public_jwk("ES256"),
        public_jwk("EdDSA"),
    )
    with serving(
        folder,
        redis.url,
        *("--subscribe-auth", "token"),
        *("--notify-keys", f"{KEY},{LIMITED_KEY} 42 shop-*"),
        heartbeat_s=1,
        refresh_interval_ms=1,
        drain_s=1,
        token_keys=f"old={SECRET}, new={NEXT_SECRET}",
        token_keys_file=keys,
        token_algorithms="HS256,RS256,ES256,EdDSA",
        token_audience=AUDIENCE,
        token_issuer=ISSUER,
        token_cookie=COOKIE,
        token_expiring_s=1,
        allowed_origins="https://app.test, http://localhost:5173",
    ) as started:
        yield started
    assert not re.search(r"eyJ|secret", started.log)


class Client(httpx.AsyncClient):
    """A client that waits for no stream's end: whoever is let in by mistake is not kept."""

    async def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        async with asyncio.timeout(3 * SECOND):
            return await super().request(*arguments, **options)


@pytest.fixture
async def client(guarded: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with Client(base_url=guarded.url, timeout=5 * SECOND) as made:
        yield made


async def status_of(client: httpx.AsyncClient, query: str = "", **headers: str) -> int:
    """Return how a stream is answered, without waiting for its end."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", f"/events?{query}", headers=named) as answer:
        return answer.status_code


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert body.keys() == {"error", "detail"}
    return answer.status_code, body["error"], body["detail"]


# -- tokens that let in


SIGNED: dict[str, Callable[[], str]] = {
    "HS256": token_of,
    "HS256 by the other secret": lambda: token_of(key=NEXT_SECRET),
    "HS256 with kid": lambda: token_of(key=NEXT_SECRET, headers={"kid": "new"}),
    "HS256 with a kid that nobody knows": lambda: token_of(key=SECRET, headers={"kid": "x"}),
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
    "iat of a clock ahead of ours": lambda: token_of(iat=int(time.time()) + 3),
    "nbf of a clock ahead of ours": lambda: token_of(nbf=int(time.time()) + 3),
    "the longest life": lambda: token_of(expires_in_s=3600),
}


@pytest.mark.parametrize("name", SIGNED)
async def test_a_token_of_ours_lets_in(guarded: Service, name: str) -> None:
    token = SIGNED[name]()

    async with open_stream(guarded.url, query=f"merchant_id=42&token={token}") as stream:
        ready = await stream.next("ready")

    assert stream.status == 200
    assert '"merchant_id":"42"' in ready.data


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_comes_in_the_header(client: httpx.AsyncClient, scheme: str) -> None:
    assert await status_of(client, Authorization=f"{scheme} {token_of()}") == 200


@pytest.mark.parametrize(
    "cookies", [f"{COOKIE}={{}}", f"a=b; {COOKIE}={{}};c=d", f"{COOKIE}x=y;  {COOKIE}={{}}", "x;{}"]
)
async def test_a_token_comes_in_a_cookie(client: httpx.AsyncClient, cookies: str) -> None:
    is_there = f"{COOKIE}=" in cookies

    status = await status_of(client, Cookie=cookies.format(token_of()))

    assert status == (200 if is_there else 401)


async def test_the_same_token_may_come_by_several_ways(client: httpx.AsyncClient) -> None:
    token = token_of()

    status = await status_of(
        client, f"token={token}", Authorization=f"Bearer {token}", Cookie=f"{COOKIE}={token}"
    )

    assert status == 200


async def test_with_one_merchant_in_the_token_the_url_needs_none(guarded: Service) -> None:
    async with open_stream(guarded.url, query=f"token={token_of('one')}") as stream:
        ready = await stream.next("ready")

    assert '"merchant_id":"one"' in ready.data


async def test_with_several_in_the_token_the_url_needs_one(client: httpx.AsyncClient) -> None:
    token = token_of(["42", "43"])

    answer = await client.get(f"/events?token={token}")

    status, error, detail = refused(answer)
    assert (status, error) == (400, "malformed")
    assert detail.startswith("merchant_id: expected 1 to 64 characters")
    assert await status_of(client, f"token={token}&merchant_id=43") == 200


async def test_what_is_notified_arrives_at_whom_a_token_has_let_in(
    guarded: Service, merchant: str
) -> None:
    publisher = Publisher(guarded.url)
    async with open_stream(guarded.url, query=f"token={token_of(merchant)}") as stream:
        await stream.next("refresh")
        entry_id = await publisher.notify(merchant)
        told = await stream.next("refresh", 2)
    await publisher.close()

    assert told.id == entry_id


# -- tokens that don't


def twisted(text: str) -> str:
    """Return a token with another signature, of the same form."""
    head, _, signature = text.rpartition(".")
    return f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def stretched(text: str) -> str:
    """Return a token whose claims were changed after it was signed."""
    head, _, signature = text.split(".")
    return f"{head}.{part(claims_of('43'))}.{signature}"


ODD: dict[str, tuple[Callable[[], str], str]] = {
    # no token
    "empty": (lambda: "", NO_TOKEN),
    "one word": (lambda: "hello", NO_TOKEN),
    "two parts": (lambda: token_of().rpartition(".")[0], NO_TOKEN),
    "four parts": (lambda: f"{token_of()}.{part('{}')}", NO_TOKEN),
    "only dots": (lambda: "..", NO_TOKEN),
    "another alphabet": (lambda: "äöü.äöü.äöü", NO_TOKEN),
    "a space within": (lambda: token_of().replace(".", ". ", 1), NO_TOKEN),
    "a NUL within": (lambda: f"{token_of()}\0", NO_TOKEN),
    "a line end within": (lambda: f"{token_of()}\r\nX: 1", NO_TOKEN),
    "half a byte": (lambda: f"{token_of()}A=", NO_TOKEN),
    "a header that is no JSON": (lambda: raw_token("{", claims_of()), NO_TOKEN),
    "a header that is a list": (lambda: raw_token([HS256], claims_of()), NO_TOKEN),
    "a header that is deep": (lambda: raw_token("[" * 1500, claims_of()), NO_TOKEN),
    "a header of no UTF-8": (lambda: raw_token(b'{"alg":"\xff"}', claims_of()), NO_TOKEN),
    "a kid that is a number": (lambda: raw_token({**HS256, "kid": 1}, claims_of()), NO_TOKEN),
    "what we don't understand": (
        lambda: raw_token({**HS256, "crit": ["x"], "x": 1}, claims_of()),
        NO_TOKEN,
    ),
    # no signature of ours
    "alg none": (lambda: jwt.encode(claims_of(), "", "none"), NOT_OURS),
    "alg None": (lambda: f"{part({'alg': 'None'})}.{part(claims_of())}.", NOT_OURS),
    "no alg": (lambda: raw_token({}, claims_of()), NOT_OURS),
    "alg null": (lambda: raw_token({"alg": None}, claims_of()), NOT_OURS),
    "alg that is a list": (lambda: raw_token({"alg": ["HS256"]}, claims_of()), NOT_OURS),
    "alg in lower case": (lambda: raw_token({"alg": "hs256"}, claims_of()), NOT_OURS),
    "an algorithm that is not allowed": (
        lambda: token_of(algorithm="HS384", key=SECRET + SECRET),
        NOT_OURS,
    ),
    "another algorithm of the same key": (
        lambda: token_of(algorithm="PS256", key=private_key("RS256")),
        NOT_OURS,
    ),
    "a public key as a secret": (
        lambda: raw_token(HS256, claims_of(), public_pem("RS256")),
        NOT_OURS,
    ),
    "HMAC under the name of RSA": (lambda: raw_token({"alg": "RS256"}, claims_of()), NOT_OURS),
    "a detached payload": (
        lambda: raw_token({**HS256, "b64": False, "crit": ["b64"]}, b""),
        NOT_OURS,
    ),
    "another secret": (lambda: token_of(key=STRANGE_SECRET), NOT_OURS),
    "another secret than kid says": (
        lambda: token_of(key=SECRET, headers={"kid": "new"}),
        NOT_OURS,
    ),
    "another RSA key": (
        lambda: token_of(algorithm="RS256", key=private_key("RS-strange")),
        NOT_OURS,
    ),
    "another curve point": (
        lambda: token_of(algorithm="ES256", key=private_key("ES-strange")),
        NOT_OURS,
    ),
    "another Ed25519 key": (
        lambda: token_of(algorithm="EdDSA", key=private_key("Ed-strange")),
        NOT_OURS,
    ),
    "another signature": (lambda: twisted(token_of()), NOT_OURS),
    "no signature": (lambda: token_of().rpartition(".")[0] + ".", NOT_OURS),
    "claims of another token": (lambda: stretched(token_of()), NOT_OURS),
    "a key of its own within": (
        lambda: token_of(
            algorithm="RS256",
            key=private_key("RS-strange"),
            headers={"jwk": public_jwk("RS-strange"), "jku": "http://127.0.0.1:1/keys"},
        ),
        NOT_OURS,
    ),
    "claims that are no JSON": (lambda: raw_token(HS256, "{"), NOT_OURS),
    "claims that are a list": (lambda: raw_token(HS256, [claims_of()]), NOT_OURS),
    "claims that are deep": (lambda: raw_token(HS256, "[" * 1500), NOT_OURS),
    # no time of ours
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
    "too long a life": (lambda: token_of(expires_in_s=3700), TOO_LONG),
    "too long a life since iat": (
        lambda: token_of(expires_in_s=60, iat=int(time.time()) - 3600),
        TOO_LONG,
    ),
    # not for this service
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
    # no merchant
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
async def test_an_odd_token_lets_nobody_in(client: httpx.AsyncClient, name: str) -> None:
    make, detail = ODD[name]
    token = make()

    answer = await client.get("/events", params={"merchant_id": "42", "token": token})

    assert refused(answer) == (401, "unauthorized", detail)
    assert answer.headers["www-authenticate"] == INVALID
    assert len(token) < 8 or token not in answer.text


async def test_without_a_token_the_answer_says_how_one_comes(client: httpx.AsyncClient) -> None:
    answer = await client.get("/events?merchant_id=42")

    assert refused(answer) == (
        401,
        "unauthorized",
        "expected a token: Authorization: Bearer <token>, or ?token=<token>",
    )
    assert answer.headers["www-authenticate"] == "Bearer"  # RFC 6750: no error, since none came


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer:x", ""])
async def test_another_scheme_is_no_token(client: httpx.AsyncClient, authorization: str) -> None:
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
async def test_head_tells_the_status_that_an_event_source_hides(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    answer = await client.head(f"/events?{query.format(token_of())}", headers={"Origin": APP})

    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers["access-control-allow-origin"] == APP


async def test_a_key_to_notify_with_is_no_token(client: httpx.AsyncClient) -> None:
    answer = await client.get("/events?merchant_id=42", headers={"Authorization": f"Bearer {KEY}"})

    assert refused(answer) == (401, "unauthorized", NO_TOKEN)


async def test_a_token_is_no_key_to_notify_with(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/notify", json={"merchant_id": "42"}, headers={"Authorization": f"Bearer {token_of()}"}
    )

    assert refused(answer)[:2] == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("merchants", ["43", 43, ["43"], ["43", "44"], ["4", "422"]])
@pytest.mark.parametrize("is_there", [False, True])
async def test_another_merchant_is_forbidden_whether_there_is_one_or_not(
    redis: Redis, client: httpx.AsyncClient, merchants: object, *, is_there: bool
) -> None:
    merchant = "42"
    if is_there:
        redis.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", "seats")
    else:
        redis.cli("DEL", f"sse_push:{{{merchant}}}")

    answer = await client.get(f"/events?merchant_id={merchant}&token={token_of(merchants)}")

    assert refused(answer) == (
        403,
        "forbidden",
        "expected a merchant that you may listen to, got '42'",
    )


async def test_a_merchant_in_the_url_that_is_none_is_malformed(client: httpx.AsyncClient) -> None:
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
            "token={0}&merchant_id=42&merchant_id=42",
            [],
            "merchant_id: expected once in the query, got 2 times",
        ),
    ],
)
async def test_what_comes_twice_or_disagrees_is_malformed(
    client: httpx.AsyncClient, query: str, headers: list[tuple[str, str]], detail: str
) -> None:
    tokens = token_of(), token_of(["42", "43"])

    answer = await client.get(
        f"/events?{query.format(*tokens)}",
        headers=[(name, value.format(*tokens)) for name, value in headers],
    )

    assert refused(answer) == (400, "malformed", detail)


# -- a token that expires on a live stream


async def test_a_stream_is_told_of_its_tokens_end_and_ends_in_time(
    guarded: Service, client: httpx.AsyncClient, merchant: str
) -> None:
    publisher = Publisher(guarded.url)
    await publisher.notify(merchant)
    expires_at = int(time.time() + 2 + SECOND)
    token = token_of(merchant, exp=expires_at)

    async with open_stream(guarded.url, query=f"token={token}") as stream:
        await stream.next("refresh")
        await publisher.notify(merchant, topic="before")
        await stream.next("refresh", 2)
        expiring = await stream.next("expiring", seconds=10 * SECOND)
        told_before_s = expires_at - time.time()
        goodbye = await stream.next("goodbye")
        await stream.wait_complete()
        ended_before_s = expires_at - time.time()
        await until(lambda: time.time() > expires_at, "the expiry")
        await publisher.notify(merchant, topic="after")
        again = await client.get(f"/events?token={token}")
    await publisher.close()

    assert b'event: expiring\ndata: {"expires_in_s":1}\n\n' in stream.body
    assert re.search(
        rb'\n\nretry: \d+\nevent: goodbye\ndata: {"reason":"token_expired"}\n\n$', stream.body
    )
    assert expiring.id == goodbye.id  # neither stands for a change
    assert 0.7 - LATE_S <= told_before_s <= 1.5
    assert -LATE_S <= ended_before_s <= 0.5
    assert [b"before" in stream.body, b"after" in stream.body] == [True, False]
    assert refused(again) == (401, "unauthorized", EXPIRED)


async def test_a_token_of_a_moment_ends_its_stream_with_a_goodbye(
    guarded: Service, merchant: str
) -> None:
    expires_at = time.time() + 0.3 * SECOND

    async with open_stream(
        guarded.url, query=f"token={token_of(merchant, exp=expires_at)}"
    ) as stream:
        await stream.next("goodbye")
        await stream.wait_complete()
        is_in_time = time.time() <= expires_at + LATE_S

    assert is_in_time
    assert stream.events[0].type == "ready"


async def test_a_client_that_takes_no_bytes_is_cut_off_when_its_token_expires(
    guarded: Service, merchant: str
) -> None:
    """Not a goodbye waits for it: whatever it reads later was written before."""
    publisher = Publisher(guarded.url)
    expires_at = int(time.time() + 2 + SECOND)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)  # noqa: FBT003 (the standard library's)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", guarded.port))
    request = f"GET /events?token={token_of(merchant, exp=expires_at)} HTTP/1.1\r\nHost: t\r\n\r\n"
    await loop.sock_sendall(sock, request.encode())
    while time.time() < expires_at - 0.5:
        await publisher.notify(merchant, data="x" * 8000)
    await publisher.close()
    await until(lambda: time.time() > expires_at + 0.1 * SECOND, "the expiry")

    received = b""
    async with asyncio.timeout(5 * SECOND):
        try:
            while chunk := await loop.sock_recv(sock, 65_536):
                received += chunk
        except ConnectionResetError:
            pass
    sock.close()

    assert received.startswith(b"HTTP/1.1 200")
    assert b"goodbye" not in received
    assert not received.endswith(b"0\r\n\r\n")


async def test_under_another_server_a_stream_ends_in_time_as_well(
    redis: Redis, tmp_path: Path, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """There it is written the portable way."""
    token_keys = {"subscribe_auth": "token", "token_keys": SECRET, "token_expiring_s": 1}
    async with serving_here(redis.url, tmp_path, http="h11", **token_keys) as url:
        expires_at = int(time.time() + 2 + SECOND)
        token = token_of(merchant, exp=expires_at, aud=..., iss=...)
        async with open_stream(url, query=f"token={token}") as stream:
            await stream.next("refresh")
            await stream.next("expiring", seconds=10 * SECOND)
            await stream.next("goodbye")
            await stream.wait_complete()
            ended_before_s = expires_at - time.time()

    assert -LATE_S <= ended_before_s <= 0.5
    assert b'event: expiring\ndata: {"expires_in_s":1}\n\n' in stream.body
    assert stream.body.endswith(b'data: {"reason":"token_expired"}\n\n')
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# -- keys for some merchants


@pytest.mark.parametrize("merchant_id", ["42", 42, "shop-1", "shop-"])
async def test_a_key_notifies_its_merchants(guarded: Service, merchant_id: object) -> None:
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(json={"merchant_id": merchant_id})
    await backend.close()

    assert answer.status_code == 200


@pytest.mark.parametrize("merchant_id", ["43", 421, "4", "shop", "Shop-1", "a-shop-1"])
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_key_does_not_notify_another_merchant_whether_there_is_one_or_not(
    redis: Redis, guarded: Service, merchant_id: object, *, is_there: bool
) -> None:
    key = f"sse_push:{{{merchant_id}}}"
    redis.cli("DEL", key)
    if is_there:
        redis.cli("XADD", key, "*", "topic", "seats")
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(json={"merchant_id": merchant_id})
    await backend.close()

    assert refused(answer) == (
        403,
        "forbidden",
        f"expected a key that may notify '{merchant_id}', got another one",
    )
    assert redis.cli("XLEN", key) == str(int(is_there))
    assert LIMITED_KEY not in answer.text


async def test_in_an_array_each_item_is_for_itself(redis: Redis, guarded: Service) -> None:
    redis.cli("DEL", "sse_push:{43}")
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(
        json=[{"merchant_id": "42"}, {"merchant_id": "43"}, {}, {"merchant_id": "shop-2"}]
    )
    await backend.close()

    first, second, third, fourth = answer.json()
    assert answer.status_code == 200
    assert [*first, *fourth] == ["id", "id"]
    assert second == {
        "error": "forbidden",
        "detail": "expected a key that may notify '43', got another one",
    }
    assert third["error"] == "malformed"
    assert redis.cli("XLEN", "sse_push:{43}") == "0"


async def test_a_key_that_comes_twice_is_malformed(client: httpx.AsyncClient) -> None:
    headers = [("Authorization", f"Bearer {KEY}")] * 2

    answer = await client.post("/notify", json={"merchant_id": "42"}, headers=headers)

    assert refused(answer) == (
        400,
        "malformed",
        "expected the header Authorization once, got several",
    )


# -- pages of other origins


APP = "https://app.test"


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_page_of_an_allowed_origin_listens_and_may_read(
    guarded: Service, origin: str, site: dict[str, str]
) -> None:
    async with open_stream(
        guarded.url, query=f"token={token_of()}", headers={"Origin": origin, **site}
    ) as stream:
        await stream.next("ready")

    assert stream.status == 200
    assert stream.headers["access-control-allow-origin"] == origin
    assert stream.headers["access-control-allow-credentials"] == "true"
    assert stream.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), ("token=x", 401), ("merchant_id=43&token={}", 403), ("token={0}&token={0}", 400)],
)
async def test_a_page_of_an_allowed_origin_may_read_why_it_is_refused(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    answer = await client.get(f"/events?{query.format(token_of())}", headers={"Origin": APP})

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://app.test.evil"},
        {"Origin": "http://app.test"},
        {"Origin": "https://APP.test"},
        {"Origin": "https://app.test:444"},
        {"Origin": "https://app.test/"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "*"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://self.test", "Host": "self.test", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://self.test:1", "Host": "self.test"},
        {"Origin": "https://self.test", "X-Forwarded-Host": "self.test"},
    ],
)
async def test_a_page_of_another_origin_is_refused_and_may_not_read_why(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.get(f"/events?token={token_of()}", headers=headers)

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert answer.headers["vary"] == "Origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_two_origins_are_none(client: httpx.AsyncClient) -> None:
    answer = await client.get(
        f"/events?token={token_of()}", headers=[("Origin", APP), ("Origin", APP)]
    )

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://self.test", "Host": "self.test"},
        {"Origin": "http://self.test:8080", "Host": "SELF.test:8080"},
    ],
)
async def test_a_page_of_our_own_listens(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    async with client.stream("GET", f"/events?token={token_of()}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_of_an_allowed_origin_is_answered(client: httpx.AsyncClient) -> None:
    headers = {"Origin": APP, "Access-Control-Request-Method": "GET"}

    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET"
    assert (
        answer.headers["access-control-allow-headers"]
        == "Authorization, Last-Event-ID, Cache-Control"
    )
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"] == "Origin"


async def test_a_preflight_of_another_origin_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://other.test", "Access-Control-Request-Method": "GET"}

    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}])
async def test_options_that_are_no_preflight_are_405(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert refused(answer) == (405, "method_not_allowed", "expected GET, HEAD, got OPTIONS")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("origin", [APP, "https://other.test", "null", ""])
async def test_no_page_notifies_whatever_it_knows(
    redis: Redis, client: httpx.AsyncClient, merchant: str, origin: str
) -> None:
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}

    answer = await client.post("/notify", json={"merchant_id": merchant}, headers=headers)
    preflight = await client.options(
        "/notify", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )

    assert refused(answer) == (
        403,
        "origin_not_allowed",
        "expected a request of a backend, got one of a page, with Origin",
    )
    assert refused(preflight)[:2] == (405, "method_not_allowed")
    for each in (answer, preflight):
        assert not [name for name in each.headers if name.startswith("access-control")]
    assert redis.cli("XLEN", f"sse_push:{{{merchant}}}") == "0"


async def test_without_allowed_origins_no_page_of_another_one_listens(service: Service) -> None:
    async with Client(base_url=service.url) as client:
        foreign = await client.get("/events?merchant_id=42", headers={"Origin": APP})
        site = await client.get("/events?merchant_id=42", headers={"Sec-Fetch-Site": "cross-site"})
        preflight = await client.options(
            "/events", headers={"Origin": APP, "Access-Control-Request-Method": "GET"}
        )

    for answer in (foreign, site, preflight):
        assert refused(answer)[:2] == (403, "origin_not_allowed")
        assert "vary" not in answer.headers


# -- the merchant that a proxy names


@pytest.fixture(scope="module")
def behind(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that believes a proxy on this machine."""
    with serving(
        tmp_path_factory.mktemp("behind"),
        redis.url,
        *("--subscribe-auth", "header"),
        trusted_proxies="10.0.0.0/8, 127.0.0.1",
        drain_s=1,
    ) as started:
        yield started


@pytest.fixture
async def proxy(behind: Service) -> AsyncGenerator[httpx.AsyncClient]:
    async with Client(base_url=behind.url, timeout=5 * SECOND) as made:
        yield made


@pytest.mark.parametrize(
    ("named", "query", "merchant"),
    [
        ("42", "", "42"),
        ("42", "merchant_id=42", "42"),
        ("42,43", "merchant_id=43", "43"),
        (" 42 , 43 ", "merchant_id=42", "42"),
    ],
)
async def test_the_proxy_names_the_merchant(
    behind: Service, named: str, query: str, merchant: str
) -> None:
    async with open_stream(behind.url, query=query, headers={"X-Merchant-Id": named}) as stream:
        ready = await stream.next("ready")

    assert f'"merchant_id":"{merchant}"' in ready.data


@pytest.mark.parametrize(
    ("named", "query", "expected"),
    [
        (
            [],
            "merchant_id=42",
            (401, "unauthorized", "expected the proxy to set X-Merchant-Id, got none"),
        ),
        (
            ["42", "42"],
            "",
            (400, "malformed", "expected the header X-Merchant-Id once, got 2 times"),
        ),
        (
            ["42"],
            "merchant_id=43",
            (403, "forbidden", "expected a merchant that you may listen to, got '43'"),
        ),
        (
            ["42"],
            "merchant_id=42&merchant_id=42",
            (400, "malformed", "merchant_id: expected once in the query, got 2 times"),
        ),
    ],
)
async def test_what_the_proxy_says_decides(
    proxy: httpx.AsyncClient, named: list[str], query: str, expected: tuple[int, str, str]
) -> None:
    headers = [("X-Merchant-Id", each) for each in named]

    answer = await proxy.get(f"/events?{query}", headers=headers)

    assert refused(answer) == expected


@pytest.mark.parametrize("named", ["", "4 2", "42,", ",", "../42", "42;43", "*", "x" * 65])
async def test_a_header_that_names_no_merchant_is_malformed(
    proxy: httpx.AsyncClient, named: str
) -> None:
    answer = await proxy.get("/events?merchant_id=42", headers={"X-Merchant-Id": named})

    status, error, detail = refused(answer)
    assert (status, error) == (400, "malformed")
    assert detail.startswith("X-Merchant-Id: merchant_id: expected 1 to 64 characters")


async def test_several_merchants_and_none_asked_for_is_malformed(
    proxy: httpx.AsyncClient,
) -> None:
    answer = await proxy.get("/events", headers={"X-Merchant-Id": "42,43"})

    assert refused(answer)[:2] == (400, "malformed")


async def test_whoever_is_no_proxy_of_ours_is_not_believed(redis: Redis, tmp_path: Path) -> None:
    """Nor is what it says of where it comes from."""
    elsewhere = Service.start(
        tmp_path,
        redis.url,
        *("--subscribe-auth", "header"),
        trusted_proxies="10.0.0.0/8",
        drain_s=0,
    )
    headers = {"X-Merchant-Id": "42", "X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1"}
    async with Client(base_url=elsewhere.url) as client:
        answer = await client.get("/events?merchant_id=42", headers=headers)
    elsewhere.stop()

    assert refused(answer) == (
        401,
        "unauthorized",
        "expected a request by way of a trusted proxy, got a direct one",
    )


async def test_whoever_reaches_the_unix_socket_is_believed(redis: Redis, tmp_path: Path) -> None:
    uds = tmp_path / "push.sock"
    started = Service.start(
        tmp_path, redis.url, *("--subscribe-auth", "header"), uds=uds, drain_s=0
    )
    transport = httpx.AsyncHTTPTransport(uds=str(uds))
    async with Client(transport=transport, base_url="http://push") as client:
        named = await status_of(client, "merchant_id=42", X_Merchant_Id="42")
        nobody = await client.get("/events?merchant_id=42")
    started.stop()

    assert named == 200
    assert nobody.status_code == 401


@pytest.mark.nginx
async def test_through_nginx_the_merchants_own_backend_decides(
    behind: Service, tmp_path: Path, merchant: str
) -> None:
    """With the files as they are shipped, whatever a browser claims."""
    publisher = Publisher(behind.url)
    claimed = {"X-Merchant-Id": "43"}
    async with recording() as (backend, address):
        upstream = f"127.0.0.1:{behind.port}"
        with Nginx.start(tmp_path / "nginx", upstream, auth_backend=address) as nginx:
            backend.answer = yes(f"X-Merchant-Id: {merchant}, 44")
            async with open_stream(nginx.url, merchant, headers=claimed) as stream:
                await stream.next("refresh")
                entry_id = await publisher.notify(merchant)
                told = await stream.next("refresh", 2)
            async with nginx.client() as client:
                other = await client.get("/events?merchant_id=43", headers=claimed)
                backend.answer = yes()
                nobody = await client.get("/events?merchant_id=43", headers=claimed)
    await publisher.close()

    assert told.id == entry_id
    assert (other.status_code, other.json()["error"]) == (403, "forbidden")
    assert (nobody.status_code, nobody.json()["error"]) == (401, "unauthorized")


async def test_elsewhere_the_header_means_nothing(service: Service, merchant: str) -> None:
    async with open_stream(
        service.url, merchant, headers={"X-Merchant-Id": "43", "Authorization": "Bearer x"}
    ) as stream:
        ready = await stream.next("ready")

    assert f'"merchant_id":"{merchant}"' in ready.data


def test_every_kind_of_refusal_is_here() -> None:
    """The table is the promise: it does not shrink unseen."""
    details: set[Any] = {detail for _, detail in ODD.values()}

    assert len(ODD) >= 36
    assert {NOT_OURS, NO_TOKEN, EXPIRED, TOO_LONG, NO_MERCHANT} <= details


# -- a file of keys that is changed


def test_a_rolling_restart_reads_the_keys_again_and_broken_ones_leave_the_workers_as_they_are(
    redis: Redis, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_text(public_pem("RS256"))
    service = Service.start(
        tmp_path,
        redis.url,
        *("--subscribe-auth", "token", "--workers", "2"),
        drain_s=0.3,
        token_keys_file=keys,
        token_algorithms="RS256,ES256",
    )

    def statuses(algorithm: str) -> set[int]:
        token = token_of(algorithm=algorithm, key=private_key(algorithm), aud=..., iss=...)
        return {httpx.head(f"{service.url}/events?token={token}").status_code for _ in range(8)}

    try:
        first = set(workers_of(service.process.pid))
        before = statuses("RS256"), statuses("ES256")

        keys.write_text(public_pem("RS256") + public_pem("ES256"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(set(workers_of(service.process.pid)) - first) == 2, "new workers")
        wait_for(lambda: not set(workers_of(service.process.pid)) & first, "the old ones' end")
        after = statuses("RS256"), statuses("ES256")

        keys.write_text("broken")
        second = set(workers_of(service.process.pid))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "aborting the restart" in service.log, "the restart to be given up")
        with_broken = statuses("RS256"), set(workers_of(service.process.pid))
    finally:
        status = service.stop()

    assert before == ({200}, {401})
    assert after == ({200}, {200})
    assert with_broken == ({200}, second)
    assert "expected a JWK Set (JSON) or public keys (PEM), got neither" in service.log
    assert status == 0
