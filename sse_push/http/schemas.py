"""The JSON that the service reads and writes, as JSON Schema; and the ways to show a credential.

Made from the forms of names and from the list of refusals. Does not know paths (``openapi``).

https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from sse_push.access.revocation import CLAIM_BYTES
from sse_push.errors import Outcome, Refusal
from sse_push.http.bodies import JSON
from sse_push.notification import (
    BY_CHARACTERS,
    BY_PATTERN,
    ENTRY_ID_PATTERN,
    EVENT_ID_PATTERN,
    NAME_CHARACTERS,
    NAME_PATTERN,
)

Node = Mapping[str, object]
"""A JSON object: a schema, or another part of the document."""

TEXT: Node = {"type": "string"}
NULL: Node = {"type": "null"}
COUNT: Node = {"type": "integer"}
NAME: Node = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}


def reference(name: str) -> Node:
    """Return the reference to a schema of ``SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}


def array_of(*items: Node, **limits: int) -> Node:
    """Return the schema of an array, each item of which is of one of these."""
    return {"type": "array", "items": one_of(*items), **limits}


def one_of(*schemas: Node, description: str | None = None) -> Node:
    """Return a schema that is one of these."""
    described = {} if description is None else {"description": description}
    return {**described, **(schemas[0] if len(schemas) == 1 else {"oneOf": schemas})}


def _fields(**properties: Node) -> Node:
    """Return the schema of an object with these fields only, of which the first is required."""
    return {
        "type": "object",
        "required": [next(iter(properties))],
        "additionalProperties": False,
        "properties": properties,
    }


def _claim(description: str) -> Node:
    length = {"minLength": 1, "maxLength": CLAIM_BYTES}
    return {"description": description, "type": ["string", "null"], **length}


def _merchant_id(description: str) -> Node:
    # An integer stands for its decimal text, whose sign takes one of the characters.
    integer = {
        "type": "integer",
        "minimum": -(10 ** (NAME_CHARACTERS - 1)) + 1,
        "maximum": 10**NAME_CHARACTERS - 1,
    }
    return one_of(NAME, integer, description=description)


RESULTS: Node = array_of(reference("Accepted"), reference("Error"))
"""The answer to an array of notifications."""

ALIVE: Node = {"type": "object", "required": ["alive"], "properties": {"alive": {"const": True}}}
DOCUMENT: Node = {"type": "object", "required": ["openapi", "info", "paths"]}
READINESS: Node = {
    "type": "object",
    "required": ["ready", "leaving", "draining", "workers", "probe_age_s", "primaries_away"],
    "properties": {
        "ready": {"type": "boolean"},
        "leaving": {
            "type": "boolean",
            "description": "The service serves on for shutdown_delay_s, and then stops.",
        },
        "draining": {"type": "boolean"},
        "workers": {
            "type": "object",
            "required": ["expected", "alive"],
            "properties": {"expected": COUNT, "alive": COUNT},
        },
        "probe_age_s": {
            "type": ["number", "null"],
            "description": "Seconds since the worst worker found its probe in Redis, or null.",
        },
        "primaries_away": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Of a cluster, as the worker that answers sees it: host:port of each "
            "primary that takes no entries. If none takes any, all are named, and ready is false.",
        },
    },
}

SCHEMAS: Mapping[str, Node] = {
    "Notification": _fields(
        merchant_id=_merchant_id("The merchant whose data has changed."),
        topic=one_of(NAME, NULL, description="The part of the data that has changed."),
        data={"description": "Any JSON, at most data_limit_bytes: what has changed."},
        by=one_of(
            reference("By"),
            NULL,
            description="The sender's own name for the tab or user that made the change: "
            "printable characters.",
        ),
    ),
    "Form": _fields(
        merchant_id=NAME,
        topic=NAME,
        data={"type": "string", "contentMediaType": JSON},
        by=reference("By"),
    ),
    "By": {
        "type": "string",
        "minLength": 1,
        "maxLength": BY_CHARACTERS,
        "pattern": f"^{BY_PATTERN}$",
    },
    "Revocation": _fields(
        merchant_id=_merchant_id("The merchant whose connections end."),
        jti=_claim("Only connections by the token with this ID end."),
        sub=_claim("Only connections by tokens of this subject end."),
    ),
    "Accepted": _fields(id={"type": "string", "pattern": f"^{EVENT_ID_PATTERN}$"}),
    "Revoked": _fields(id={"type": "string", "pattern": f"^{ENTRY_ID_PATTERN}$"}),
    "Poll": _fields(
        merchants={
            "description": "What the client is owed since its position, by merchant; empty: "
            "nothing.",
            "type": "object",
            "propertyNames": NAME,
            "additionalProperties": {
                "type": "object",
                "required": ["id", "topics", "reason"],
                "additionalProperties": False,
                "properties": {
                    "id": {
                        "description": "The position to give back as it is; null: there is none.",
                        "type": ["string", "null"],
                        "pattern": f"^({NAME_PATTERN}@)?{EVENT_ID_PATTERN}$",
                    },
                    "topics": one_of(
                        array_of(NAME), NULL, description="What has changed; null: anything may."
                    ),
                    "reason": {"enum": ["connected", "missed"]},
                },
            },
        },
        grant={
            "description": "Stands for the rights of the client: its subject and all merchants.",
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
        },
    ),
    "Error": {
        "type": "object",
        "required": ["error", "detail"],
        "properties": {
            "error": {"enum": [refusal.value for refusal in Refusal]},
            "detail": {"type": "string", "description": "What was expected, and what was given."},
            "outcome": {
                "description": "With unavailable: whether Redis may have stored it after all.",
                "enum": [*get_args(Outcome)],
            },
        },
    },
}
"""The schemas that the document names."""

SECURITY_SCHEMES: Node = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of notify_keys; not needed with notify_keys=none.",
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "With subscribe_auth=token; also in the cookie that token_cookie names.",
    },
    "tokenInQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same token, for an EventSource, which can't set headers.",
    },
}
"""How a caller shows a credential, by the names that the document uses."""
