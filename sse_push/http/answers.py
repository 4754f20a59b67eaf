"""How a refused request is answered, hard or soft: the status, the headers and the JSON.

Knows HTTP, the list of refusals, and whom the log names. Does not know why a request was refused.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from sse_push.access.keys import name_merchant
from sse_push.errors import (
    EndReason,
    InvalidMerchantId,
    NotNow,
    Refusal,
    RefusalReason,
    RequestError,
    StreamUnavailable,
    TooManyNotifications,
    Unauthorized,
)
from sse_push.event_stream import wire
from sse_push.http import paths
from sse_push.http.bodies import JSON
from sse_push.notification import parse_merchant_id
from sse_push.runtime.uvicorn import REFUSED_KEY

logger = logging.getLogger(__name__)

KEY_SCOPE_KEY = "sse_push.key"
"""The name of the key of a backend's request, in its ASGI scope."""

_RETRY_AFTER_S = 2
_BY_STATUS = {
    reason.refusal.status: reason
    for reason in (
        RefusalReason.MALFORMED_BODY,
        RefusalReason.NOT_FOUND,
        RefusalReason.METHOD_NOT_ALLOWED,
    )
}
"""The reasons that are raised as Starlette's own exception."""


def accepts_event_stream(headers: Headers) -> bool:
    """Tell whether a client can read an event stream; nginx decides by the same rule."""
    accepts = (headers.get("accept") or "*/*").lower()
    return wire.MEDIA_TYPE in accepts or "*/*" in accepts


def asks_to_poll(headers: Headers) -> bool:
    """Tell whether a client wants JSON at once instead of an event stream."""
    return JSON in headers.get("accept", "").lower() and not accepts_event_stream(headers)


def body_of(error: RequestError) -> dict[str, object]:
    """Return the JSON object that answers a refused request, or a refused item of an array."""
    more = {"outcome": error.outcome} if isinstance(error, StreamUnavailable) else {}
    return error.refusal.body(str(error), **more)


def refuse(request: Request[Any], error: RequestError) -> Response:
    """Return the answer to a request that is refused before any route has it, and count it."""
    count(request, error.reason, error.who)
    return _answer(error.refusal, body_of(error))


def count(
    request: Request[Any], reason: RefusalReason, who: str | None = None, *, is_soft: bool = False
) -> None:
    """Count a refusal, and log whom or what it is about: by default, the caller."""
    path = request.scope["path"]
    known = path if path in paths.ALL else "-"  # the log repeats nothing that a stranger wrote
    request.state["refusals"].add(reason, known, who or _caller(request), is_soft=is_soft)


def _caller(request: Request[Any]) -> str:
    """Return the place of the caller's key, else the merchant that it names, else its address."""
    key = request.scope.get(KEY_SCOPE_KEY)
    if key is not None:
        return str(key)
    if request.scope["path"] == paths.EVENTS:
        with contextlib.suppress(InvalidMerchantId):
            return name_merchant(parse_merchant_id(request.query_params.get("merchant_id")))
    forwarded_for = request.headers.getlist("x-forwarded-for")
    proxies = request.state["gate"].proxies
    address = proxies.client_address(request.scope.get("client"), forwarded_for)
    return f"address {address or 'unknown'}"


def not_all_stored(
    failures: Sequence[StreamUnavailable], results: Sequence[Mapping[str, object]]
) -> Response:
    """Return 503 for an array some of whose items Redis has not stored, with all results.

    The outcome of the array is unknown if that of any item is.
    """
    refusal = failures[0].refusal
    outcomes = {failure.outcome for failure in failures}
    body = refusal.body(
        f"{len(failures)} of {len(results)} not stored: {failures[0]}",
        outcome="unknown" if "unknown" in outcomes else "not_published",
        results=results,
    )
    return _answer(refusal, body, {"Retry-After": str(_RETRY_AFTER_S)})


async def _on_request_error(request: Request[Any], exc: Exception) -> Response:
    assert isinstance(exc, RequestError), "registered for it only"
    headers = {}
    if isinstance(exc, StreamUnavailable):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
        logger.debug("not stored outcome=%s cause=%s", exc.outcome, exc.__cause__)
    if isinstance(exc, TooManyNotifications):
        headers["Retry-After"] = str(exc.retry_after_s)
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = exc.challenge
    count(request, exc.reason, exc.who)
    return _answer(exc.refusal, body_of(exc), headers)


async def _on_not_now(request: Request[Any], exc: Exception) -> Response:
    """Ask a client that accepts an event stream to come back by a soft answer, others by 503.

    EventSource gives up after any status but 200, so that a soft answer is 200.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
    """
    assert isinstance(exc, NotNow), "registered for it only"
    streams, is_soft = request.state["event_streams"], accepts_event_stream(request.headers)
    if not (is_soft and exc.reason is EndReason.SERVER_STOPPING):  # which every deploy does
        count(request, RefusalReason[exc.reason.name], exc.who, is_soft=is_soft)
    if is_soft:
        answer: Response = streams.soft_answer(exc.reason)
        return answer
    # At random, as clients that poll would return together otherwise.
    body = Refusal.UNAVAILABLE.body(exc.reason.value)
    return _answer(Refusal.UNAVAILABLE, body, {"Retry-After": str(streams.jittered_poll_s())})


async def _on_client_disconnect(request: Request[Any], _exc: Exception) -> Response:
    """Answer a client that left before the end of its body; nobody reads the answer."""
    if REFUSED_KEY not in request.scope:  # otherwise the server has counted it
        count(request, RefusalReason.BODY_CUT)
    body = Refusal.MALFORMED.body("expected the rest of the body, got its end")
    return _answer(Refusal.MALFORMED, body)


async def _on_http_exception(request: Request[Any], exc: Exception) -> Response:
    """Answer in JSON what Starlette refuses: another path, another method."""
    assert isinstance(exc, HTTPException), "registered for it only"
    reason, detail, headers = _BY_STATUS[exc.status_code], exc.detail, dict(exc.headers or {})
    refusal = reason.refusal
    if detail == HTTPStatus.NOT_FOUND.phrase:  # not a text of the endpoint
        detail = f"expected {_paths(request)}, got another path"
    if refusal is Refusal.METHOD_NOT_ALLOWED:
        # Starlette joins a set, whose order differs from process to process.
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        detail = f"expected {headers['Allow']}, got {request.method}"
    count(request, reason)
    return _answer(refusal, refusal.body(detail), headers)


async def _on_error(request: Request[Any], _exc: Exception) -> Response:
    """Answer in JSON what nobody has foreseen; the server logs it."""
    count(request, RefusalReason.INTERNAL)
    body = Refusal.INTERNAL.body("expected an answer, got an error, which the log has")
    return _answer(Refusal.INTERNAL, body)


def _paths(request: Request[Any]) -> str:
    routes = (route.path for route in request.app.routes if isinstance(route, Route))
    *others, last = dict.fromkeys(routes)
    return f"{', '.join(others)} or {last}"


def _answer(
    refusal: Refusal, body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(body, refusal.status, headers)


EXCEPTION_HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    RequestError: _on_request_error,
    NotNow: _on_not_now,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_client_disconnect,
    Exception: _on_error,
}
"""The answer to each exception that an endpoint, or Starlette, raises."""
