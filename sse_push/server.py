"""The service as a process: its listening socket, its limits, the order of its start and its end.

Knows sockets and the operating system. Does not know what the application does, nor how uvicorn
runs it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import resource
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sse_push.errors import ConfigError
from sse_push.runtime.address import cannot_listen, is_stale
from sse_push.runtime.link import Link
from sse_push.runtime.metrics_folder import shared_by_workers
from sse_push.runtime.process import broken
from sse_push.runtime.run_folder import run_folder
from sse_push.runtime.service_manager import Given, ServiceManager
from sse_push.runtime.socket_file import is_open_to_all
from sse_push.runtime.supervision import Limits
from sse_push.runtime.supervisor import supervise
from sse_push.runtime.uvicorn import OTHER_CONNECTIONS, run_server
from sse_push.settings import Settings

if TYPE_CHECKING:
    from starlette.routing import BaseRoute  # not imported: as ``create_app`` below

logger = logging.getLogger(__name__)

_STOP_MARGIN_S = 10.0
"""How long responses may take beyond ``drain_s`` when the service stops."""

_SILENCE_LIMIT_S = 5.0
"""How long a worker that serves may say nothing, at least; its watchdog reports for up to 2 s."""

_OWN_FILES = 64
"""Open files for Redis, for the metrics, and for Python itself."""

_FILES_BESIDE_CONNECTIONS = OTHER_CONNECTIONS + _OWN_FILES
"""Open files that no event stream may have."""

_KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than in nginx (60 s). So only nginx closes idle
connections, and no POST is sent into a connection that is being closed."""


def listening_socket(settings: Settings) -> socket.socket:
    """Make the socket that all workers accept from; accepted connections inherit its options.

    Raises:
        ConfigError: the address is in use, or is not one of this machine.

    https://man7.org/linux/man-pages/man7/tcp.7.html
    """
    try:
        if settings.uds is not None:
            return _unix_socket(settings)
        return _tcp_socket(settings)
    except (OSError, UnicodeError) as exc:
        raise cannot_listen(settings.host, settings.port, settings.uds, exc) from exc


def _adopted(given: Given, settings: Settings) -> socket.socket | None:
    """Return the socket that a service manager has opened, like one of our own.

    Raises:
        ConfigError: the socket has another address than the settings, or does not listen.
    """
    sock = given.socket()
    if sock is None:
        return None
    with contextlib.ExitStack() as undo:
        undo.enter_context(sock)
        _require_address(sock, settings)
        if sock.family != socket.AF_UNIX:
            _tune(sock, settings)
        elif is_open_to_all(Path(sock.getsockname()), _mode_of(sock.getsockname())):
            _require_that_all_may_connect(settings)
        sock.listen(settings.listen_backlog)
        undo.pop_all()
    return sock


def _require_address(sock: socket.socket, settings: Settings) -> None:
    """Refuse a socket at another address than that of the settings.

    Who is trusted depends on the address.

    Raises:
        ConfigError: the addresses differ.
    """
    if sock.family == socket.AF_UNIX:
        found, is_right = sock.getsockname(), sock.getsockname() == settings.uds
    else:
        found, is_right = _url(sock), settings.uds is None and _is_at(sock, settings)
    if not is_right:
        where = settings.uds or f"{settings.host}:{settings.port}"
        raise ConfigError(
            f"expected a socket of the service manager at {where}, as the settings say (host and "
            f"port, or uds), got one at {found}"
        )


def _mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def _is_at(sock: socket.socket, settings: Settings) -> bool:
    try:
        places = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:  # no address: the name is known to nobody
        return False
    return sock.getsockname()[:2] in [place[4][:2] for place in places]


def _tcp_socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _tune(sock, settings)
    sock.bind((settings.host, settings.port))
    sock.listen(settings.listen_backlog)
    return sock


def _tune(sock: socket.socket, settings: Settings) -> None:
    # With the default size, tens of thousands of events would wait in the kernel for a client that
    # does not read, and no newer event could replace them there.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", settings.send_buffer_bytes),
        ("TCP_USER_TIMEOUT", settings.tcp_user_timeout_ms),  # for a client that has vanished
    ):
        if hasattr(socket, name):  # pragma: no branch (only Linux has both)
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _unix_socket(settings: Settings) -> socket.socket:
    assert settings.uds is not None, "the caller has chosen a Unix socket"
    path, mode = Path(settings.uds), int(settings.uds_mode, 8)
    if is_open_to_all(path, mode):
        _require_that_all_may_connect(settings)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket() and is_stale(path):
        path.unlink()
    sock.bind(str(path))
    # nginx runs as another user; by default the permissions of the folder decide who may connect.
    path.chmod(mode)
    sock.listen(settings.listen_backlog)
    return sock


def _require_that_all_may_connect(settings: Settings) -> None:
    """Refuse a socket for every user of the machine if its peers name merchants, else warn.

    Raises:
        ConfigError: any user could listen to any merchant.
    """
    if settings.subscribe_auth == "header":
        raise ConfigError(
            f"uds ({settings.uds}): expected a folder that only the proxy may enter, or a uds_mode "
            "such as 0660, got a socket for every user of this machine, who could name any "
            "merchant (subscribe_auth is header)"
        )
    logger.warning("every user of this machine may connect uds=%s", settings.uds)


def files_needed(settings: Settings) -> int:
    """Return how many files a worker opens that has ``max_connections``."""
    return settings.max_connections + _FILES_BESIDE_CONNECTIONS


def within_file_limit(settings: Settings, file_limit: int) -> Settings:
    """Lower ``max_connections`` to what the limit of open files allows, with a warning.

    A client beyond ``max_connections`` is asked to come back later. Beyond the limit of open files
    the server could accept no connection at all.
    """
    places = max(1, file_limit - _FILES_BESIDE_CONNECTIONS)
    if settings.max_connections <= places:
        return settings
    logger.warning(
        "too few open files allowed for max_connections, serving less"
        " max_connections=%d serving=%d needed=%d allowed=%d",
        settings.max_connections,
        places,
        files_needed(settings),
        file_limit,
    )
    return settings.model_copy(update={"max_connections": places})


def warn_of_trust(settings: Settings, *, listens: bool = True) -> None:
    """Warn if limits per address are none, or if the network reaches what needs no key.

    Another server listens where it likes (``listens``), and may be reached by anyone.
    """
    if settings.trusts_all_addresses:
        logger.warning("any client may claim any address, trusted_proxies has nearly all")
    if settings.is_open_to_network or (settings.is_open and not listens):
        host = settings.host if listens else "that of your server"
        logger.warning("anyone who reaches this address may listen and notify host=%s", host)
    if settings.swoole_compat == "on":
        networks = ",".join(map(str, settings.trusted_backends))
        logger.warning("backends may notify without a key trusted_backends=%s", networks)


def file_limit() -> int:
    """Return how many files a worker may open after ``tune_process``."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def serve(
    settings: Settings,
    routes: Callable[[], Sequence[BaseRoute]] | None = None,
    on_bound: Callable[[str], None] | None = None,
    given: Given | None = None,
) -> int:
    """Serve until a signal; return the exit status: 0 after a wanted and clean end, otherwise 1.

    ``routes`` is called in each worker, for more routes on the same port. ``on_bound`` is called
    with the address once connections are queued there. ``given`` is what a service manager gives.
    """
    given = given or Given()
    settings = within_file_limit(settings, file_limit())
    warn_of_trust(settings)
    sock = _adopted(given, settings) or listening_socket(settings)
    address = _bound_address(settings, sock)
    if on_bound is not None:
        on_bound(address)
    with (
        run_folder("sse_push", settings.run_folder) as folder,
        shared_by_workers(folder),
        sock,
    ):
        _import_application()
        logger.info("listening address=%s workers=%d", address, settings.workers)
        status = supervise(
            functools.partial(_work, settings, folder, sock, routes),
            workers=settings.workers,
            limits=_limits(settings),
            on_stopping=sock.close,  # the workers' copies are the last ones then, if it is ours
            manager=ServiceManager(given),
        )
    if settings.uds is not None and not given.sockets:
        Path(settings.uds).unlink(missing_ok=True)
    return status


def _bound_address(settings: Settings, sock: socket.socket) -> str:
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    return _url(sock)


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _limits(settings: Settings) -> Limits:
    return Limits(
        start_s=settings.start_limit_s,
        silence_s=max(_SILENCE_LIMIT_S, settings.loop_stall_limit_s),
        stop_s=settings.drain_s + 2 * _STOP_MARGIN_S,
        leave_s=settings.shutdown_delay_s,
    )


def _import_application() -> None:
    """Import what workers need once for all of them, before the first is forked."""
    gc.disable()  # what an import makes stays; to look for garbage takes an eighth of its time
    import sse_push.http.app  # noqa: F401, PLC0415 (a start that is refused does without it)

    gc.enable()


def _work(
    settings: Settings,
    folder: Path,
    sock: socket.socket,
    routes: Callable[[], Sequence[BaseRoute]] | None,
    link: Link,
) -> int:
    """Serve as one worker; return its exit status."""
    from sse_push.http.app import create_app  # noqa: PLC0415 (as above)

    tune_process()
    try:
        more_routes = () if routes is None else routes()
        has_started = run_server(
            functools.partial(create_app, settings, folder, more_routes, link),
            sock,
            link,
            backlog=settings.listen_backlog,
            keep_alive_s=_KEEP_ALIVE_S,
            stop_timeout_s=round(settings.drain_s + _STOP_MARGIN_S),
        )
    except ConfigError as exc:  # such as a file of keys that was taken away
        logger.error("worker cannot start cause=%s", exc)  # noqa: TRY400 (the text says it all)
        return 1
    return 0 if has_started and not broken.is_set() else 1


def tune_process() -> None:
    """Open as many files as the system allows, and collect garbage rarely.

    A connection leaves no reference cycles behind, so a full collection finds nothing. It takes
    50 ms with 8 000 connections, and blocks every browser for that time.

    https://docs.python.org/3/library/gc.html#gc.set_threshold
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)
