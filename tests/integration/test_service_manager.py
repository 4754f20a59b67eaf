"""The service under a service manager: a socket that is given, and what the manager is told.

systemd itself does not run here as the first process. Its own ``systemd-socket-activate`` starts
the service, and a socket of the test receives what ``sd_notify`` would.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from sse_push import server
from sse_push.errors import ConfigError
from sse_push.runtime import service_manager
from sse_push.runtime.service_manager import Given
from sse_push.server import _SILENCE_LIMIT_S
from sse_push.settings import Settings
from tests.harness import plain_http
from tests.harness.programs import clean_environ, variables
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.waiting import SECOND, free_port, program, wait_for

VARIABLES = ("SSE_PUSH_NOTIFY_KEYS", "SSE_PUSH_REDIS_URL", "SSE_PUSH_ALLOWED_HOSTS")
"""What ``Service.start`` sets by itself."""


@pytest.fixture
def manager(tmp_path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(0)
        yield sock


class Told:
    """What the manager has received, line by line."""

    def __init__(self, manager: socket.socket) -> None:
        self._manager = manager
        self.lines: list[str] = []

    def read(self) -> list[str]:
        try:
            while True:
                self.lines += self._manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return self.lines

    def wait(self, *lines: str) -> None:
        """Wait until these were received since the last wait, the last of them last."""
        wait_for(lambda: set(lines) <= set(self.read()), f"{lines}")
        self.lines.clear()


@pytest.fixture
def mortal(tmp_path: Path) -> Generator[Redis]:
    """A Redis that the test may break."""
    started = Redis.start(tmp_path)
    yield started
    started.kill()


def test_a_service_tells_its_manager_of_its_life_and_accepts_on_a_socket_of_the_manager(
    mortal: Redis, tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, port = Told(manager), free_port()
    given = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(round(3e6 * SECOND))}
    deadline_s = 0.3 * SECOND
    settings = {"shutdown_delay_s": 600, "probe_interval_s": 0.2, "probe_deadline_s": deadline_s}
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    through = [program("systemd-socket-activate"), "--listen", f"127.0.0.1:{port}"]
    for name in {**clean_environ(), **variables(settings), **given, **dict.fromkeys(VARIABLES)}:
        through += ["--setenv", name]

    with serving(tmp_path, mortal.url, through=through, port=port, settings=settings) as service:
        told.wait("STATUS=1 of 1 workers serve", "READY=1", "WATCHDOG=1")
        service.process.send_signal(signal.SIGHUP)
        told.wait("STATUS=restarting, 1 of 1 workers serve", "RELOADING=1", "READY=1", "WATCHDOG=1")

        mortal.kill()
        long_s = 4 * deadline_s + 2 * _SILENCE_LIMIT_S  # for how long a worker counts as well
        wait_for(lambda: probe_age_s(service) > long_s, "a probe that is lost for long", 9 * long_s)
        told.read()
        told.lines.clear()
        told.wait("WATCHDOG=1")  # another process would do no better
        mortal.process = Redis.start(tmp_path, port=mortal.port).process
        wait_for(service.is_ready, "Redis to be followed again")

        service.process.send_signal(signal.SIGTERM)
        told.wait("STATUS=leaving, 1 of 1 workers serve, none is ready", "STOPPING=1", "WATCHDOG=1")
        wait_for(lambda: not service.is_ready(), "a service that says that it is not ready")
        leaving = plain_http.get(f"{service.url}/readyz").json()
        stored = plain_http.post(
            f"{service.url}/notify",
            json={"merchant_id": 42},
            headers={"Authorization": f"Bearer {KEY}"},
        )

    assert (leaving["ready"], leaving["leaving"], leaving["draining"]) == (False, True, False)
    assert stored.status_code == 200
    assert "STATUS=stopping, workers left: 1" in told.read(), "at the second signal"


def probe_age_s(service: Service) -> float:
    return float(plain_http.get(f"{service.url}/readyz").json()["probe_age_s"] or 0)


def given_to(monkeypatch: pytest.MonkeyPatch, listening: socket.socket) -> Given:
    monkeypatch.setattr(service_manager, "_FIRST_SOCKET", os.dup(listening.fileno()))
    return Given(sockets=1)


def backlog_of(listening: socket.socket) -> int:
    """Return how many connections may wait for a socket to accept them: its ``tcpi_sacked``.

    ``tcp_get_info`` in https://github.com/torvalds/linux/blob/v6.1/net/ipv4/tcp.c
    """
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(information[28:32], sys.byteorder)


def test_a_socket_that_is_given_gets_the_options_of_one_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listening:
        port = listening.getsockname()[1]
        assert backlog_of(listening) == 7
        settings = Settings(port=port, listen_backlog=111)
        taken = server._adopted(given_to(monkeypatch, listening), settings)

        assert taken is not None
        with taken:
            assert backlog_of(taken) == 111
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 16_384
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_unix_socket_that_is_given_is_accepted_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "push.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        taken = server._adopted(given_to(monkeypatch, listening), Settings(uds=path))

        assert taken is not None
        taken.close()


@pytest.mark.parametrize(
    "settings",
    [{"port": 1}, {"host": "127.0.0.2"}, {"host": "nobody.invalid"}, {"uds": "/run/push.sock"}],
)
def test_a_socket_at_another_address_than_that_of_the_settings_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """Whom the service trusts depends on where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        own = {} if "uds" in settings else {"port": port}

        with pytest.raises(ConfigError, match=f"got one at http://127.0.0.1:{port}"):
            server._adopted(given_to(monkeypatch, listening), Settings.load(**{**own, **settings}))


def test_a_unix_socket_does_not_stand_in_for_a_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "push.sock"))
        listening.listen()

        with pytest.raises(ConfigError, match=r"at 127.0.0.1:8000, as the settings .*push\.sock"):
            server._adopted(given_to(monkeypatch, listening), Settings())


def test_a_unix_socket_for_all_is_refused_if_its_peers_name_merchants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        Path(folder).chmod(0o755)
        listening.bind(f"{folder}/push.sock")
        Path(f"{folder}/push.sock").chmod(0o666)
        listening.listen()
        settings = Settings.load(uds=f"{folder}/push.sock", subscribe_auth="header")

        with pytest.raises(ConfigError, match="who could name any merchant"):
            server._adopted(given_to(monkeypatch, listening), settings)
