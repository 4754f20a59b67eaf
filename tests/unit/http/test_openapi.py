"""The description of the endpoints, checked against the code, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from sse_push import __version__
from sse_push.access import revocation
from sse_push.http import app
from sse_push.notification import _BY, _ENTRY_ID, _NAME, BY_CHARACTERS, FIELDS
from sse_push.runtime.uvicorn import REFUSALS
from sse_push.settings import Settings

DOCUMENT: dict[str, Any] = json.loads(app._OPENAPI)
SCHEMAS = DOCUMENT["components"]["schemas"]
NOWHERE = {(404, "not_found"), (408, "request_timeout"), (431, "headers_too_large")}
"""What is answered before there is a path, or where none is: paths have no place for it."""


def resolve(node: Any) -> Any:
    """Return what a reference stands for, and anything else as it is."""
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


def patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from patterns(each)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def described() -> set[tuple[int, str]]:
    """Return each status with each code of an error that it may come with."""
    found = set()
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            schema = resolve(response).get("content", {}).get("application/json", {})
            for part in schema.get("schema", {}).get("allOf", ()):
                codes = part.get("properties", {}).get("error", {}).get("enum", ())
                found |= {(int(status), code) for code in codes}
    return found


def answered() -> set[tuple[int, str]]:
    return set(app._STATUSES.values()) | set(app._CODES.items()) | set(REFUSALS.items())


def test_its_paths_and_methods_are_those_of_the_routes(tmp_path: Path) -> None:
    wrapped = app.create_app(Settings(), tmp_path)
    (inner,) = (
        cell.cell_contents
        for cell in wrapped.__closure__ or ()
        if isinstance(cell.cell_contents, Starlette)
    )

    assert {(path, method) for path, method, _ in operations()} == {
        (route.path, method)
        for route in inner.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }


def test_its_errors_are_those_that_are_answered() -> None:
    assert described() | NOWHERE == answered()
    assert set(SCHEMAS["Error"]["properties"]["error"]["enum"]) == {code for _, code in answered()}


def test_its_version_is_this_one() -> None:
    assert DOCUMENT["info"]["version"] == __version__


def test_its_notification_has_the_fields_of_one() -> None:
    assert tuple(SCHEMAS["Notification"]["properties"]) == FIELDS
    assert tuple(SCHEMAS["Form"]["properties"]) == FIELDS


def test_its_revocation_has_the_fields_of_one() -> None:
    assert tuple(SCHEMAS["Revocation"]["properties"]) == revocation.FIELDS
    for name in ("jti", "sub"):
        assert SCHEMAS["Revocation"]["properties"][name]["maxLength"] == revocation.CLAIM_BYTES


def test_its_patterns_are_those_of_the_code() -> None:
    form = SCHEMAS["Form"]["properties"]
    name, by = form["merchant_id"]["pattern"], SCHEMAS["By"]["pattern"]

    assert name == f"^{_NAME.pattern}$"
    assert form["topic"]["pattern"] == name
    # A lone surrogate is no text in JSON Schema, so its pattern need not name them.
    assert by.removesuffix("+$").removeprefix("^") == _BY.pattern.replace(
        r"\ud800-\udfff", ""
    ).removesuffix(f"{{1,{BY_CHARACTERS}}}").replace(r"\x", r"\u00")
    assert SCHEMAS["By"]["maxLength"] == BY_CHARACTERS


def test_every_pattern_is_one_of_these() -> None:
    form = SCHEMAS["Form"]["properties"]
    entry_id = f"^{_ENTRY_ID.pattern.replace('(', '').replace(')', '')}$"

    assert set(patterns(DOCUMENT)) == {
        form["merchant_id"]["pattern"],
        SCHEMAS["By"]["pattern"],
        entry_id,
    }


def test_its_limit_of_an_array_is_the_default() -> None:
    content = DOCUMENT["paths"]["/notify"]["post"]["requestBody"]["content"]
    _, array = content["application/json"]["schema"]["oneOf"]

    assert array["maxItems"] == Settings().notify_max_items


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    kinds = ("responses", "schemas")

    assert all(resolve({"$ref": each}) for each in used)
    assert used == {
        f"#/components/{kind}/{name}" for kind in kinds for name in DOCUMENT["components"][kind]
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_asked_without_a_body_has_none_described(method: str) -> None:
    assert not any("requestBody" in each for _, name, each in operations() if name == method)


def test_every_way_to_show_who_one_is_is_described() -> None:
    schemes = set(DOCUMENT["components"]["securitySchemes"])
    shown = {name for *_, each in operations() for way in each["security"] for name in way}

    assert shown == schemes
