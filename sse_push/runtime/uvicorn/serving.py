"""Serves an application by uvicorn, in one worker.

Knows uvicorn's server. Does not know which application is served, how its socket was made, nor who
supervises the worker.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable

import uvicorn

from sse_push.runtime.link import Link
from sse_push.runtime.uvicorn.protocol import BoundedProtocol

_CUT_LIMIT_S = 1.0
"""How long requests may take to end once their connections have been cut."""


def run_server(
    create: Callable[[], object],
    sock: socket.socket,
    link: Link,
    *,
    backlog: int,
    keep_alive_s: int,
    stop_timeout_s: int,
) -> bool:
    """Serve until a signal; return False if the application did not start.

    ``create`` makes the ASGI application. After ``stop_timeout_s`` connections that are still open
    are closed, however far their responses are.
    """
    config = uvicorn.Config(
        create,
        factory=True,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        backlog=backlog,
        access_log=False,  # it would log the query, which may hold a token
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=stop_timeout_s,
        callback_notify=link.tell_serving,  # at the first turn of the server that accepts
    )
    server = uvicorn.Server(config)
    link.on_cut = functools.partial(_cut, server)
    server.run([sock])
    return server.started


def _cut(server: uvicorn.Server) -> None:
    """Cut all connections, in the event loop, so that the server ends.

    Requests end as they do when their clients leave. uvicorn alone would cancel each of them, and
    log each as an error with its traceback, which takes seconds with thousands of connections. It
    does so with what has not ended after ``_CUT_LIMIT_S``, such as a write to Redis.
    """
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    asyncio.get_running_loop().call_later(_CUT_LIMIT_S, _stop_waiting, server)


def _stop_waiting(server: uvicorn.Server) -> None:
    server.force_exit = True
