"""The endpoints: each parses a request, calls the parts of the service, and answers.

Knows HTTP and the parts in ``State``. Does not know Redis (``stream``), how connections are served
(``hub``, ``event_stream``), nor how a refused request is answered (``answers``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sse_push.access.gate import authorize_notify
from sse_push.access.grant import Rights
from sse_push.access.keys import NotifyKey
from sse_push.access.origin import PREFLIGHT_HEADERS, require_backend
from sse_push.access.revocation import FIELDS as FIELDS_OF_REVOCATION
from sse_push.access.revocation import Revocation
from sse_push.access.room import Place
from sse_push.errors import (
    EndReason,
    InvalidRevocation,
    NotNow,
    RefusalReason,
    RequestError,
    StreamUnavailable,
    TooLarge,
    TooManyNotifications,
)
from sse_push.event_stream import (
    HEADERS,
    EventStreams,
    Listening,
    open_event_stream,
    poll,
    position_of,
    wire,
)
from sse_push.http.answers import KEY_SCOPE_KEY, asks_to_poll, body_of, count, not_all_stored
from sse_push.http.bodies import FORM, JSON, parse_form, read_body, require_media_type
from sse_push.http.parameters import (
    GRANT,
    LAST_EVENT_ID,
    LAST_EVENT_ID_OF_POLYFILL,
    MERCHANT,
    OF_EVENTS,
    only,
    read_query,
    refuse_parameters,
)
from sse_push.http.service import State
from sse_push.notification import FIELDS, EventId, Notification, parse_json

logger = logging.getLogger(__name__)

PLACE_SCOPE_KEY = "sse_push.place"
"""The key of the connection's place in the ASGI scope of a request to ``/events``."""

_REVOCATIONS_WAIT_S = 0.5
"""How long a client waits for revocations to be read before it is asked to come back later."""


# -- for browsers


async def events(request: Request[State]) -> Response:
    """GET /events?merchant_id=42[&merchant_id=43] -> 200, an event stream, or JSON."""
    state = request.state
    state["origins"].check(request.headers)
    query = read_query(request, OF_EVENTS)
    requested = query.get(MERCHANT, ())
    rights = state["gate"].authorize_subscribe(request, requested)
    merchant_ids = rights.merchant_ids
    # The hub checks the grants again, in one step with adding the connection. The check is also
    # here because a HEAD request never reaches the hub, and because a revoked client gets 401
    # rather than a soft answer.
    for grant in rights.grants:
        state["hub"].require_unrevoked(grant)
    streams, is_poll = state["event_streams"], asks_to_poll(request.headers)
    listening = _listening(request, query, rights, is_poll=is_poll)
    if request.method == "HEAD":
        headers, media_type = (_of_poll(streams), JSON) if is_poll else (HEADERS, wire.MEDIA_TYPE)
        return Response(headers=headers, media_type=media_type)
    await _require_serving(state)
    place: Place = request.scope[PLACE_SCOPE_KEY]
    place.reserve(merchant_ids, _counted_address(request))
    if is_poll:
        return JSONResponse(await poll(streams, listening), headers=_of_poll(streams))
    return open_event_stream(streams, request.scope, listening)


def _of_poll(streams: EventStreams) -> Mapping[str, str]:
    """Return the headers of the answer to a poll, with the pace of its client."""
    return {"Cache-Control": "no-store", "Retry-After": str(streams.jittered_poll_s())}


def _listening(
    request: Request[State], query: Mapping[str, list[str]], rights: Rights, *, is_poll: bool
) -> Listening:
    """Return what a client listens to, from which positions, and how it is told."""
    # The header wins: it is newer than the page, which has the ID in its URL.
    header = request.headers.get("last-event-id")
    given = (
        () if header is None else (header,),
        query.get(LAST_EVENT_ID_OF_POLYFILL, ()),
        query.get(LAST_EVENT_ID, ()),
    )
    # Unless its URL names one merchant, a request may be for another one than that of its ID.
    is_named = MERCHANT not in query or len(rights.grants) > 1
    positions = [
        position_of(grant.merchant_id, given, is_named=is_named) for grant in rights.grants
    ]
    wants_digest = (GRANT in query and only(query, GRANT) == "1") or is_named or is_poll
    digest = request.state["gate"].digest(rights) if wants_digest else None
    return Listening(rights.grants, tuple(positions), is_named, digest)


async def preflight(request: Request[State]) -> Response:
    """OPTIONS /events from a page of an allowed origin -> 204 with what it may send.

    https://fetch.spec.whatwg.org/#cors-preflight-request
    """
    request.state["origins"].check(request.headers)
    if not {"origin", "access-control-request-method"} <= set(request.headers):
        raise HTTPException(405, headers={"Allow": "GET, HEAD"})
    return Response(status_code=204, headers=PREFLIGHT_HEADERS)


async def _require_serving(state: State) -> None:
    """Wait until revocations are known, where tokens can be revoked; usually they are.

    Raises:
        NotNow: revocations are still unknown, or the service drains, maybe since this wait began.
    """
    has_tokens, follower, hub = state["settings"].has_tokens, state["follower"], state["hub"]
    is_known = (
        hub.is_draining  # no client is served, so there is nothing to wait for
        or not has_tokens
        or await follower.wait_for_revocations(_REVOCATIONS_WAIT_S)
    )
    if hub.is_draining:
        raise NotNow(EndReason.SERVER_STOPPING)
    if not is_known:
        raise NotNow(EndReason.NOT_READY)


def _counted_address(request: Request[State]) -> str | None:
    """Return the client's address, or None if connections per address have no limit."""
    state = request.state
    if not state["settings"].max_connections_per_address:
        return None
    forwarded_for = request.headers.getlist("x-forwarded-for")
    return state["gate"].proxies.client_address(request.scope.get("client"), forwarded_for)


# -- for backends


async def notify(request: Request[State]) -> Response:
    """POST /notify with a notification, or an array of them -> 200 ``{"id": "<ms>-<seq>.<h>"}``."""
    state, settings = request.state, request.state["settings"]
    key = _authorize_backend(request)
    refuse_parameters(request, FIELDS)
    body = await read_body(request, settings.body_limit_bytes)
    is_json = require_media_type(request, JSON, FORM) == JSON
    value = parse_json(body) if is_json else parse_form(body)
    require_rate(state, key, len(value) if isinstance(value, list) else 1)
    if isinstance(value, list):
        return await _notify_all(request, value, key)
    notification = _notification(value, key, settings.data_limit_bytes)
    event_id = await state["appender"].append(notification)
    return JSONResponse({"id": str(event_id)})


async def _notify_all(
    request: Request[State], values: list[object], key: NotifyKey | None
) -> Response:
    """Answer 200 with a result per item, in order; 503 if Redis has not stored all valid ones."""
    state, settings = request.state, request.state["settings"]
    if len(values) > settings.notify_max_items:
        raise TooLarge(
            f"expected at most {settings.notify_max_items} items, got {len(values)}",
            reason=RefusalReason.TOO_MANY_ITEMS,
        )
    items = [_notification_or_error(each, key, settings.data_limit_bytes) for each in values]
    for item in items:
        if isinstance(item, RequestError):
            count(request, item.reason, item.who)
    valid = [item for item in items if isinstance(item, Notification)]
    appended = iter(await state["appender"].append_all(valid))
    outcomes = [next(appended) if isinstance(item, Notification) else item for item in items]
    results = [_result(outcome) for outcome in outcomes]
    failures = [outcome for outcome in outcomes if isinstance(outcome, StreamUnavailable)]
    if failures:
        count(request, failures[0].reason)
        return not_all_stored(failures, results)
    return JSONResponse(results)


def _notification(value: object, key: NotifyKey | None, data_limit_bytes: int) -> Notification:
    notification = Notification.from_value(value, data_limit_bytes=data_limit_bytes)
    if key is not None:
        key.require(notification.merchant_id)
    return notification


def _notification_or_error(
    value: object, key: NotifyKey | None, data_limit_bytes: int
) -> Notification | RequestError:
    try:
        return _notification(value, key, data_limit_bytes)
    except RequestError as exc:
        return exc


def _result(outcome: EventId | RequestError) -> dict[str, object]:
    return {"id": str(outcome)} if isinstance(outcome, EventId) else body_of(outcome)


async def revoke(request: Request[State]) -> Response:
    """POST /revoke ``{"merchant_id", "jti"?, "sub"?}`` -> 200 ``{"id": "<ms>-<seq>"}``."""
    settings = request.state["settings"]
    key = _authorize_backend(request)
    refuse_parameters(request, FIELDS_OF_REVOCATION)
    require_media_type(request, JSON)
    value = parse_json(await read_body(request, settings.body_limit_bytes))
    require_rate(request.state, key, 1)
    revocation = Revocation.from_value(value)
    if key is not None:
        key.require(revocation.merchant_id)
    if not settings.has_tokens and {revocation.token_id, revocation.subject} != {None}:
        raise InvalidRevocation(
            "expected merchant_id only, got jti or sub: no connection here has a token "
            f"(subscribe_auth is {settings.subscribe_auth})"
        )
    # No client compares the ID of a revocation, so its history is of no use.
    entry_id = (await request.state["appender"].append(revocation)).entry_id
    logger.info("revoked merchant_id=%s id=%s", revocation.merchant_id, entry_id)
    return JSONResponse({"id": str(entry_id)})


def _authorize_backend(request: Request[State]) -> NotifyKey | None:
    """Return the key of a backend; a page is refused even with a key."""
    require_backend(request.headers)
    keys = request.state["settings"].notify_keys
    assert keys is not None, "refused at the start"
    key = authorize_notify(request.headers.getlist("authorization"), keys)
    if key is not None:
        request.scope[KEY_SCOPE_KEY] = key.name
    return key


def require_rate(state: State, key: NotifyKey | None, count: int) -> None:
    """Refuse notifications of a key, or without one, that come too often.

    Raises:
        TooManyNotifications: the caller has used up its rate.
    """
    retry_after_s = state["rates"].spend(key, count)
    if retry_after_s:
        settings = state["settings"]
        raise TooManyNotifications(
            f"expected at most {settings.notify_rate_per_s:g} notifications and revocations per "
            f"second, and {settings.notify_burst} at once, got more",
            retry_after_s,
        )


# -- for operators


async def healthz(_request: Request[State]) -> Response:
    """GET /healthz -> 200 while the process lives."""
    return JSONResponse({"alive": True})


async def readyz(request: Request[State]) -> Response:
    """GET /readyz -> 200 while every worker finds its probes in Redis; 503 otherwise.

    503 as well once the service is to stop, also while it still serves (``shutdown_delay_s``).
    """
    state = request.state
    expected, deadline_s = state["settings"].workers, state["settings"].probe_deadline_s
    found, is_draining = state["board"].read(), state["hub"].is_draining
    is_leaving = state["leaving"].is_set()
    has_all = found.workers >= expected and found.worst_age_s <= deadline_s
    is_ready = has_all and not is_leaving and not is_draining
    body = {
        "ready": is_ready,
        "leaving": is_leaving,
        "draining": is_draining,
        "workers": {"expected": expected, "alive": found.workers},
        "probe_age_s": None if found.worst_age_s == float("inf") else round(found.worst_age_s, 1),
        "primaries_away": state["follower"].primaries_away,
    }
    return JSONResponse(body, status_code=200 if is_ready else 503)


async def metrics(request: Request[State]) -> Response:
    """GET /metrics -> 200 with the numbers of all workers together, for Prometheus."""
    series = request.state["metrics"]
    series.update()
    accept = request.headers.get("accept", "")
    # In a thread, since it reads the files of every worker.
    content, media_type = await run_in_threadpool(series.render, accept)
    return Response(content, headers={"Content-Type": media_type})


async def openapi(request: Request[State]) -> Response:
    """GET /openapi.json -> 200 with the description of the service as OpenAPI 3.1."""
    return Response(request.state["openapi"], media_type=JSON)
