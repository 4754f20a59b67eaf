"""Serves an application by uvicorn, in this process or in supervised workers.

Knows uvicorn's server, its supervisor and its signal handler. Does not know which application is
served, nor how its socket was made.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.supervisors import Multiprocess

from sse_push.runtime.uvicorn.protocol import BoundedProtocol

_JOIN_STEP_S = 0.1


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
        _Workers(config, [sock]).run()
        return True
    server = uvicorn.Server(config)
    server.run([sock])
    return server.started


def force_exit(handler: object) -> None:
    """Make the server stop waiting for connections to end; no effect on another server.

    ``handler``: the signal handler that the server has installed, a method of it.
    """
    server = getattr(handler, "__self__", None)
    if isinstance(server, uvicorn.Server):
        server.force_exit = True


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
