"""The process that serves: its listening socket, uvicorn, its workers.

Knows sockets and uvicorn. Does not know what the application does.
"""

from __future__ import annotations

import functools
import gc
import logging
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.routing import BaseRoute
from uvicorn.supervisors import Multiprocess

from sse_push.errors import ConfigError
from sse_push.http.app import create_app
from sse_push.metrics import shared_by_workers
from sse_push.runtime.logs import configure_logging
from sse_push.runtime.process import broken
from sse_push.runtime.uvicorn import BoundedProtocol
from sse_push.settings import Settings

logger = logging.getLogger(__name__)

_STOP_MARGIN_S = 10.0
_JOIN_STEP_S = 0.1
_FILES_BESIDE_STREAMS = 256
"""For requests that are no streams, for Redis, and for Python itself."""

_KEEP_ALIVE_S = 75
"""Longer than nginx keeps an idle connection to us (60 s): who closes first never races a POST."""


def listening_socket(settings: Settings) -> socket.socket:
    """Make the socket that all workers accept from; accepted connections inherit its options.

    Raises:
        ConfigError: the address is taken, or not ours.

    https://man7.org/linux/man-pages/man7/tcp.7.html
    """
    try:
        if settings.uds is not None:
            return _unix_socket(settings)
        return _tcp_socket(settings)
    except OSError as exc:
        raise ConfigError(f"expected to listen on {_address(settings)}: {exc.strerror}") from exc


def _tcp_socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # With the default size a client that sleeps has tens of thousands of events waiting in the
    # kernel, where no newer one can replace them.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", settings.send_buffer_bytes),
        ("TCP_USER_TIMEOUT", settings.tcp_user_timeout_ms),  # a client that vanished
    ):
        if hasattr(socket, name):  # Linux has both
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    sock.bind((settings.host, settings.port))
    sock.listen(settings.listen_backlog)
    return sock


def _unix_socket(settings: Settings) -> socket.socket:
    assert settings.uds is not None, "called for it only"
    path = Path(settings.uds)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket() and _is_stale(path):
        path.unlink()
    sock.bind(str(path))
    # nginx runs as another user; who may reach it is decided by the folder.
    path.chmod(0o666)
    sock.listen(settings.listen_backlog)
    return sock


def _is_stale(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except OSError:
            return True
    return False


def _address(settings: Settings) -> str:
    return settings.uds or f"{settings.host}:{settings.port}"


def within_file_limit(settings: Settings, file_limit: int) -> Settings:
    """Return the settings with no more connections than there may be files, and warn if so.

    Whoever comes then is asked to come back later; without files nobody would be accepted at all.
    """
    places = max(1, file_limit - _FILES_BESIDE_STREAMS)
    if settings.max_connections <= places:
        return settings
    logger.warning(
        "too few open files allowed for max_connections, serving less"
        " max_connections=%d serving=%d needed=%d allowed=%d",
        settings.max_connections,
        places,
        settings.max_connections + _FILES_BESIDE_STREAMS,
        file_limit,
    )
    return settings.model_copy(update={"max_connections": places})


def _file_limit() -> int:
    """Return how many files a worker may open, once it has asked for all that it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def serve(
    settings: Settings,
    routes: Callable[[], Sequence[BaseRoute]] | None = None,
    on_bound: Callable[[str], None] | None = None,
) -> int:
    """Serve until a signal; return the exit status: 0 after a clean end, 1 if a part has died.

    ``routes`` is called in each worker, for more routes on the same port. ``on_bound`` is told the
    address once connections are queued there.
    """
    settings = within_file_limit(settings, _file_limit())
    sock = listening_socket(settings)
    if settings.uds is not None:
        address = f"unix:{settings.uds}"
    else:
        host, port = sock.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if on_bound is not None:
        on_bound(address)
    with (
        tempfile.TemporaryDirectory(prefix="sse_push-") as folder,
        shared_by_workers(Path(folder)),
        sock,
        _signals_end_it(),
    ):
        config = uvicorn.Config(
            functools.partial(_create, settings, Path(folder), routes),
            factory=True,
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            lifespan="on",
            workers=settings.workers,
            backlog=settings.listen_backlog,
            access_log=False,  # it would write the query
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(settings.drain_s + _STOP_MARGIN_S),
        )
        config.configure_logging()
        logger.info("listening address=%s workers=%d", address, settings.workers)
        has_started = True
        if settings.workers > 1:
            _Workers(config, [sock]).run()
        else:
            server = uvicorn.Server(config)
            server.run([sock])
            has_started = server.started
    if settings.uds is not None:
        Path(settings.uds).unlink(missing_ok=True)
    return 0 if has_started and not broken.is_set() else 1


class _Workers(Multiprocess):
    """uvicorn's supervisor, with an ear for a second signal while it waits for its workers."""

    def join_all(self) -> None:
        """Wait for the workers to drain; end them at once when told again."""
        while any(process.process.is_alive() for process in self.processes):
            if {signal.SIGTERM, signal.SIGINT} & set(self.signal_queue):
                for process in self.processes:
                    process.process.kill()
            self.processes[0].process.join(_JOIN_STEP_S)
            for process in self.processes[1:]:
                process.process.join(0)
        super().join_all()


def _create(
    settings: Settings, folder: Path, routes: Callable[[], Sequence[BaseRoute]] | None
) -> object:
    configure_logging(settings.log_level, settings.log_format)
    _tune_process()
    return create_app(settings, folder, () if routes is None else routes())


def _tune_process() -> None:
    """Allow as many connections as the system lets us, and collect garbage rarely.

    A connection leaves no reference cycles behind, so a full collection finds nothing; it takes
    50 ms with 8 000 connections, in which every browser waits.

    https://docs.python.org/3/library/gc.html#gc.set_threshold
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)


@contextmanager
def _signals_end_it() -> Generator[None]:
    """End with status 0: uvicorn repeats the signal to itself once it has ended cleanly.

    A second SIGTERM may come when all has ended but the process, and is then no reason to end with
    another status: it stays ignored.
    """
    original = signal.getsignal(signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, original)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
