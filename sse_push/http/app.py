"""The HTTP interface: parse, call, answer; and the lifespan of what answers.

Knows HTTP and ASGI. Does not know Redis (``stream``), the wire format (``wire``), nor how
connections are served (``hub``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict, cast
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_push.access.gate import Gate, authorize_notify
from sse_push.access.keys import NotifyKey
from sse_push.access.origin import PREFLIGHT_HEADERS, Origins, require_backend
from sse_push.access.proxies import Proxies
from sse_push.access.rate import Rates
from sse_push.access.revocation import Revocation, Revocations
from sse_push.access.room import Place, Room
from sse_push.access.token_keys import load_keys
from sse_push.access.tokens import TokenRules
from sse_push.errors import (
    AmbiguousCredentials,
    EndReason,
    Forbidden,
    InvalidMerchantId,
    InvalidNotification,
    InvalidRevocation,
    NotNow,
    OriginNotAllowed,
    PushError,
    StreamUnavailable,
    TooLarge,
    TooManyNotifications,
    Unauthorized,
)
from sse_push.event_stream import transport as event_stream
from sse_push.event_stream import wire
from sse_push.event_stream.transport import Streaming
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Pace
from sse_push.metrics import Metrics
from sse_push.notification import EntryId, Notification, parse_json
from sse_push.runtime.process import (
    exit_if_it_hangs,
    on_stop_signal,
    stop_if_a_callback_fails,
    stop_if_it_dies,
    stop_with_parent,
)
from sse_push.runtime.readiness import WorkerBoard
from sse_push.runtime.uvicorn import REFUSALS, REFUSED_KEY, SEND_SCOPE_KEY, Requests, force_exit
from sse_push.settings import Settings
from sse_push.stream import Appender, Follower

logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 2
_BOARD_INTERVAL_S = 1.0
_DECIDE_S = 0.5
"""So long a client is kept waiting while revocations are read, as after a start; then put off."""
_FORM_FIELDS = 16
"""Four are ours; with some more the answer names one that is not, with many it costs too much."""

_OPENAPI = Path(__file__).with_name("openapi.json").read_bytes()
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_PLACE_KEY = "sse_push.place"
"""Where a request to /events finds its place, in the ASGI scope."""


class State(TypedDict):
    """What the lifespan hands to the endpoints."""

    settings: Settings
    gate: Gate
    origins: Origins
    appender: Appender
    follower: Follower
    hub: Hub[Frame]
    streaming: Streaming
    board: WorkerBoard
    rates: Rates
    requests: Requests
    errors: dict[str, int]
    metrics: Metrics


# -- endpoints


async def events(request: Request[State]) -> Response:
    """GET /events?merchant_id=42[&last_event_id=…] -> 200 ``text/event-stream``."""
    state = request.state
    state["origins"].check(request.headers)
    grant = state["gate"].authorize_subscribe(request, _only(request, "merchant_id"))
    state["hub"].require_unrevoked(grant)
    # The header wins: the browser has been here, and the page may have been rendered long ago.
    last_event_id = request.headers.get("last-event-id") or _only(request, "last_event_id")
    if request.method == "HEAD":
        return Response(headers=event_stream.HEADERS, media_type=wire.MEDIA_TYPE)
    is_decided = state["hub"].is_draining or await _decide(state)
    if state["hub"].is_draining:
        raise NotNow(EndReason.SERVER_STOPPING)
    if not is_decided:
        raise NotNow(EndReason.NOT_READY)
    place: Place = request.scope[_PLACE_KEY]
    place.reserve(grant.merchant_id, _address(request))
    return state["streaming"].open(request.scope, grant, last_event_id)


async def preflight(request: Request[State]) -> Response:
    """OPTIONS /events from a page of an allowed origin -> 204 with what it may send.

    https://fetch.spec.whatwg.org/#cors-preflight-request
    """
    request.state["origins"].check(request.headers)
    if not {"origin", "access-control-request-method"} <= set(request.headers):
        raise HTTPException(405, headers={"Allow": "GET, HEAD"})
    return Response(status_code=204, headers=PREFLIGHT_HEADERS)


async def notify(request: Request[State]) -> Response:
    """POST /notify with a notification, or an array of them -> 200 ``{"id": "<ms>-<seq>"}``."""
    settings = request.state["settings"]
    key = _authorize_backend(request)
    value = _decode(request, await _body(request, settings.body_limit_bytes))
    _keep_to_rate(request.state, key, len(value) if isinstance(value, list) else 1)
    if isinstance(value, list):
        return await _notify_all(request.state, value, key)
    notification = Notification.from_value(value, data_limit_bytes=settings.data_limit_bytes)
    if key is not None:
        key.require(notification.merchant_id)
    entry_id = await request.state["appender"].append(notification)
    return JSONResponse({"id": str(entry_id)})


async def revoke(request: Request[State]) -> Response:
    """POST /revoke ``{"merchant_id", "jti"?, "sub"?}`` -> 200 ``{"id": "<ms>-<seq>"}``."""
    settings = request.state["settings"]
    key = _authorize_backend(request)
    _require_type(request, _JSON)
    revocation = Revocation.from_value(parse_json(await _body(request, settings.body_limit_bytes)))
    if key is not None:
        key.require(revocation.merchant_id)
    if not _has_tokens(request.state) and {revocation.token_id, revocation.subject} != {None}:
        raise InvalidRevocation(
            "expected merchant_id only: jti and sub are of tokens, and no stream here has one "
            f"(subscribe_auth is {settings.subscribe_auth})"
        )
    entry_id = await request.state["appender"].append(revocation)
    logger.info("revoked merchant_id=%s id=%s", revocation.merchant_id, entry_id)
    return JSONResponse({"id": str(entry_id)})


async def healthz(_request: Request[State]) -> Response:
    """GET /healthz -> 200 while the process lives."""
    return JSONResponse({"alive": True})


async def readyz(request: Request[State]) -> Response:
    """GET /readyz -> 200 while every worker has lately seen Redis announce a write; else 503."""
    state = request.state
    expected, deadline_s = state["settings"].workers, state["settings"].probe_deadline_s
    found = state["board"].read()
    is_ready = (
        found.workers >= expected
        and found.worst_age_s <= deadline_s
        and not state["hub"].is_draining
    )
    body = {
        "ready": is_ready,
        "draining": state["hub"].is_draining,
        "workers": {"expected": expected, "alive": found.workers},
        "probe_age_s": None if found.worst_age_s == float("inf") else round(found.worst_age_s, 1),
    }
    return JSONResponse(body, status_code=200 if is_ready else 503)


async def metrics(request: Request[State]) -> Response:
    """GET /metrics -> 200 with the numbers of all workers together, for Prometheus."""
    told = request.state["metrics"]
    told.copy()
    # Reads a file of each worker: not in the loop.
    accept = request.headers.get("accept", "")
    content, media_type = await run_in_threadpool(told.render, accept)
    return Response(content, headers={"Content-Type": media_type})


async def openapi(_request: Request[State]) -> Response:
    """GET /openapi.json -> 200 with the description of all of this, as OpenAPI 3.1."""
    return Response(_OPENAPI, media_type=_JSON)


def _authorize_backend(request: Request[State]) -> NotifyKey | None:
    """Let a backend in by its key, and no page, whatever it knows."""
    require_backend(request.headers)
    keys = request.state["settings"].notify_keys
    assert keys is not None, "refused at the start"
    return authorize_notify(request.headers.getlist("authorization"), keys)


def _may_decide(state: State) -> bool:
    """Return whether it is known which tokens are revoked, where there are tokens."""
    return not _has_tokens(state) or state["follower"].knows_revocations


async def _decide(state: State) -> bool:
    return not _has_tokens(state) or await state["follower"].wait_for_revocations(_DECIDE_S)


def _has_tokens(state: State) -> bool:
    return state["settings"].subscribe_auth == "token"


def _keep_to_rate(state: State, key: NotifyKey | None, count: int) -> None:
    retry_after_s = state["rates"].spend(key, count)
    if retry_after_s:
        settings = state["settings"]
        raise TooManyNotifications(
            f"expected at most {settings.notify_rate_per_s:g} notifications per second, and "
            f"{settings.notify_burst} at once, got more",
            retry_after_s,
        )


def _address(request: Request[State]) -> str | None:
    """Return the address by which a client's streams are counted; None if they are not."""
    state = request.state
    if not state["settings"].max_connections_per_address:
        return None
    forwarded_for = request.headers.getlist("x-forwarded-for")
    return state["gate"].proxies.client_address(request.scope.get("client"), forwarded_for)


def _only(request: Request[State], name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise HTTPException(400, f"{name}: expected once in the query, got {len(values)} times")
    return values[0] if values else None


async def _body(request: Request[State], limit_bytes: int) -> bytes:
    """Read a body, but no more of it than is allowed, whatever its headers say."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"body: expected at most {limit_bytes} bytes, got more")
    return bytes(body)


def _decode(request: Request[State], body: bytes) -> object:
    if _require_type(request, _JSON, _FORM) == _JSON:
        return parse_json(body)
    return _decode_form(body)


def _require_type(request: Request[State], *expected: str) -> str:
    media_type = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if media_type not in expected:
        raise HTTPException(415, f"expected {' or '.join(expected)}, got {media_type[:80]!r}")
    return media_type


def _decode_form(body: bytes) -> dict[str, object]:
    if body.lstrip()[:1] in (b"{", b"["):
        raise InvalidNotification(f"expected a form, got JSON: send Content-Type: {_JSON}")
    fields = body.count(b"&") + 1
    if fields > _FORM_FIELDS:
        raise InvalidNotification(
            f"expected a form of merchant_id, topic, data and by, got one of {fields} fields"
        )
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError as exc:
        raise InvalidNotification("expected a form, merchant_id=…, of UTF-8") from exc
    form: dict[str, object] = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidNotification("expected each field once, got one twice")
    if "data" in form:
        form["data"] = parse_json(str(form["data"]).encode())
    return form


async def _notify_all(state: State, values: list[object], key: NotifyKey | None) -> Response:
    """Answer 200 with a result for each, in order; 503 if Redis has not taken all that it could."""
    settings = state["settings"]
    if len(values) > settings.notify_max_items:
        raise TooLarge(f"expected at most {settings.notify_max_items} items, got {len(values)}")
    checked = [_check(value, settings.data_limit_bytes, key) for value in values]
    valid = [each for each in checked if isinstance(each, Notification)]
    for each in checked:
        if isinstance(each, PushError):
            state["errors"][_STATUSES[type(each)][1]] += 1
    appended = iter(await state["appender"].append_all(valid))
    results = [next(appended) if isinstance(each, Notification) else each for each in checked]
    body = [_result(result) for result in results]
    failures = [result for result in results if isinstance(result, StreamUnavailable)]
    if not failures:
        return JSONResponse(body)
    state["errors"]["unavailable"] += 1
    outcome = "unknown" if any(each.outcome == "unknown" for each in failures) else "not_published"
    return _error(
        503,
        "unavailable",
        f"{len(failures)} of {len(values)} not stored: {failures[0]}",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
        outcome=outcome,
        results=body,
    )


def _check(value: object, data_limit_bytes: int, key: NotifyKey | None) -> Notification | PushError:
    try:
        notification = Notification.from_value(value, data_limit_bytes=data_limit_bytes)
        if key is not None:
            key.require(notification.merchant_id)
    except (InvalidNotification, TooLarge, Forbidden) as exc:
        return exc
    return notification


def _result(result: EntryId | PushError) -> dict[str, object]:
    if isinstance(result, EntryId):
        return {"id": str(result)}
    assert isinstance(result, PushError), "an error otherwise"
    _, code = _STATUSES[type(result)]
    error: dict[str, object] = {"error": code, "detail": str(result)}
    if isinstance(result, StreamUnavailable):
        error["outcome"] = result.outcome
    return error


# -- errors


_STATUSES: dict[type[PushError], tuple[int, str]] = {
    InvalidMerchantId: (400, "malformed"),
    InvalidNotification: (400, "malformed"),
    InvalidRevocation: (400, "malformed"),
    AmbiguousCredentials: (400, "malformed"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    OriginNotAllowed: (403, "origin_not_allowed"),
    TooLarge: (413, "too_large"),
    TooManyNotifications: (429, "rate_limited"),
    StreamUnavailable: (503, "unavailable"),
}
_CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 415: "unsupported"}


def _error(
    status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: object
) -> Response:
    return JSONResponse({"error": code, "detail": detail, **more}, status, headers)


def _count_error(request: Request, code: str) -> None:
    errors: dict[str, int] = request.state.errors
    errors[code] += 1


async def _on_push_error(request: Request, exc: Exception) -> Response:
    status, code = _STATUSES[cast("type[PushError]", type(exc))]
    _count_error(request, code)
    headers: dict[str, str] = {}
    more: dict[str, object] = {}
    if isinstance(exc, StreamUnavailable):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
        more["outcome"] = exc.outcome
        logger.debug("not stored outcome=%s cause=%s", exc.outcome, exc.__cause__)
    if isinstance(exc, TooManyNotifications):
        headers["Retry-After"] = str(exc.retry_after_s)
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = exc.challenge
    return _error(status, code, str(exc), headers=headers, **more)


async def _on_not_now(request: Request, exc: Exception) -> Response:
    """Ask an EventSource to come back, by the soft answer; any other client by 503."""
    assert isinstance(exc, NotNow), "registered for it only"
    # As nginx decides it for its own soft answer.
    accepts = (request.headers.get("accept") or "*/*").lower()
    if wire.MEDIA_TYPE in accepts or "*/*" in accepts:
        streaming: Streaming = request.state.streaming
        return streaming.soft_answer(exc.reason)
    _count_error(request, "unavailable")
    headers = {"Retry-After": str(_RETRY_AFTER_S)}
    return _error(503, "unavailable", exc.reason.value, headers=headers)


async def _on_client_disconnect(request: Request, _exc: Exception) -> Response:
    """Answer a client that left in the middle of its body; nobody reads it."""
    if REFUSED_KEY not in request.scope:
        _count_error(request, "malformed")
    return _error(400, "malformed", "expected the rest of the body, got its end")


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException), "registered for it only"
    detail = exc.detail
    headers = dict(exc.headers or {})
    if exc.status_code == 404:
        detail = (
            "expected /events, /notify, /revoke, /healthz, /readyz or /metrics, got another path"
        )
    if exc.status_code == 405:
        # Starlette joins a set, whose order is another one in each process.
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "").split(", ")))
        detail = f"expected {headers.get('Allow', '')}, got {request.method}"
    code = _CODES.get(exc.status_code, "error")
    _count_error(request, code)
    return _error(exc.status_code, code, detail, headers=headers)


# -- lifespan


def create_app(settings: Settings, board_folder: Path, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """Return the service as one ASGI application; its lifespan connects to Redis.

    ``board_folder``: where the workers of this instance see each other. ``routes`` come after
    the service's own, which is how the demo runs on the same port.
    """
    origins = Origins(settings.allowed_origins)
    room = Room(
        max_connections=settings.max_connections,
        max_connections_per_merchant=settings.max_connections_per_merchant,
        max_connections_per_address=settings.max_connections_per_address,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[State]:
        state = _build(settings, origins, board_folder)
        stopping_since: list[float] = []

        def begin_to_stop() -> None:
            stopping_since.append(time.monotonic())
            logger.info("draining connections=%d", len(state["hub"]))
            state["hub"].drain()

        tasks = [
            asyncio.create_task(state["appender"].run(), name="appender"),
            asyncio.create_task(state["follower"].run(), name="tail"),
            asyncio.create_task(
                state["follower"].probe.give_up_if_deaf(), name="watchdog of the tail"
            ),
            asyncio.create_task(_keep_board(state), name="board"),
        ]
        if settings.workers > 1:
            tasks.append(asyncio.create_task(stop_with_parent(), name="parent"))
        for task in tasks:
            stop_if_it_dies(task)
        loop = asyncio.get_running_loop()
        stop_if_a_callback_fails(loop)
        try:
            with (
                exit_if_it_hangs(loop, settings.loop_stall_limit_s),
                on_stop_signal(begin_to_stop, force_exit, is_supervised=settings.workers > 1),
            ):
                yield state
        finally:
            # The tail stops last: until its goodbye, each stream got every refresh.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            state["metrics"].copy()
            state["board"].erase()
            for since in stopping_since:
                took_s, left = time.monotonic() - since, len(state["hub"])
                logger.info("drained took_s=%.1f connections_left=%d", took_s, left)

    app = Starlette(
        routes=[
            Route("/events", events),
            Route("/events", preflight, methods=["OPTIONS"]),
            Route("/notify", notify, methods=["POST"]),
            Route("/revoke", revoke, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            *routes,
        ],
        exception_handlers={
            PushError: _on_push_error,
            NotNow: _on_not_now,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_client_disconnect,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # another path is 404, as every error in JSON
    return _wrap_events(app, origins, room)


def _wrap_events(app: ASGIApp, origins: Origins, room: Room) -> ASGIApp:
    """Leave the server's own ``send`` in the scope, and mark answers for pages of other origins.

    Starlette wraps ``send`` once per layer. The place that a stream takes is left here, however it
    ends.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/events":
            scope[SEND_SCOPE_KEY] = send  # taken out again by event_stream
            send = origins.with_cors_headers(scope, send)
            with room.place() as scope[_PLACE_KEY]:
                await app(scope, receive, send)
        else:
            await app(scope, receive, send)

    return wrapped


def token_rules(settings: Settings) -> TokenRules | None:
    """Return what a valid token is, or None where tokens don't decide who may listen.

    Raises:
        ConfigError: the keys of tokens can't be used.
    """
    if settings.subscribe_auth != "token":
        return None
    return TokenRules(
        keys=load_keys(settings.token_keys, settings.token_keys_file, settings.token_algorithms),
        audience=settings.token_audience,
        issuer=settings.token_issuer,
        leeway_s=settings.token_leeway_s,
        max_lifetime_s=settings.token_max_lifetime_s,
    )


def _gate(settings: Settings) -> Gate:
    assert settings.subscribe_auth is not None, "refused at the start"
    return Gate(
        settings.subscribe_auth,
        proxies=Proxies(settings.trusted_proxies, is_unix_socket=settings.uds is not None),
        token_rules=token_rules(settings),
        token_cookie=settings.token_cookie,
    )


def _build(settings: Settings, origins: Origins, folder: Path) -> State:
    assert settings.redis_url is not None, "the embedded server's, or refused at the start"
    url = settings.redis_url.get_secret_value()
    pace = Pace(
        heartbeat_s=settings.heartbeat_s,
        refresh_interval_s=settings.refresh_interval_ms / 1000,
        send_timeout_s=settings.send_timeout_s,
        max_connection_age_s=settings.max_connection_age_s,
        drain_s=settings.drain_s,
        token_expiring_s=settings.token_expiring_s,
    )
    hub = Hub(
        encode=wire.encode_refreshes,
        encode_expiring=wire.encode_expiring,
        heartbeat=wire.HEARTBEAT,
        pace=pace,
        revocations=Revocations(settings.revocation_lifetime_s, settings.token_leeway_s),
        clock=asyncio.get_running_loop(),
    )
    follower = Follower(
        url,
        hub,
        data_limit_bytes=settings.data_limit_bytes,
        probe_interval_s=settings.probe_interval_s,
        probe_deadline_s=settings.probe_deadline_s,
        deaf_limit_s=settings.deaf_limit_s,
    )
    hub.source = follower
    streaming = Streaming(
        hub=hub,
        archive=follower,
        heartbeat_s=settings.heartbeat_s,
        retry_ms=settings.retry_ms,
        soft_retry_min_ms=settings.soft_retry_min_ms,
        soft_retry_max_ms=settings.soft_retry_max_ms,
        send_timeout_s=settings.send_timeout_s,
        send_buffer_bytes=settings.send_buffer_bytes,
    )
    appender = Appender(
        url,
        timeout_s=settings.notify_timeout_s,
        stream_max_entries=settings.stream_max_entries,
        stream_ttl_s=settings.stream_ttl_s,
        revocation_lifetime_s=settings.revocation_lifetime_s,
    )
    assert settings.notify_keys is not None, "refused at the start"
    rates = Rates(
        settings.notify_keys,
        rate_per_s=settings.notify_rate_per_s,
        burst=settings.notify_burst,
        workers=settings.workers,
    )
    errors = dict.fromkeys(
        (
            *(code for _, code in _STATUSES.values()),
            *(*_CODES.values(), *REFUSALS.values(), "error"),
        ),
        0,
    )
    board = WorkerBoard(folder)
    board.write(follower.probe.age_s)
    metrics = Metrics(
        board,
        folder,
        hub=hub,
        follower=follower,
        appender=appender,
        streaming=streaming,
        errors=errors,
        connections_limit=settings.max_connections,
    )
    hub.on_fan_out = metrics.fan_out_begins
    return State(
        settings=settings,
        gate=_gate(settings),
        origins=origins,
        appender=appender,
        follower=follower,
        hub=hub,
        streaming=streaming,
        board=board,
        rates=rates,
        requests=Requests(
            header_limit_bytes=settings.header_limit_bytes,
            timeout_s=settings.request_timeout_s,
            errors=errors,
            clock=asyncio.get_running_loop(),
        ),
        errors=errors,
        metrics=metrics,
    )


async def _keep_board(state: State) -> None:
    """Tell the other workers, and Prometheus, how this one is."""
    step_s = min(_BOARD_INTERVAL_S, state["settings"].probe_interval_s)
    decided_at = -math.inf
    while True:
        if _may_decide(state):
            decided_at = time.monotonic()
        undecided_s = time.monotonic() - decided_at
        state["board"].write(max(state["follower"].probe.age_s, undecided_s))
        due_at = time.monotonic() + step_s
        await asyncio.sleep(step_s)
        state["metrics"].tick(max(0.0, time.monotonic() - due_at))
