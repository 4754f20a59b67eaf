from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from sse_push.access.gate import Gate, authorize_notify
from sse_push.access.grant import Grant
from sse_push.access.keys import NotifyKey
from sse_push.errors import (
    AmbiguousCredentials,
    ConfigError,
    InvalidMerchantId,
    Unauthorized,
)
from sse_push.settings import Settings
from tests.harness.tokens import NEXT_SECRET, SECRET, jwk_set, public_jwk, token_of

KEY = "k1-0123456789abcdef"
OTHER_KEY = "k2-0123456789abcdef"
KEYS = (NotifyKey(SecretStr(KEY)), NotifyKey(SecretStr(OTHER_KEY), ("42", "shop-*")))


class KeyThatCounts(SecretStr):
    """A key that knows how often it was looked at."""

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
def test_any_of_our_keys_may_notify(authorization: str) -> None:
    assert authorize_notify([authorization], KEYS) in KEYS


def test_the_key_that_came_is_the_one_that_counts() -> None:
    assert [authorize_notify([f"Bearer {key}"], KEYS) for key in (KEY, OTHER_KEY)] == [*KEYS]


@pytest.mark.parametrize("authorization", [None, "", "nonsense", f"Bearer {KEY}"])
def test_anyone_may_notify_if_that_was_said(authorization: str | None) -> None:
    assert authorize_notify([] if authorization is None else [authorization], "none") is None


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", f"Bearer:{KEY}", " "],
)
def test_without_a_bearer_key_nobody_may_notify(authorization: str | None) -> None:
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


def test_without_keys_nobody_may_notify() -> None:
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
def test_a_header_that_comes_twice_is_none(second: str) -> None:
    with pytest.raises(AmbiguousCredentials):
        authorize_notify([f"Bearer {KEY}", second], KEYS)


# -- who may listen


def gate_of(**settings: Any) -> Gate:
    return Gate(Settings.load(**settings))


def request_of(
    query: str = "", *headers: tuple[str, str], client: tuple[str, int] | None = ("127.0.0.1", 1)
) -> Request[Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "query_string": query.encode(), "headers": raw, "client": client}
    return Request(scope)


def test_without_authentication_a_client_listens_to_whom_it_names() -> None:
    gate = gate_of(subscribe_auth="none")
    headers = (("Authorization", "Bearer x"), ("X-Merchant-Id", "43"), ("Cookie", "a=b"))

    assert gate.authorize_subscribe(request_of("token=x", *headers), "42") == Grant("42")


@pytest.mark.parametrize("merchant_id", [None, "", "a b", "42\n", "x" * 65])
def test_a_client_that_names_no_merchant_listens_to_none(merchant_id: str | None) -> None:
    with pytest.raises(InvalidMerchantId, match=r"^merchant_id: expected 1 to 64 characters"):
        gate_of(subscribe_auth="none").authorize_subscribe(request_of(), merchant_id)


def test_what_a_token_says_is_what_is_granted() -> None:
    gate = gate_of(subscribe_auth="token", token_keys=SECRET)
    now = int(time.time())
    token = token_of([42, "43"], exp=now + 60, iat=now, sub="u", jti="t", aud=..., iss=...)

    grant = gate.authorize_subscribe(request_of(f"token={token}"), "43")

    assert grant == Grant("43", now + 60, "u", "t", now)


def test_a_cookie_is_read_only_where_its_name_was_said() -> None:
    cookie = ("Cookie", f"push={token_of(aud=..., iss=...)}")
    mode = {"subscribe_auth": "token", "token_keys": SECRET}

    with pytest.raises(Unauthorized, match=r"^expected a token: "):
        gate_of(**mode).authorize_subscribe(request_of("", cookie), None)

    gate = gate_of(**mode, token_cookie="push")
    assert gate.authorize_subscribe(request_of("", cookie), None).merchant_id == "42"


def test_keys_of_settings_and_of_a_file_are_good_together(tmp_path: Path) -> None:
    path = jwk_set(tmp_path / "keys", public_jwk("RS256", kid="rsa"))

    gate = gate_of(
        subscribe_auth="token",
        token_keys=f"{SECRET},next={NEXT_SECRET}",
        token_keys_file=path,
        token_algorithms="HS256,RS256",
    )

    assert [(key.algorithm, key.kid) for key in gate.token_keys] == [
        ("HS256", None),
        ("HS256", "next"),
        ("RS256", "rsa"),
    ]


def test_a_gate_without_its_keys_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token_keys_file .*/none: expected a file to read"):
        gate_of(subscribe_auth="token", token_keys_file=tmp_path / "none")


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("10.0.0.1", 1), ("::ffff:10.0.0.1", 1)])
def test_a_proxy_of_ours_names_the_merchant(client: tuple[str, int]) -> None:
    gate = gate_of(subscribe_auth="header", trusted_proxies="127.0.0.1,10.0.0.0/8")

    grant = gate.authorize_subscribe(request_of("", ("X-Merchant-Id", "42"), client=client), None)

    assert grant == Grant("42")


@pytest.mark.parametrize("client", [("192.0.2.1", 1), ("", 1), None])
def test_nobody_else_names_the_merchant(client: tuple[str, int] | None) -> None:
    gate = gate_of(subscribe_auth="header", trusted_proxies="127.0.0.1,10.0.0.0/8")

    with pytest.raises(Unauthorized, match=r"^expected a request by way of a trusted proxy"):
        gate.authorize_subscribe(request_of("", ("X-Merchant-Id", "42"), client=client), None)


def test_on_a_unix_socket_whoever_reaches_it_names_the_merchant() -> None:
    gate = gate_of(subscribe_auth="header", uds="/run/push.sock")
    request = request_of("", ("X-Merchant-Id", "42"), client=None)

    assert gate.authorize_subscribe(request, "42") == Grant("42")
