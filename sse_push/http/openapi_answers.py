"""The answers in the description of the service: of which status, with which code and header.

Made from the list of refusals. Does not know which operation has which answer (``openapi``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sse_push.errors import Refusal
from sse_push.http.bodies import JSON
from sse_push.http.schemas import RESULTS, Node, reference


class _Refused(NamedTuple):
    """An answer of one status, with one of these codes."""

    description: str
    refusals: Sequence[Refusal]
    header: str | None = None
    """A header that the answer always has."""
    more: Node | None = None
    """Keywords of its schema, besides those of ``Error``."""


_NOT_STORED = "Redis has not stored it within notify_timeout_s. Trying again is safe."
_REFUSED = {
    "Malformed": _Refused(
        "Not JSON, an unknown field, a value of a wrong form, a parameter or a credential twice. "
        "Where the body has the fields, any parameter; elsewhere one whose name is a slip for "
        "a known one: others are ignored.",
        [Refusal.MALFORMED],
    ),
    "Unauthorized": _Refused(
        "No key or token, or an invalid one.", [Refusal.UNAUTHORIZED], "WWW-Authenticate"
    ),
    "Forbidden": _Refused(
        "Another merchant, or a page of another origin.",
        [Refusal.FORBIDDEN, Refusal.ORIGIN_NOT_ALLOWED],
    ),
    "MethodNotAllowed": _Refused("Not a preflight.", [Refusal.METHOD_NOT_ALLOWED], "Allow"),
    "TooLarge": _Refused("The body, `data` or the array is too large.", [Refusal.TOO_LARGE]),
    "Unsupported": _Refused("Another Content-Type.", [Refusal.UNSUPPORTED]),
    "RateLimited": _Refused(
        "The key has sent more than notify_rate_per_s.", [Refusal.RATE_LIMITED], "Retry-After"
    ),
    "NotNow": _Refused(
        "For a client that accepts no event stream; others get the soft answer.",
        [Refusal.UNAVAILABLE],
        "Retry-After",
    ),
    "NotStored": _Refused(
        _NOT_STORED, [Refusal.UNAVAILABLE], "Retry-After", {"required": ["outcome"]}
    ),
    "NotAllStored": _Refused(
        f"{_NOT_STORED} For an array `results` has the result of each item.",
        [Refusal.UNAVAILABLE],
        "Retry-After",
        {"required": ["outcome"], "properties": {"results": RESULTS}},
    ),
}


def answer(description: str, schemas: Mapping[str, Node], **more: Node) -> Node:
    """Return an answer whose body, by its media type, has one of these schemas."""
    return {"description": description, "content": content(schemas), **more}


def content(schemas: Mapping[str, Node]) -> Node:
    """Return a body, which has the schema of its media type."""
    return {media_type: {"schema": schema} for media_type, schema in schemas.items()}


def refused(*names: str) -> Mapping[str, Node]:
    """Return the references to these answers, by their status."""
    return {
        str(_REFUSED[name].refusals[0].status): {"$ref": f"#/components/responses/{name}"}
        for name in names
    }


def _response(refused: _Refused) -> Node:
    codes = {"properties": {"error": {"enum": [each.value for each in refused.refusals]}}}
    parts = [reference("Error"), codes, *([] if refused.more is None else [refused.more])]
    described = answer(refused.description, {JSON: {"allOf": parts}})
    if refused.header is None:
        return described
    kind = "integer" if refused.header == "Retry-After" else "string"
    return {**described, "headers": {refused.header: {"required": True, "schema": {"type": kind}}}}


RESPONSES: Node = {name: _response(each) for name, each in _REFUSED.items()}
"""The answers that the document names."""
