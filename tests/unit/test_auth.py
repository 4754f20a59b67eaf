from __future__ import annotations

import pytest
from pydantic import SecretStr

from sse_push.auth import authorize_notify, authorize_subscribe
from sse_push.errors import InvalidMerchantId, Unauthorized

KEY = "k1-0123456789abcdef"
OTHER_KEY = "k2-0123456789abcdef"
KEYS = (SecretStr(KEY), SecretStr(OTHER_KEY))


class KeyThatCounts(SecretStr):
    """A key that knows how often it was looked at."""

    looks = 0

    def get_secret_value(self) -> str:
        self.looks += 1
        return super().get_secret_value()


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
    authorize_notify(authorization, KEYS)


@pytest.mark.parametrize("authorization", [None, "", "nonsense", f"Bearer {KEY}"])
def test_anyone_may_notify_if_that_was_said(authorization: str | None) -> None:
    authorize_notify(authorization, "none")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", f"Bearer:{KEY}", " "],
)
def test_without_a_bearer_key_nobody_may_notify(authorization: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        authorize_notify(authorization, KEYS)

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
        authorize_notify(f"Bearer {key}", KEYS)

    assert str(caught.value) == "expected a key of notify_keys, came another one"


def test_without_keys_nobody_may_notify() -> None:
    with pytest.raises(Unauthorized):
        authorize_notify("Bearer ", ())
    with pytest.raises(Unauthorized):
        authorize_notify(f"Bearer {KEY}", ())


@pytest.mark.parametrize("came", [KEY, OTHER_KEY])
def test_every_key_is_compared_even_after_one_has_matched(came: str) -> None:
    keys = [KeyThatCounts(KEY), KeyThatCounts(OTHER_KEY)]

    authorize_notify(f"Bearer {came}", keys)

    assert [key.looks for key in keys] == [1, 1]


def test_without_authentication_a_client_listens_to_whom_it_names() -> None:
    assert authorize_subscribe("none", "42") == "42"


@pytest.mark.parametrize("merchant_id", [None, "", "a b", "42\n", "x" * 65])
def test_a_client_that_names_no_merchant_listens_to_none(merchant_id: str | None) -> None:
    with pytest.raises(InvalidMerchantId, match=r"^merchant_id: expected 1 to 64 characters"):
        authorize_subscribe("none", merchant_id)
