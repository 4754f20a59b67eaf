from __future__ import annotations

import pytest

from sse_push import errors
from sse_push.errors import EndReason, NotNow, Occasion, Outcome, PushError, StreamUnavailable

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_caught_as_a_push_error(error: type[Exception]) -> None:
    assert issubclass(error, PushError)


@pytest.mark.parametrize("error", ERRORS)
def test_no_error_is_one_of_the_others(error: type[Exception]) -> None:
    others = [other for other in ERRORS if other not in (error, PushError)]

    assert not any(issubclass(error, other) for other in others)


@pytest.mark.parametrize("error", [each for each in ERRORS if each is not NotNow])
def test_an_error_shows_the_text_that_it_was_given(error: type[Exception]) -> None:
    assert str(error("expected this, got that")) == "expected this, got that"


def test_a_stream_that_is_unavailable_took_nothing_unless_it_is_said() -> None:
    assert StreamUnavailable("expected an answer").outcome == "not_published"


@pytest.mark.parametrize("outcome", ["not_published", "unknown"])
def test_a_stream_that_is_unavailable_says_what_is_known(outcome: Outcome) -> None:
    assert StreamUnavailable("expected an answer", outcome).outcome == outcome


@pytest.mark.parametrize("reason", EndReason.on(Occasion.SOFT_ANSWER))
def test_a_client_that_is_not_served_is_given_the_reason(reason: EndReason) -> None:
    assert (NotNow(reason).reason, str(NotNow(reason))) == (reason, reason.value)


def test_a_reason_has_at_least_one_occasion_and_a_reaction() -> None:
    assert all(reason.occasions and reason.reaction for reason in EndReason)
    assert {reason for occasion in Occasion for reason in EndReason.on(occasion)} == {*EndReason}
