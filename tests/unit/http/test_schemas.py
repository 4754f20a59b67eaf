"""The schemas, held against the code that reads the same bodies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sse_push.access.revocation import FIELDS as REVOCATION_FIELDS
from sse_push.access.revocation import Revocation
from sse_push.errors import RequestError
from sse_push.http.schemas import SCHEMAS
from sse_push.notification import FIELDS, Notification

SCHEMA: dict[str, Any] = dict(SCHEMAS)


def fields_of(name: str) -> tuple[str, ...]:
    return tuple(SCHEMA[name]["properties"])


def test_the_schemas_have_the_fields_that_are_read() -> None:
    assert fields_of("Notification") == fields_of("Form") == FIELDS
    assert fields_of("Revocation") == REVOCATION_FIELDS


def is_accepted(**fields: object) -> bool:
    try:
        Notification.from_value(fields, data_limit_bytes=100)
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("integer", ["minimum", "maximum"])
def test_the_range_of_a_merchants_integer_is_exact(integer: str) -> None:
    limit = SCHEMA["Notification"]["properties"]["merchant_id"]["oneOf"][1][integer]
    beyond = limit + (1 if integer == "maximum" else -1)

    assert is_accepted(merchant_id=limit)
    assert not is_accepted(merchant_id=beyond)


def test_the_characters_of_by_are_those_that_its_schema_accepts() -> None:
    pattern = re.compile(SCHEMA["By"]["pattern"])
    characters = [chr(code) for code in range(0x2100)]

    described = [each for each in characters if pattern.search(each)]

    assert described == [each for each in characters if is_accepted(merchant_id="42", by=each)]
    assert len(described) > 8000


@pytest.mark.parametrize("name", ["jti", "sub"])
def test_the_longest_claim_is_that_of_the_schema(name: str) -> None:
    longest = SCHEMA["Revocation"]["properties"][name]["maxLength"]

    assert Revocation.from_value({"merchant_id": "42", name: "x" * longest})
    with pytest.raises(RequestError):
        Revocation.from_value({"merchant_id": "42", name: "x" * (longest + 1)})
