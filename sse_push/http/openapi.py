"""The description of the service as OpenAPI 3.1, made once at the start.

Made from the routes, the refusals, the schemas, and the settings of this process. Does not know how
a request is answered (``endpoints``).

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from starlette.routing import Route

from sse_push import __version__
from sse_push.access.gate import MERCHANT_HEADER
from sse_push.access.origin import PREFLIGHT_HEADERS
from sse_push.event_stream.wire import MEDIA_TYPE
from sse_push.http import paths
from sse_push.http.bodies import FORM, JSON
from sse_push.http.openapi_answers import RESPONSES, answer, content, refused
from sse_push.http.parameters import GRANT, LAST_EVENT_ID, LAST_EVENT_ID_OF_POLYFILL, MERCHANT
from sse_push.http.schemas import (
    ALIVE,
    COUNT,
    DOCUMENT,
    NAME,
    READINESS,
    RESULTS,
    SCHEMAS,
    SECURITY_SCHEMES,
    TEXT,
    Node,
    array_of,
    one_of,
    reference,
)

Operations = Mapping[tuple[str, str], Node]
"""Operations by method and path."""

_BY_ANYONE: Sequence[Node] = [{}]
_BY_BACKENDS: Sequence[Node] = [{}, {"key": []}]
_BY_CLIENTS: Sequence[Node] = [{}, {"token": []}, {"tokenInQuery": []}]


def describe(routes: Iterable[Route], *, notify_max_items: int) -> Node:
    """Return the document; each method of a route must have its operation below."""
    operations = {**_EVENTS, **_notify(notify_max_items), **_REVOKE, **_MONITORING}
    described: dict[str, dict[str, Node]] = {}
    for route in routes:
        for method in sorted(route.methods or ()):
            described.setdefault(route.path, {})[method.lower()] = operations[method, route.path]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sse-push",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "Tells every open browser of a merchant that its data has changed. "
            "The answer to a refused request is JSON, `Error`. Another path is answered with 404 "
            "`not_found`, another method with 405 `method_not_allowed`, another host with 421 "
            "`host_not_allowed`. The connection is closed after a request that is not HTTP "
            "(400 `malformed`), whose headers are too large (431 `headers_too_large`), or that "
            "comes too slowly (408 `request_timeout`). An error of the service itself is answered "
            "with 500 `internal`.",
        },
        "paths": described,
        "components": {
            "securitySchemes": SECURITY_SCHEMES,
            "responses": RESPONSES,
            "schemas": SCHEMAS,
        },
    }


# -- operations


def _parameter(place: str, name: str, description: str, **more: object) -> Node:
    return {"name": name, "in": place, "description": description, "schema": TEXT, **more}


_METHODS = "Access-Control-Allow-Methods"
_CORS_HEADERS: Node = {
    "Vary": {"description": "Origin, if allowed_origins is set.", "schema": TEXT},
    "Access-Control-Allow-Origin": {
        "description": "For pages of allowed_origins.",
        "schema": TEXT,
    },
}
_EVENT_STREAM = answer(
    "The event stream: `ready`, then `position`, `refresh`, `heartbeat`, `expiring`; the last is "
    "`goodbye`. With X-Sse-Push-Soft-Answer `goodbye` is the only event, and the client should "
    "come back later. A client that accepts JSON, and no event stream, polls: it is told at once "
    "what it is owed.",
    {MEDIA_TYPE: TEXT, JSON: reference("Poll")},
    headers={
        "Cache-Control": {"schema": {"enum": ["no-store, no-transform", "no-store"]}},
        "Retry-After": {
            "description": "In the answer to a poll: the seconds until the next one.",
            "schema": COUNT,
        },
        "Access-Control-Expose-Headers": {"schema": {"const": "Retry-After"}},
        "X-Accel-Buffering": {"schema": {"const": "no"}},
        "X-Sse-Push-Soft-Answer": {"schema": {"const": "1"}},
        **_CORS_HEADERS,
    },
)
_PARAMETERS = [
    _parameter(
        "query",
        MERCHANT,
        "The merchants whose changes are sent, once each, up to max_merchants_per_connection. "
        "Without any: all merchants of the token, or of the proxy's header.",
        schema=array_of(NAME),
        example=["42"],
    ),
    _parameter(
        "query",
        LAST_EVENT_ID,
        "The last event ID that the page was rendered with. Any other text is unknown, and so is "
        "one from before Redis was restarted or replaced: the client gets a refresh. Unless just "
        "one merchant_id is given, it names its merchant (42@1795454750480-0.9f86d081), counts "
        "only for that one, and may stand once for each; two that differ for one are unknown.",
        schema=array_of(TEXT),
        example=["1795454750480-0.9f86d081"],
    ),
    _parameter(
        "query",
        LAST_EVENT_ID_OF_POLYFILL,
        "The same, as event-source-polyfill adds it to the URL; wins over last_event_id.",
    ),
    _parameter(
        "query",
        GRANT,
        "With 1, `ready` has `grant` also if just one merchant_id is given: it stands for the "
        "client's rights.",
    ),
    _parameter("header", "Last-Event-ID", "Set by EventSource; wins over the query."),
    _parameter(
        "header", "Origin", "Set by browsers. A foreign origin must be one of allowed_origins."
    ),
    _parameter(
        "header",
        MERCHANT_HEADER,
        "With subscribe_auth=header: the client's merchants, set by a trusted proxy.",
    ),
]
_EVENTS: Operations = {
    ("GET", paths.EVENTS): {
        "summary": "Receive an event when the data of a merchant changes",
        "security": _BY_CLIENTS,
        "parameters": _PARAMETERS,
        "responses": {
            "200": _EVENT_STREAM,
            **refused("Malformed", "Unauthorized", "Forbidden", "NotNow"),
        },
    },
    ("HEAD", paths.EVENTS): {
        "summary": "Whether a client may receive events, without an event stream",
        "security": _BY_CLIENTS,
        "parameters": _PARAMETERS,
        "responses": {
            "200": {"description": "The client may."},
            **{status: {"description": "As for GET."} for status in ("400", "401", "403")},
        },
    },
    ("OPTIONS", paths.EVENTS): {
        "summary": "Answer a browser's preflight",
        "security": _BY_ANYONE,
        "parameters": [
            _parameter("header", "Origin", "The origin of the page."),
            _parameter("header", "Access-Control-Request-Method", "The method to ask about."),
        ],
        "responses": {
            "204": {
                "description": "Pages of this origin may receive events.",
                "headers": {
                    **_CORS_HEADERS,
                    _METHODS: {"schema": {"const": PREFLIGHT_HEADERS[_METHODS]}},
                },
            },
            **refused("Forbidden", "MethodNotAllowed"),
        },
    },
}


def _notify(max_items: int) -> Operations:
    notification, form = reference("Notification"), reference("Form")
    several = array_of(notification, maxItems=max_items)
    return {
        ("POST", paths.NOTIFY): {
            "summary": "Announce that the data of a merchant has changed",
            "security": _BY_BACKENDS,
            "requestBody": {
                "required": True,
                "content": content({JSON: one_of(notification, several), FORM: form}),
            },
            "responses": {
                "200": answer(
                    "Redis has stored the notification. An array is answered with an array, in "
                    "the same order.",
                    {JSON: one_of(reference("Accepted"), RESULTS)},
                ),
                **refused("Malformed", "Unauthorized", "Forbidden", "TooLarge", "Unsupported"),
                **refused("RateLimited", "NotAllStored"),
            },
        }
    }


_REVOKE: Operations = {
    ("POST", paths.REVOKE): {
        "summary": "End connections, and refuse their tokens until these would have expired",
        "security": _BY_BACKENDS,
        "requestBody": {"required": True, "content": content({JSON: reference("Revocation")})},
        "responses": {
            "200": answer(
                "Redis has stored the revocation; the connections end within a second, in every "
                "worker.",
                {JSON: reference("Revoked")},
            ),
            **refused("Malformed", "Unauthorized", "Forbidden", "TooLarge", "Unsupported"),
            **refused("RateLimited", "NotStored"),
        },
    }
}


def _open(path: str, summary: str, responses: Mapping[str, Node]) -> Operations:
    """Return GET and HEAD of a path that anyone may ask."""
    without_body = {
        status: {"description": response["description"]} for status, response in responses.items()
    }
    get = {"summary": summary, "security": _BY_ANYONE, "responses": responses}
    head = {**get, "summary": f"{summary}, without a body", "responses": without_body}
    return {("GET", path): get, ("HEAD", path): head}


_MONITORING: Operations = {
    **_open(
        paths.HEALTHZ,
        "Whether the process lives",
        {"200": answer("The process lives.", {JSON: ALIVE})},
    ),
    **_open(
        paths.READYZ,
        "Whether every worker receives changes from Redis",
        {
            "200": answer("Every worker does.", {JSON: READINESS}),
            "503": answer("A worker does not, or the service drains.", {JSON: READINESS}),
        },
    ),
    **_open(
        paths.METRICS,
        "The metrics of all workers together",
        {
            "200": answer(
                "In the format that the client prefers.",
                {"text/plain": TEXT, "application/openmetrics-text": TEXT},
            )
        },
    ),
    **_open(paths.OPENAPI, "This description", {"200": answer("OpenAPI 3.1.", {JSON: DOCUMENT})}),
}
