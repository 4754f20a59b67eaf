"""The address of a service, and the errors about it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from sse_push.runtime.address import cannot_listen, is_stale, try_address


def error_of(host: str, port: int, uds: str | None = None) -> str:
    exc = try_address(host, port, uds)
    return "" if exc is None else str(cannot_listen(host, port, uds, exc))


def test_a_free_address_has_no_error(tmp_path: Path) -> None:
    assert error_of("127.0.0.1", 0) == error_of("::1", 0) == ""
    assert error_of("127.0.0.1", 0, str(tmp_path / "push.sock")) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_address_in_use_names_the_command_that_shows_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "push.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        port = tcp.getsockname()[1]
        unix.bind(str(path))
        unix.listen()

        assert error_of("127.0.0.1", port) == (
            f"expected to listen on 127.0.0.1:{port}: Address already in use; `ss -ltnp 'sport = "
            f":{port}'` shows by which process; another port is SSE_PUSH_PORT (--port)"
        )
        assert error_of("", 0, str(path)).startswith(
            f"expected to listen on {path}: Address already in use; another process listens there,"
        )
        assert not is_stale(path)
    assert is_stale(path)
    assert error_of("", 0, str(path)) == ""


@pytest.mark.parametrize(
    ("host", "uds", "error"),
    [
        ("192.0.2.1", None, "Cannot assign requested address; `ip address` lists the addresses"),
        ("no-such-host.invalid", None, "no such name; expected SSE_PUSH_HOST (--host) as an"),
        ("a..b", None, "no such name; expected SSE_PUSH_HOST (--host) as an address"),
        ("", "/nowhere/push.sock", "No such file or directory; expected a folder that is there"),
        ("", f"/tmp/{'x' * 110}", "File name too long; expected a path of at most 107 bytes"),
        ("", "/tmp", "Address already in use; another process listens there, which `ss -lxp`"),
    ],
)
def test_an_address_that_is_not_there_is_explained(host: str, uds: str | None, error: str) -> None:
    where = uds or f"{host}:0"

    assert error_of(host, 0, uds).startswith(f"expected to listen on {where}: {error}")


@pytest.mark.parametrize(
    ("exc", "uds", "error"),
    [
        (OSError(errno.EACCES, "x"), None, "Permission denied; a port below 1024 takes a right"),
        (OSError(errno.EROFS, "x"), "/s", "Read-only file system; expected a folder that can be"),
        (OSError("AF_UNIX path too long"), "/s", "File name too long; expected a path of at most"),
        (OSError(errno.EMFILE, "x"), None, "Too many open files"),
    ],
)
def test_what_the_system_says_is_followed_by_what_to_do(
    exc: OSError, uds: str | None, error: str
) -> None:
    text = str(cannot_listen("127.0.0.1", 80, uds, exc))

    assert text.partition(": ")[2].startswith(error)
