from __future__ import annotations

import re

import pytest

from sse_push import errors
from sse_push.errors import (
    EndReason,
    Forbidden,
    NotNow,
    Occasion,
    Outcome,
    PushError,
    Refusal,
    RefusalReason,
    RequestError,
    StreamUnavailable,
    TooManyNotifications,
    Unauthorized,
)
from sse_push.settings import Settings

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception)
]
REFUSED = [error for error in ERRORS if issubclass(error, RequestError) and error != RequestError]


def drawn() -> list[tuple[str, str, str]]:
    """Return the tree of the module's docstring: each error, its base, and the rest of its line."""
    rows, parents = [], ["PushError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.fullmatch(r"((?:│   |    )*)[├└]── (\w+) +(.+)", line):
            depth = len(found[1]) // 4
            parents[depth + 1 :] = [found[2]]
            rows.append((found[2], parents[depth], found[3]))
    return rows


def test_the_drawing_has_every_error_below_its_base() -> None:
    assert sorted((name, base) for name, base, _ in drawn()) == sorted(
        (error.__name__, error.__base__.__name__ if error.__base__ else "")
        for error in ERRORS
        if error is not PushError
    )


def test_the_drawing_has_the_status_and_the_code_of_every_refusal() -> None:
    texts = {name: text for name, _, text in drawn()}

    assert {error.__name__: texts[error.__name__] for error in REFUSED} == {
        error.__name__: f"{error.usual.refusal.status} {error.usual.refusal.value}"
        for error in REFUSED
    }
    assert f"{Refusal.UNAVAILABLE.status} {Refusal.UNAVAILABLE.value}" in texts["NotNow"]


@pytest.mark.parametrize("error", [each for each in ERRORS if each not in (NotNow, RequestError)])
def test_an_error_has_the_text_that_it_was_given(error: type[Exception]) -> None:
    assert str(error("expected this, got that")) == "expected this, got that"


# -- refusals


def test_the_answer_to_a_refused_request_begins_with_its_code_and_its_detail() -> None:
    body = Refusal.TOO_LARGE.body("expected 1, got 2", results=[])

    assert list(body.items()) == [
        ("error", "too_large"),
        ("detail", "expected 1, got 2"),
        ("results", []),
    ]


def test_a_refusal_has_the_status_of_an_error() -> None:
    assert all(400 <= refusal.status < 600 for refusal in Refusal)


def test_a_refusal_has_a_reason_and_no_two_reasons_have_one_name() -> None:
    assert {reason.refusal for reason in RefusalReason} == {*Refusal}
    assert len({reason.value for reason in RefusalReason}) == len(RefusalReason)


def test_the_setting_of_a_reason_is_a_setting() -> None:
    named = {reason.setting for reason in RefusalReason} - {None}

    assert named <= {*Settings.model_fields}


def test_a_reason_to_put_a_client_off_has_the_name_of_the_end_reason() -> None:
    reasons = EndReason.on(Occasion.SOFT_ANSWER)

    assert [RefusalReason[each.name].value for each in reasons] == [each.value for each in reasons]


def test_an_error_has_the_usual_reason_of_its_kind_or_another_one() -> None:
    usual = Forbidden("expected a merchant")
    other = Forbidden("expected a key", reason=RefusalReason.MERCHANT_NOT_OF_KEY, who="key 2")

    assert (usual.reason, usual.who) == (RefusalReason.MERCHANT_NOT_GRANTED, None)
    assert (other.reason, other.who) == (RefusalReason.MERCHANT_NOT_OF_KEY, "key 2")
    assert usual.refusal is other.refusal is Refusal.FORBIDDEN


def test_a_missing_credential_and_an_invalid_token_have_different_challenges() -> None:
    assert Unauthorized("expected a token").challenge == "Bearer"
    expired = Unauthorized.invalid_token("expired", RefusalReason.TOKEN_EXPIRED)
    assert expired.challenge == 'Bearer error="invalid_token"'


def test_a_key_over_its_rate_has_a_time_to_wait() -> None:
    assert TooManyNotifications("expected less", 7).retry_after_s == 7


def test_nothing_was_published_unless_the_outcome_is_given() -> None:
    assert StreamUnavailable("expected an answer").outcome == "not_published"


@pytest.mark.parametrize("outcome", ["not_published", "unknown"])
def test_an_unavailable_stream_has_the_outcome_that_it_was_given(outcome: Outcome) -> None:
    assert StreamUnavailable("expected an answer", outcome).outcome == outcome


# -- reasons


@pytest.mark.parametrize("reason", EndReason.on(Occasion.SOFT_ANSWER))
def test_a_client_that_is_not_served_gets_the_reason(reason: EndReason) -> None:
    assert (NotNow(reason).reason, str(NotNow(reason))) == (reason, reason.value)


def test_a_reason_has_at_least_one_occasion_and_a_reaction() -> None:
    assert all(reason.occasions and reason.reaction for reason in EndReason)
    assert {reason for occasion in Occasion for reason in EndReason.on(occasion)} == {*EndReason}
