from __future__ import annotations

import time
from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from sse_push.access.gate import Gate, authorize_notify
from sse_push.access.grant import Grant, Rights, hash_claim
from sse_push.access.keys import NotifyKey, TokenSecret
from sse_push.access.proxies import Proxies
from sse_push.access.token_keys import load_keys
from sse_push.access.tokens import TokenRules
from sse_push.errors import (
    AmbiguousCredentials,
    Forbidden,
    InvalidMerchantId,
    InvalidQuery,
    RefusalReason,
    Unauthorized,
)
from tests.harness.tokens import SECRET, token_of

BYTES = [chr(byte) for byte in range(256)]
"""Each byte of a header, as it is decoded."""

KEY = "k1-0123456789abcdef-0123456789abcdef"
OTHER_KEY = "k2-0123456789abcdef-0123456789abcdef"
RULES = TokenRules(
    keys=load_keys([TokenSecret.parse(SECRET)], None, ["HS256"]),
    audience=None,
    issuer=None,
    leeway_s=5,
    max_lifetime_s=3600,
)
PROXIES = Proxies([ip_network("127.0.0.1"), ip_network("10.0.0.0/8")], is_unix_socket=False)
KEYS = (NotifyKey(SecretStr(KEY)), NotifyKey(SecretStr(OTHER_KEY), ("42", "shop-*")))


class KeyThatCounts(SecretStr):
    """A key that counts how often it is read."""

    looks = 0

    def get_secret_value(self) -> str:
        self.looks += 1
        return super().get_secret_value()


# -- who may notify


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {KEY}",
        f"Bearer {OTHER_KEY}",
        f"bearer {KEY}",
        f"BEARER {KEY}",
        f"Bearer  {KEY} ",
    ],
)
def test_each_configured_key_may_notify(authorization: str) -> None:
    assert authorize_notify([authorization], KEYS) in KEYS


def test_the_presented_key_is_returned() -> None:
    assert [authorize_notify([f"Bearer {key}"], KEYS) for key in (KEY, OTHER_KEY)] == [*KEYS]


@pytest.mark.parametrize("authorization", [None, "", "nonsense", f"Bearer {KEY}"])
def test_anyone_may_notify_if_no_key_is_needed(authorization: str | None) -> None:
    assert authorize_notify([] if authorization is None else [authorization], "none") is None


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", f"Bearer:{KEY}", " "],
)
def test_a_request_without_a_bearer_key_may_not_notify(authorization: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        authorize_notify([] if authorization is None else [authorization], KEYS)

    assert str(caught.value) == "expected the header Authorization: Bearer <key>"


@pytest.mark.parametrize(
    "key",
    [
        KEY[:-1],
        f"{KEY}x",
        KEY.upper(),
        f"{KEY},{OTHER_KEY}",
        f"{KEY} {OTHER_KEY}",
        f"Bearer {KEY}",
        "none",
        "   ",
        "**********",
        "\xe9" * 20,
        "\udcff" * 20,
    ],
)
def test_another_key_may_not_notify_and_is_not_repeated(key: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        authorize_notify([f"Bearer {key}"], KEYS)

    assert str(caught.value) == "expected a key of notify_keys, got another one"


@pytest.mark.parametrize("byte", BYTES)
def test_no_byte_but_white_space_may_stand_around_a_key(byte: str) -> None:
    for authorization in (f"Bearer {byte}{KEY}", f"Bearer {KEY}{byte}"):
        if byte in " \t":
            assert authorize_notify([authorization], KEYS) is KEYS[0]
        else:
            with pytest.raises(Unauthorized):
                authorize_notify([authorization], KEYS)


def test_an_empty_list_of_keys_lets_nobody_notify() -> None:
    with pytest.raises(Unauthorized):
        authorize_notify(["Bearer "], ())
    with pytest.raises(Unauthorized):
        authorize_notify([f"Bearer {KEY}"], ())


@pytest.mark.parametrize("got", [KEY, OTHER_KEY])
def test_every_key_is_compared_even_after_one_has_matched(got: str) -> None:
    secrets = [KeyThatCounts(KEY), KeyThatCounts(OTHER_KEY)]

    authorize_notify([f"Bearer {got}"], [NotifyKey(secret) for secret in secrets])

    assert [secret.looks for secret in secrets] == [1, 1]


@pytest.mark.parametrize("second", [f"Bearer {KEY}", f"Bearer {OTHER_KEY}", ""])
def test_a_second_authorization_header_is_refused(second: str) -> None:
    with pytest.raises(AmbiguousCredentials):
        authorize_notify([f"Bearer {KEY}", second], KEYS)


# -- who may listen


def request_of(
    query: str = "", *headers: tuple[str, str], client: tuple[str, int] | None = ("127.0.0.1", 1)
) -> Request[Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "query_string": query.encode(), "headers": raw, "client": client}
    return Request(scope)


def test_a_client_without_authentication_listens_to_the_merchant_that_it_names() -> None:
    gate = Gate("none", max_merchants=16, proxies=PROXIES)
    headers = (("Authorization", "Bearer x"), ("X-Merchant-Id", "43"), ("Cookie", "a=b"))

    assert gate.authorize_subscribe(request_of("token=x", *headers), ["42"]) == Rights(
        (Grant("42"),)
    )


@pytest.mark.parametrize("merchant_id", [None, "", "a b", "42\n", "x" * 65])
def test_a_client_that_names_no_merchant_is_refused(merchant_id: str | None) -> None:
    with pytest.raises(InvalidMerchantId, match=r"^merchant_id: expected 1 to 64 characters"):
        Gate("none", max_merchants=16, proxies=PROXIES).authorize_subscribe(
            request_of(), [] if merchant_id is None else [merchant_id]
        )


def test_a_grant_has_the_claims_of_its_token() -> None:
    gate = Gate("token", max_merchants=16, proxies=PROXIES, token_rules=RULES)
    now = int(time.time())
    token = token_of([42, "43"], exp=now + 60, iat=now, sub="u", jti="t", aud=..., iss=...)

    rights = gate.authorize_subscribe(request_of(f"token={token}"), ["43"])

    claims = (now + 60, hash_claim("u"), hash_claim("t"), now)
    assert rights == Rights((Grant("43", *claims),), ("42", "43"))
    assert gate.authorize_subscribe(request_of(f"token={token}"), []) == Rights(
        (Grant("42", *claims), Grant("43", *claims)), ("42", "43")
    )


def test_a_cookie_is_read_only_if_its_name_is_configured() -> None:
    cookie = ("Cookie", f"push={token_of(aud=..., iss=...)}")
    without = Gate("token", max_merchants=16, proxies=PROXIES, token_rules=RULES)
    gate = Gate("token", max_merchants=16, proxies=PROXIES, token_rules=RULES, token_cookie="push")

    with pytest.raises(Unauthorized, match=r"^expected a token: "):
        without.authorize_subscribe(request_of("", cookie), [])

    assert gate.authorize_subscribe(request_of("", cookie), []).merchant_ids == ("42",)


WITH_COOKIE = Gate(
    "token", max_merchants=16, proxies=PROXIES, token_rules=RULES, token_cookie="__Host-push"
)


@pytest.mark.parametrize("byte", BYTES)
@pytest.mark.parametrize("form", ["{}__Host-push={token}", "__Host-push{}={token}"])
def test_no_byte_but_white_space_may_stand_around_the_name_of_a_cookie(
    form: str, byte: str
) -> None:
    request = request_of("", ("Cookie", form.format(byte, token=token_of(aud=..., iss=...))))
    is_alone = byte in " \t" or (byte == ";" and form.startswith("{}"))
    is_empty = byte == "=" and not form.startswith("{}")

    if is_alone:
        assert WITH_COOKIE.authorize_subscribe(request, []).merchant_ids == ("42",)
    else:
        with pytest.raises(Unauthorized, match="token" if is_empty else r"^expected a token: "):
            WITH_COOKIE.authorize_subscribe(request, [])


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("10.0.0.1", 1), ("::ffff:10.0.0.1", 1)])
def test_a_trusted_proxy_names_the_merchant(client: tuple[str, int]) -> None:
    gate = Gate("header", max_merchants=16, proxies=PROXIES)

    rights = gate.authorize_subscribe(request_of("", ("X-Merchant-Id", "42"), client=client), [])

    assert rights == Rights((Grant("42"),), ("42",))


@pytest.mark.parametrize("byte", [byte for byte in BYTES if not "!" <= byte <= "~"])
def test_no_byte_but_white_space_may_stand_around_the_merchant_of_a_proxy(byte: str) -> None:
    gate = Gate("header", max_merchants=16, proxies=PROXIES)
    for value in (f"{byte}42", f"42{byte}"):
        request = request_of("", ("X-Merchant-Id", value))
        if byte in " \t":
            assert gate.authorize_subscribe(request, []).merchant_ids == ("42",)
        else:
            with pytest.raises(InvalidMerchantId):
                gate.authorize_subscribe(request, [])


@pytest.mark.parametrize("client", [("192.0.2.1", 1), ("", 1), None])
def test_another_peer_does_not_name_the_merchant(client: tuple[str, int] | None) -> None:
    gate = Gate("header", max_merchants=16, proxies=PROXIES)

    with pytest.raises(Unauthorized, match=r"^expected a request by way of a trusted proxy"):
        gate.authorize_subscribe(request_of("", ("X-Merchant-Id", "42"), client=client), [])


def test_a_peer_on_the_unix_socket_names_the_merchant() -> None:
    gate = Gate("header", max_merchants=16, proxies=Proxies([], is_unix_socket=True))
    request = request_of("", ("X-Merchant-Id", "42"), client=None)

    assert gate.authorize_subscribe(request, ["42"]) == Rights((Grant("42"),), ("42",))


# -- several merchants


def gates() -> list[tuple[Gate, Request[Any]]]:
    """Return a gate of each kind, and a request that may listen to 42, 43 and 44."""
    token = token_of(["42", "43", "44"], aud=..., iss=...)
    limited: dict[str, Any] = {"proxies": PROXIES, "max_merchants": 2}
    return [
        (Gate("none", **limited), request_of()),
        (Gate("token", token_rules=RULES, **limited), request_of(f"token={token}")),
        (Gate("header", **limited), request_of("", ("X-Merchant-Id", "42, 43,44"))),
    ]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_client_listens_to_each_merchant_that_it_names_once(kind: int) -> None:
    gate, request = gates()[kind]

    rights = gate.authorize_subscribe(request, ["43", "42", "43"])

    assert rights.merchant_ids == ("43", "42")


ALL = ["42", "43", "44"]


@pytest.mark.parametrize(("kind", "requested"), [(0, ALL), (1, ALL), (2, ALL), (1, []), (2, [])])
def test_a_connection_to_too_many_merchants_is_refused(kind: int, requested: list[str]) -> None:
    gate, request = gates()[kind]

    with pytest.raises(InvalidQuery, match=r"^expected at most 2 merchants .*, got 3: ") as caught:
        gate.authorize_subscribe(request, requested)

    assert caught.value.reason is RefusalReason.TOO_MANY_MERCHANTS


@pytest.mark.parametrize("kind", [1, 2])
def test_a_client_must_be_allowed_to_listen_to_all_merchants_that_it_names(kind: int) -> None:
    gate, request = gates()[kind]

    with pytest.raises(Forbidden, match=r"got '45'$") as caught:
        gate.authorize_subscribe(request, ["42", "45", "46"])

    assert caught.value.who == "merchant 45"
