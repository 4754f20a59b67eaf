from __future__ import annotations

import pytest

from sse_push.access.grant import Grant, choose_merchant
from sse_push.errors import Forbidden, InvalidMerchantId


def test_a_grant_of_a_merchant_alone_never_expires() -> None:
    assert Grant("42") == ("42", None, None, None, None)


@pytest.mark.parametrize(
    ("permitted", "requested", "chosen"),
    [
        (["42"], None, "42"),
        (["42"], "42", "42"),
        (["42", "43"], "42", "42"),
        (["42", "43"], "43", "43"),
    ],
)
def test_the_requested_merchant_or_the_only_one_is_chosen(
    permitted: list[str], requested: str | None, chosen: str
) -> None:
    assert choose_merchant(permitted, requested) == chosen


@pytest.mark.parametrize("permitted", [["42"], ["42", "43"], ["4", "440"]])
def test_another_merchant_is_forbidden_and_the_permitted_ones_are_not_disclosed(
    permitted: list[str],
) -> None:
    with pytest.raises(Forbidden) as caught:
        choose_merchant(permitted, "44")

    assert str(caught.value) == "expected a merchant that you may listen to, got '44'"


@pytest.mark.parametrize(
    ("permitted", "requested"), [(["42"], ""), (["42"], "4 2"), (["42", "43"], None), ([], None)]
)
def test_a_missing_or_malformed_merchant_is_refused(
    permitted: list[str], requested: str | None
) -> None:
    with pytest.raises(InvalidMerchantId):
        choose_merchant(permitted, requested)
