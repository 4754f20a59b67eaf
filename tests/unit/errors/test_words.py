from __future__ import annotations

import math

import pytest

from sse_push.errors.words import nearest, show, suggest
from sse_push.http.parameters import OF_EVENTS


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true (boolean)"),
        (False, "false (boolean)"),
        (42, "42 (number)"),
        (4.5, "4.5 (number)"),
        (math.inf, "inf (number)"),
        (10**64, "an integer of more than 64 digits"),
        (-(10**5000), "an integer of more than 64 digits"),
        ("a\n", r"'a\n' (string)"),
        ("x" * 10**6, "'" + "x" * 79 + " (string)"),
        ([], "a JSON array"),
        ({}, "a JSON object"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_a_value_is_shown_in_the_words_of_json(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("merchantId", "merchant_id"),
        ("merchantId[]", "merchant_id"),
        ("MERCHANT-ID", "merchant_id"),
        ("merchant", "merchant_id"),
        ("merchant_ids", "merchant_id"),
        ("merchnat_id", "merchant_id"),
        ("lastEventID", "last_event_id"),
        ("last-event-id", "last_event_id"),
        ("Token", "token"),
        ("tokens", "token"),
    ],
)
def test_a_slip_is_near_the_name_that_was_meant(name: str, known: str) -> None:
    assert nearest(name, OF_EVENTS) == known
    assert suggest(name, OF_EVENTS) == f": did you mean {known}?"


@pytest.mark.parametrize(
    "name",
    [
        *("_", "t", "ts", "v", "cb", "nocache", "random", "timestamp", "time", "lang", "tab"),
        *("my_token", "access_token", "csrf_token", "event_id", "id", "shop_id", "tenant_id"),
        *("utm_source", "merchant_name", "", "é", "merchant_id" * 1000),
    ],
)
def test_a_name_of_another_program_is_near_none(name: str) -> None:
    assert nearest(name, OF_EVENTS) is None
    assert suggest(name, OF_EVENTS) == ""
