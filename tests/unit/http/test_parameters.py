from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from sse_push.errors import InvalidQuery, RefusalReason
from sse_push.http.parameters import OF_EVENTS, only, read_query, refuse_parameters
from sse_push.notification import FIELDS


def request_of(query: str) -> Request[Any]:
    return Request({"type": "http", "headers": [], "query_string": query.encode()})


def test_a_parameter_is_its_value_or_none_and_stands_once() -> None:
    query = read_query(request_of("merchant_id=42&token=1&_=1&token=2&_=2"), OF_EVENTS)

    assert only(query, "merchant_id") == "42"
    assert only(query, "last_event_id") is None
    with pytest.raises(InvalidQuery, match="token: expected once in the query, got 2") as refused:
        only(query, "token")
    assert refused.value.reason is RefusalReason.REPEATED_PARAMETER


@pytest.mark.parametrize(
    "query",
    [
        "merchant_id=42&last_event_id=1-0&token=t&lastEventId=1-0",
        "merchant_id=42&_=1732651200&nocache&my_token=t&é=1",
        "",
    ],
)
def test_a_known_parameter_and_one_that_is_near_to_none_pass(query: str) -> None:
    assert set(read_query(request_of(query), OF_EVENTS)) <= set(OF_EVENTS)


@pytest.mark.parametrize(
    ("query", "text", "who"),
    [
        (
            "merchantId=42",
            "expected merchant_id, got merchantId: did you mean merchant_id?",
            "parameter merchantId for merchant_id",
        ),
        (
            "merchant_id=42&_=1&lastEventID=1-0",
            "expected last_event_id, got lastEventID: did you mean last_event_id?",
            "parameter lastEventID for last_event_id",
        ),
        (
            "merchant_id%0a%1b=42",
            r"expected merchant_id, got merchant_id\n\x1b: did you mean merchant_id?",
            r"parameter merchant_id\n\x1b for merchant_id",
        ),
    ],
)
def test_a_slip_is_refused_with_the_name_that_was_meant(query: str, text: str, who: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        read_query(request_of(query), OF_EVENTS)

    assert (str(refused.value), refused.value.who) == (text, who)
    assert refused.value.reason is RefusalReason.UNKNOWN_PARAMETER


@pytest.mark.parametrize(
    ("query", "got"),
    [
        ("merchantId=42", "'merchantId' in the URL: did you mean merchant_id?"),
        ("topic=seats", "'topic' in the URL: did you mean topic?"),
        ("_=1", "'_' in the URL"),
    ],
)
def test_a_parameter_is_refused_where_the_body_has_the_fields(query: str, got: str) -> None:
    for empty in ("", "&"):
        refuse_parameters(request_of(empty), FIELDS)

    with pytest.raises(InvalidQuery) as refused:
        refuse_parameters(request_of(query), FIELDS)

    assert str(refused.value) == f"expected all fields in the body, got {got}"
