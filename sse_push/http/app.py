"""The ASGI application: its routes, and the lifespan of the service behind them.

Knows in which order the parts of the service start and stop. Does not know what they do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sse_push.access.hosts import Hosts
from sse_push.access.origin import Origins
from sse_push.access.room import Room
from sse_push.errors import HostNotAllowed
from sse_push.event_stream import Frame, keep_streams_at_shutdown
from sse_push.http import endpoints, paths, swoole
from sse_push.http.answers import EXCEPTION_HANDLERS, refuse
from sse_push.http.endpoints import PLACE_SCOPE_KEY
from sse_push.http.openapi import describe
from sse_push.http.service import State, build, report, room_of, token_rules
from sse_push.hub import Hub
from sse_push.runtime.link import Link
from sse_push.runtime.process import (
    exit_if_it_hangs,
    on_stop_signal,
    stop_if_a_callback_fails,
    stop_if_it_dies,
)
from sse_push.runtime.uvicorn import SEND_SCOPE_KEY
from sse_push.settings import Settings

logger = logging.getLogger(__name__)

ROUTES = (
    Route(paths.EVENTS, endpoints.events),
    Route(paths.EVENTS, endpoints.preflight, methods=["OPTIONS"]),
    Route(paths.NOTIFY, endpoints.notify, methods=["POST"]),
    Route(paths.REVOKE, endpoints.revoke, methods=["POST"]),
    Route(paths.HEALTHZ, endpoints.healthz),
    Route(paths.READYZ, endpoints.readyz),
    Route(paths.METRICS, endpoints.metrics),
    Route(paths.OPENAPI, endpoints.openapi),
)


def create_app(
    settings: Settings,
    board_folder: Path,
    routes: Sequence[BaseRoute] = (),
    link: Link | None = None,
) -> EventsMiddleware:
    """Return the service as one ASGI application; its lifespan connects to Redis.

    ``board_folder``: where the workers of this instance see each other. ``routes`` come after
    the service's own, which is how the demo runs on the same port. ``link``: the way to the
    supervisor of this process, if it has one.

    Raises:
        ConfigError: the keys of tokens can't be used.
    """
    rules = token_rules(settings)
    origins = Origins(settings.allowed_origins)
    description = describe(ROUTES, notify_max_items=settings.notify_max_items)
    openapi = json.dumps(description).encode()
    compat = [swoole.ROUTE] if settings.swoole_compat == "on" else []

    def lifespan(_app: Starlette) -> AbstractAsyncContextManager[State]:
        return _lifespan(build(settings, rules, origins, board_folder, openapi), link)

    app = Starlette(
        routes=[*ROUTES, *routes, *compat], exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan
    )
    app.router.redirect_slashes = False  # a path with another slash is 404, in JSON as every error
    return EventsMiddleware(app, origins, room_of(settings), Hosts(settings.hosts))


_NOWHERE = ""
"""A path that no route has."""

_is_printable = re.compile("[!-~]*").fullmatch


class EventsMiddleware:
    """What a request to ``/events`` needs around Starlette.

    Others pass, if their path can be one. All are refused if their host is not allowed.

    The server's own ``send`` goes into the scope: Starlette wraps ``send`` once per layer, and an
    event stream bypasses these layers. Every answer gets the CORS headers. The connection's place
    is released when the response ends, however it ends.
    """

    def __init__(self, app: Starlette, origins: Origins, room: Room, hosts: Hosts) -> None:
        self.app = app
        self.origins = origins
        self.room = room
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.hosts.check(scope["headers"])
        except HostNotAllowed as exc:
            await refuse(Request(scope), exc)(scope, receive, send)
            return
        if scope["path"] != paths.EVENTS:
            if not _is_printable(scope["path"]):
                # A route of Starlette matches before a line feed as well, which a proxy's rule for
                # the exact path does not.
                scope["path"] = _NOWHERE
            await self.app(scope, receive, send)
            return
        scope[SEND_SCOPE_KEY] = send  # the event stream removes it
        with self.room.place() as scope[PLACE_SCOPE_KEY]:
            await self.app(scope, receive, self.origins.with_cors_headers(scope, send))


class _Drain:
    """The drain of a process's connections, from the stop signal to the end of the lifespan."""

    def __init__(self, hub: Hub[Frame]) -> None:
        self._hub = hub
        self._began_at: float | None = None

    def begin(self) -> None:
        self._began_at = time.monotonic()
        logger.info("draining connections=%d", len(self._hub))
        self._hub.drain()

    def log_end(self) -> None:
        if self._began_at is not None:
            took_s = time.monotonic() - self._began_at
            logger.info("drained took_s=%.1f connections_left=%d", took_s, len(self._hub))


@asynccontextmanager
async def _lifespan(state: State, link: Link | None) -> AsyncGenerator[State]:
    """Run the service until the server ends the lifespan.

    After a stop signal the process stops in this order; a supervisor sends it ``shutdown_delay_s``
    after its own, and has had the workers say meanwhile that they are not ready.

    1. ``on_stop_signal`` begins the drain before the server reacts to the signal. Each connection
       ends with a ``goodbye``, spread over ``drain_s``; a new client of ``/events`` gets a soft
       answer, and ``/readyz`` is 503. Notifications are still accepted.
    2. The server closes its listening socket, and waits until every response is complete.
    3. The server ends the lifespan. Only now the follower stops: until its ``goodbye`` each
       connection gets every refresh.
    4. The last counts are copied for the scrapes of other workers, and logged, and this worker
       leaves the board.
    """
    settings, drain = state["settings"], _Drain(state["hub"])
    tasks = _start_tasks(state, link)
    beat = None if link is None else link.beat
    loop = asyncio.get_running_loop()
    stop_if_a_callback_fails(loop)
    keep_streams_at_shutdown()
    try:
        with (
            exit_if_it_hangs(loop, settings.loop_stall_limit_s, beat),
            on_stop_signal(drain.begin, is_supervised=link is not None),
        ):
            yield state
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        state["metrics"].update()
        state["refusals"].log_rest()
        state["board"].erase()
        drain.log_end()


def _start_tasks(state: State, link: Link | None) -> list[asyncio.Task[None]]:
    """Start what runs as long as the process; the end of any task stops the process."""
    works = {
        "appender": state["appender"].run(),
        "tail": state["follower"].run(),
        "watchdog of the tail": state["follower"].give_up_if_deaf(),
        "board": report(state, _nothing if link is None else link.tell_well),
    }
    if link is not None:
        link.on_leave = state["leaving"].set
        works["supervisor"] = link.follow()
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    for task in tasks:
        stop_if_it_dies(task)
    return tasks


def _nothing() -> None:
    """Do nothing: this process has no supervisor."""
