from __future__ import annotations

import pytest

from sse_push import errors
from sse_push.errors import Outcome, PushError, StreamUnavailable

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


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_shows_the_text_that_it_was_given(error: type[Exception]) -> None:
    assert str(error("expected this, got that")) == "expected this, got that"


def test_a_stream_that_is_unavailable_took_nothing_unless_it_is_said() -> None:
    assert StreamUnavailable("expected an answer").outcome == "not_published"


@pytest.mark.parametrize("outcome", ["not_published", "unknown"])
def test_a_stream_that_is_unavailable_says_what_is_known(outcome: Outcome) -> None:
    assert StreamUnavailable("expected an answer", outcome).outcome == outcome
