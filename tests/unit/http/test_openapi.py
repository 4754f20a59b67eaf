"""The description of the endpoints: what its construction does not make true by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from sse_push.errors import Refusal
from sse_push.http.app import ROUTES
from sse_push.http.openapi import describe
from sse_push.http.schemas import SCHEMAS

DOCUMENT: dict[str, Any] = json.loads(json.dumps(describe(ROUTES, notify_max_items=1000)))
EVERYWHERE = {
    Refusal.NOT_FOUND,
    Refusal.REQUEST_TIMEOUT,
    Refusal.HOST_NOT_ALLOWED,
    Refusal.HEADERS_TOO_LARGE,
    Refusal.INTERNAL,
}
"""Refusals that belong to no path."""


def resolve(node: Any) -> Any:
    """Return the target of a reference, and any other node unchanged."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for item in DOCUMENT["paths"].values():
        for method, operation in item.items():
            yield method.upper(), operation


def described_refusals() -> set[tuple[int, str]]:
    found = set()
    for _, operation in operations():
        for status, response in operation["responses"].items():
            schema = resolve(response).get("content", {}).get("application/json", {})
            for part in schema.get("schema", {}).get("allOf", ()):
                codes = part.get("properties", {}).get("error", {}).get("enum", ())
                found |= {(int(status), code) for code in codes}
    return found


def test_the_document_has_every_method_of_every_route_and_no_other() -> None:
    assert {(path, method) for path, item in DOCUMENT["paths"].items() for method in item} == {
        (route.path, method.lower()) for route in ROUTES for method in route.methods or ()
    }


def test_a_route_without_a_description_is_an_error() -> None:
    with pytest.raises(KeyError, match="/other"):
        describe([Route("/other", lambda: None)], notify_max_items=1)


def test_every_refusal_has_a_path_or_belongs_to_none() -> None:
    anywhere = {(refusal.status, refusal.value) for refusal in EVERYWHERE}

    assert described_refusals() | anywhere == {(each.status, each.value) for each in Refusal}
    assert described_refusals() & anywhere == set()
    assert all(f"`{code}`" in DOCUMENT["info"]["description"] for _, code in anywhere)


def test_the_longest_array_is_that_of_the_settings() -> None:
    content = describe(ROUTES, notify_max_items=7)["paths"]

    assert '"maxItems": 7' in json.dumps(content)


def test_every_reference_has_its_target_and_every_component_is_used() -> None:
    used = set(references(DOCUMENT))

    assert all(resolve({"$ref": each}) for each in used)
    assert used == {
        f"#/components/{kind}/{name}"
        for kind in ("responses", "schemas")
        for name in DOCUMENT["components"][kind]
    }


def test_every_schema_of_the_service_is_in_the_document() -> None:
    assert set(DOCUMENT["components"]["schemas"]) == set(SCHEMAS)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_a_body_has_none_described(method: str) -> None:
    assert not any("requestBody" in each for name, each in operations() if name == method)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_an_answer_without_a_body_has_none_described(method: str) -> None:
    answers = [
        (status, answer)
        for name, operation in operations()
        if name == method
        for status, answer in operation["responses"].items()
    ]

    assert [status for status, each in answers if status < "400" and "content" in each] == []


def test_every_security_scheme_is_used() -> None:
    used = {name for _, each in operations() for way in each["security"] for name in way}

    assert used == set(DOCUMENT["components"]["securitySchemes"])
