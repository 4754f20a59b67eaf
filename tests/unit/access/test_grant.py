from __future__ import annotations

import pytest

from sse_push.access.grant import Grant, choose
from sse_push.errors import Forbidden, InvalidMerchantId


def test_a_grant_of_a_merchant_alone_never_expires() -> None:
    assert Grant("42") == ("42", None, None, None, None)


@pytest.mark.parametrize(
    ("merchants", "asked", "chosen"),
    [
        (["42"], None, "42"),
        (["42"], "42", "42"),
        (["42", "43"], "42", "42"),
        (["42", "43"], "43", "43"),
    ],
)
def test_one_of_the_merchants_is_chosen(
    merchants: list[str], asked: str | None, chosen: str
) -> None:
    assert choose(merchants, asked) == chosen


@pytest.mark.parametrize("merchants", [["42"], ["42", "43"], ["4", "440"]])
def test_another_merchant_is_forbidden_and_the_others_are_not_told(merchants: list[str]) -> None:
    with pytest.raises(Forbidden) as caught:
        choose(merchants, "44")

    assert str(caught.value) == "expected a merchant that you may listen to, got '44'"


@pytest.mark.parametrize(
    ("merchants", "asked"), [(["42"], ""), (["42"], "4 2"), (["42", "43"], None), ([], None)]
)
def test_no_merchant_is_malformed(merchants: list[str], asked: str | None) -> None:
    with pytest.raises(InvalidMerchantId):
        choose(merchants, asked)
