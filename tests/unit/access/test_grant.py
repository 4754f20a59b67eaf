from __future__ import annotations

import pytest

from sse_push.access.grant import Grant, Rights, choose_merchants, hash_claim
from sse_push.errors import Forbidden, InvalidMerchantId

KEY = b"a key"


def test_a_grant_of_a_merchant_alone_never_expires() -> None:
    assert Grant("42") == ("42", None, None, None, None)


@pytest.mark.parametrize(
    ("permitted", "requested", "chosen"),
    [
        (["42"], [], ("42",)),
        (["42", "43", "42"], [], ("42", "43")),
        (["42"], ["42"], ("42",)),
        (["42", "43"], ["43"], ("43",)),
        (["42", "43"], ["43", "42", "43"], ("43", "42")),
    ],
)
def test_the_requested_merchants_or_all_permitted_ones_are_chosen_once_each(
    permitted: list[str], requested: list[str], chosen: tuple[str, ...]
) -> None:
    assert choose_merchants(permitted, requested) == chosen


@pytest.mark.parametrize("permitted", [["42"], ["42", "43"], ["42", "4", "440"]])
def test_another_merchant_is_forbidden_and_the_permitted_ones_are_not_disclosed(
    permitted: list[str],
) -> None:
    with pytest.raises(Forbidden) as caught:
        choose_merchants(permitted, ["42", "44", "45"])

    assert str(caught.value) == "expected a merchant that you may listen to, got '44'"
    assert caught.value.who == "merchant 44"


@pytest.mark.parametrize("requested", [[""], ["4 2"], ["42", ""], ["43", "4\n2"]])
def test_a_malformed_merchant_is_refused(requested: list[str]) -> None:
    with pytest.raises(InvalidMerchantId):
        choose_merchants(["42"], requested)


def rights(*permitted: str, subject: str | None = "u", wanted: str = "42") -> Rights:
    hashed = None if subject is None else hash_claim(subject)
    return Rights((Grant(wanted, subject=hashed),), permitted)


def test_a_digest_stands_for_the_subject_and_all_permitted_merchants() -> None:
    same = [rights("42", "43"), rights("43", "42"), rights("42", "43", wanted="43")]
    others = [
        rights("42"),
        rights("42", "44"),
        rights("42", "43", subject="v"),
        rights("42", "43", subject=None),
    ]

    digests = [each.digest(KEY) for each in (*same, *others)]

    assert digests[:3] == ["e4567ba5c67b1dd8"] * 3
    assert len({*digests}) == 5


def test_a_digest_tells_nothing_to_whoever_does_not_have_the_key() -> None:
    assert rights("42").digest(KEY) != rights("42").digest(b"another key")
