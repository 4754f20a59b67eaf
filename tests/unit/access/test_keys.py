from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest

from sse_push.access.keys import (
    SECRET_BYTES_MIN,
    NotifyKey,
    TokenSecret,
    name_merchant,
    require_strong,
)
from sse_push.errors import Forbidden
from sse_push.notification import parse_merchant_id

KEY = "k1-0123456789abcdef-0123456789abcdef"
SECRET = "0123456789abcdef" * 2
BASE64 = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LQ=="


@pytest.mark.parametrize(
    ("text", "merchants"),
    [
        (KEY, ()),
        (f"{KEY} 42", ("42",)),
        (f"{KEY}   42  43 ", ("42", "43")),
        (f"{KEY} shop-* a.b_c:d-e*", ("shop-*", "a.b_c:d-e*")),
    ],
)
def test_a_key_may_be_followed_by_its_merchants(text: str, merchants: tuple[str, ...]) -> None:
    key = NotifyKey.parse(text)

    assert (key.secret.get_secret_value(), key.merchants) == (KEY, merchants)


@pytest.mark.parametrize(
    "merchants", ["*", "4*2", "**", "shop-**", "a,b", "{42}", "x" * 65, "shop/*", "\u0664", "4\n"]
)
def test_a_malformed_merchant_after_a_key_is_refused_and_not_shown(merchants: str) -> None:
    with pytest.raises(ValueError, match=r"^expected merchants after a key") as caught:
        NotifyKey.parse(f"{KEY} {merchants}")

    assert KEY not in str(caught.value)
    assert merchants == "*" or merchants not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sh0rt", "0a1b2c3d" * 3 + "0a1b2c3", "0a1b2c3d" * 3 + "0a1b2c3 42"),
        *("é" * 40, "0a1b2c3d" * 5 + "\n", "\t" + "0a1b2c3d" * 5, "*" * 10),
    ],
)
def test_a_weak_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected keys of at least 32 printable") as caught:
        NotifyKey.parse(text)

    assert text == "" or text not in str(caught.value)


@pytest.mark.parametrize("text", ["0a" * 20, "0123abc" * 10, "=" * 40])
def test_a_key_of_few_characters_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected keys of at least 8 different characters"):
        NotifyKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("43", "-7", "a--b.", "shop", "Shop", "SHOP", "shop-1", "shop42", "merchant-1000000001"),
        *("shop-berlin-alexanderplatz-000042", "Shop.Berlin:Nord_2024.Saal-7.Reihe-12", "1" * 40),
        *("change-me-change-me-change-me-change-me", "x" * 64),
        *("550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000"),
    ],
)
def test_a_key_that_looks_like_a_merchant_is_refused_and_not_shown(text: str) -> None:
    parse_merchant_id(text)  # it may be one

    with pytest.raises(ValueError, match=r"^expected random keys, got one that looks") as caught:
        NotifyKey.parse(text)

    assert "as in `KEY 42 shop-*`" in str(caught.value)
    assert f" {text} " not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(16),
        lambda: secrets.token_hex(24),
        lambda: secrets.token_urlsafe(24),
        lambda: base64.b64encode(secrets.token_bytes(24)).decode(),
    ],
)
def test_a_random_text_is_a_key(make: Callable[[], str]) -> None:
    for _ in range(200):
        NotifyKey.parse(f"{make()} 42")


@pytest.mark.parametrize(
    ("merchants", "merchant_id", "is_covered"),
    [
        ("", "42", True),
        ("", "anything", True),
        ("42", "42", True),
        ("42", "420", False),
        ("42", "4", False),
        ("42 43", "43", True),
        ("42 43", "44", False),
        ("shop-*", "shop-1", True),
        ("shop-*", "shop-", True),
        ("shop-*", "shop", False),
        ("shop-*", "my-shop-1", False),
        ("shop-*", "Shop-1", False),
        ("shop", "shop-1", False),
        ("a.b*", "axb", False),
    ],
)
def test_a_key_is_for_exact_merchants_and_prefixes(
    merchants: str, merchant_id: str, *, is_covered: bool
) -> None:
    key = NotifyKey.parse(f"{KEY} {merchants}")

    with nullcontext() if is_covered else pytest.raises(Forbidden) as caught:
        key.require(merchant_id)

    if caught is not None:
        text = f"expected a key that may notify {merchant_id!r}, got another one"
        assert str(caught.value) == text


@pytest.mark.parametrize(
    ("text", "kid", "secret"),
    [
        (SECRET, None, SECRET),
        (f"old={SECRET}", "old", SECRET),
        (f"2026.11:a_b-c={SECRET}", "2026.11:a_b-c", SECRET),
        (BASE64, None, BASE64),
        (f"old={BASE64}", "old", BASE64),
        (f"old={SECRET}=x", "old", f"{SECRET}=x"),
        (f"a key={SECRET}", None, f"a key={SECRET}"),
        ("é" * 16, None, "é" * 16),
    ],
)
def test_a_secret_may_have_a_kid_before_it(text: str, kid: str | None, secret: str) -> None:
    parsed = TokenSecret.parse(text)

    assert (parsed.kid, parsed.secret.get_secret_value()) == (kid, secret)


@pytest.mark.parametrize(
    ("text", "secret_bytes"),
    [("", 0), (SECRET[:-1], 31), (f"old={SECRET[:-1]}", 31), ("é" * 15, 30)],
)
def test_a_weak_secret_is_refused_and_not_shown(text: str, secret_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"^expected HMAC secrets of at least 32 bytes") as caught:
        TokenSecret.parse(text)

    assert f"got one of {secret_bytes};" in str(caught.value)
    assert text == "" or text not in str(caught.value)


def test_a_secret_is_as_long_as_its_hash() -> None:
    assert SECRET_BYTES_MIN == 256 / 8
    require_strong(SECRET_BYTES_MIN)


def test_the_repr_of_a_key_hides_the_secret() -> None:
    assert KEY not in repr(NotifyKey.parse(f"{KEY} 42"))
    assert SECRET not in repr(TokenSecret.parse(f"old={SECRET}"))


@pytest.mark.parametrize(
    ("merchant_id", "named"),
    [
        ("42", "merchant 42"),
        ("shop-berlin-0042-of-a-chain-of-stores", "merchant shop-berlin-0042-of-a-chain-of-stores"),
        (
            "9f86d081-884c-4d65-9a2f-eaa0c55ad015",
            "merchant 9f86d081-884c-4d65-9a2f-eaa0c55ad015",
        ),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c", "merchant 9f86d081…"),
    ],
)
def test_a_key_that_was_sent_in_place_of_a_merchant_is_not_logged(
    merchant_id: str, named: str
) -> None:
    assert name_merchant(merchant_id) == named


def test_a_refused_merchant_is_named_with_the_place_of_the_key() -> None:
    key = replace(NotifyKey.parse(f"{KEY} 42"), place=3)

    with pytest.raises(Forbidden) as refused:
        key.require("43")

    assert refused.value.who == "key 3, merchant 43"
