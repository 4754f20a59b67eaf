"""The address that a service listens on: whether it can, and what to do if it can't.

Knows sockets, and the settings by their names only. ``server`` makes the socket.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path

from sse_push.errors import ConfigError

_PATH_BYTES = 107
"""https://man7.org/linux/man-pages/man7/unix.7.html, without the NUL at the end"""

_OTHER_PORT = "another port is SSE_PUSH_PORT (--port)"
_OTHER_PATH = "another path is SSE_PUSH_UDS (--uds)"

_CURES = {
    errno.EADDRINUSE: f"`ss -ltnp 'sport = :{{port}}'` shows by which process; {_OTHER_PORT}",
    errno.EADDRNOTAVAIL: "`ip address` lists the addresses of this machine, of which "
    "SSE_PUSH_HOST (--host) takes one, or 0.0.0.0 or :: for all",
    errno.EACCES: f"a port below 1024 takes a right that this user has not; {_OTHER_PORT}",
}
_CURES_OF_UDS = {
    errno.EADDRINUSE: "another process listens there, which `ss -lxp` shows, or it is no socket; "
    f"{_OTHER_PATH}",
    errno.ENOENT: "expected a folder that is there: /run/sse-push, if systemd makes it",
    errno.EACCES: f"expected a folder in which this user may make files; {_OTHER_PATH}",
    errno.EROFS: f"expected a folder that can be written, such as one in /run; {_OTHER_PATH}",
    errno.ENAMETOOLONG: f"expected a path of at most {_PATH_BYTES} bytes",
}
_CURE_OF_A_NAME = "expected SSE_PUSH_HOST (--host) as an address, or as a name of this machine"


def cannot_listen(
    host: str, port: int, uds: str | None, exc: OSError | UnicodeError
) -> ConfigError:
    """Return the error for an address: what the system says, and what to do."""
    where = uds or f"{host}:{port}"
    if uds is None and isinstance(exc, socket.gaierror | UnicodeError):
        return ConfigError(f"expected to listen on {where}: no such name; {_CURE_OF_A_NAME}")
    number = getattr(exc, "errno", None) or errno.ENAMETOOLONG  # Python's own check has no number
    cures = _CURES if uds is None else _CURES_OF_UDS
    cure = f"; {cures[number].format(port=port)}" if number in cures else ""
    return ConfigError(f"expected to listen on {where}: {os.strerror(number)}{cure}")


def is_stale(path: Path) -> bool:
    """Return whether no process listens on a Unix socket any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except OSError:
            return True
    return False


def try_address(host: str, port: int, uds: str | None) -> OSError | UnicodeError | None:
    """Return what keeps a service from listening there now, if anything; listen for no moment."""
    try:
        if uds is not None:
            _try_path(Path(uds))
            return None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except (OSError, UnicodeError) as exc:
        return exc
    return None


def _try_path(path: Path) -> None:
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with tempfile.TemporaryFile(dir=path.parent):
        if path.exists() and not (path.is_socket() and is_stale(path)):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
