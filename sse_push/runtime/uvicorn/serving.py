"""Serves an application by uvicorn, in this process or in supervised workers.

Knows uvicorn's server, its supervisor and its signal handler. Does not know which application is
served, nor how its socket was made.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from sse_push.runtime.uvicorn.protocol import BoundedProtocol

_JOIN_STEP_S = 0.1

_CUT_LIMIT_S = 1.0
"""How long requests may take to end once their connections have been cut."""

_START_LIMIT_S = 60.0
"""How long a worker may take to start. On a busy machine Python alone takes more than the 5 s in
which uvicorn expects a worker to answer: it would kill each worker, and never serve."""


def run_server(
    create: Callable[[], object],
    sock: socket.socket,
    *,
    workers: int,
    backlog: int,
    keep_alive_s: int,
    stop_timeout_s: int,
) -> bool:
    """Serve until a signal; return False if the application did not start.

    ``create`` makes the ASGI application, once per worker and in it. After ``stop_timeout_s``
    connections that are still open are closed, however far their responses are.
    """
    config = uvicorn.Config(
        create,
        factory=True,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        workers=workers,
        backlog=backlog,
        access_log=False,  # it would log the query, which may hold a token
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=stop_timeout_s,
    )
    if workers > 1:
        multiprocess.Process = _Worker  # type: ignore[misc]  # uvicorn has no other way in
        _Workers(config, [sock]).run()
        return True
    server = uvicorn.Server(config)
    server.run([sock])
    return server.started


def force_exit(handler: object) -> None:
    """Cut all connections, in the event loop, so that the server ends; no effect on another server.

    Requests end as they do when their clients leave. uvicorn alone would cancel each of them, and
    log each as an error with its traceback, which takes seconds with thousands of connections. It
    does so with what has not ended after ``_CUT_LIMIT_S``, such as a write to Redis.

    ``handler``: the signal handler that the server has installed, a method of it.
    """
    server = getattr(handler, "__self__", None)
    if isinstance(server, uvicorn.Server):
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        asyncio.get_running_loop().call_later(_CUT_LIMIT_S, _stop_waiting, server)


def _stop_waiting(server: uvicorn.Server) -> None:
    server.force_exit = True


class _Worker(multiprocess.Process):
    """A worker whose start has a limit of its own, beside that of each answer after it.

    uvicorn pings a worker, and a thread of the worker answers as soon as Python has started there.
    """

    def start(self) -> None:
        """Start the process, and ask for its first answer."""
        self._started_at = time.monotonic()
        self._is_starting = True
        super().start()
        self.parent_conn.send(b"ping")

    def is_alive(self, timeout: float = 5) -> bool:
        """Return whether the process runs and answers; a start is waited for without blocking."""
        if not self.process.is_alive():
            return False
        if self._is_starting:
            if not self.parent_conn.poll(0):
                return time.monotonic() - self._started_at < _START_LIMIT_S
            self.parent_conn.recv()
            self._is_starting = False
        return self.ping(timeout)

    def wait_until_ready(
        self,
        timeout: float,  # noqa: ARG002 (uvicorn's own limit)
        should_exit: threading.Event | None = None,
    ) -> bool:
        """Wait for a replacement's start, at most as long as for any start."""
        return super().wait_until_ready(_START_LIMIT_S, should_exit)


class _Workers(Multiprocess):
    """uvicorn's supervisor; it also handles a second signal while it waits for its workers."""

    def join_all(self) -> None:
        """Wait for the workers to drain; kill them at a second signal."""
        while any(process.process.is_alive() for process in self.processes):
            if {signal.SIGTERM, signal.SIGINT} & set(self.signal_queue):
                for process in self.processes:
                    process.process.kill()
            self.processes[0].process.join(_JOIN_STEP_S)
            for process in self.processes[1:]:
                process.process.join(0)
        super().join_all()
