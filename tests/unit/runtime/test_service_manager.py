"""What a service manager gives, and what it receives on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from sse_push.errors import ConfigError
from sse_push.runtime import service_manager
from sse_push.runtime.service_manager import Given, ServiceManager, State

OWN = str(os.getpid())


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[socket.socket]:
    """The socket of a manager, of each kind of name."""
    names = {"path": str(tmp_path / "notify"), "abstract": f"\0sse-push-{tmp_path}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(names[request.param])
        sock.settimeout(0)
        yield sock


def address_of(manager: socket.socket) -> str:
    name = manager.getsockname()
    return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)


def received(manager: socket.socket) -> list[list[str]]:
    found = []
    try:
        while True:
            found.append(manager.recv(4096).decode().splitlines())
    except BlockingIOError:
        return found


# -- what it is told


def test_a_manager_is_told_each_state_and_each_text_once(manager: socket.socket) -> None:
    told = ServiceManager(Given(address_of(manager)))

    told.tell(State.STARTING, "starting")
    told.tell(State.STARTING, "starting")
    told.tell(State.READY, "1 of 2 workers serve")
    told.tell(State.READY, "2 of 2 workers serve")
    told.tell(State.RELOADING, "restarting")
    told.tell(State.READY, "restarting")
    told.tell(State.STOPPING, "stopping")

    *before, reloading, ready, stopping = received(manager)
    assert before == [
        ["STATUS=starting"],
        ["STATUS=1 of 2 workers serve", "READY=1"],
        ["STATUS=2 of 2 workers serve"],
    ]
    assert reloading[:2] == ["STATUS=restarting", "RELOADING=1"]
    name, _, microseconds = reloading[2].partition("=")
    assert name == "MONOTONIC_USEC"
    assert microseconds.isdigit()
    assert (ready, stopping) == (["READY=1"], ["STATUS=stopping", "STOPPING=1"])


def test_a_watchdog_is_fed_three_times_within_its_limit(manager: socket.socket) -> None:
    told = ServiceManager(Given(address_of(manager), watchdog_s=6))

    for now in range(100, 106):
        told.feed(now)

    assert received(manager) == [["WATCHDOG=1"]] * 3


def test_no_watchdog_and_no_manager_are_told_nothing(manager: socket.socket) -> None:
    ServiceManager(Given(address_of(manager))).feed(1000)
    nobody = ServiceManager(Given())
    nobody.tell(State.READY, "1 of 1 workers serve")
    nobody.feed(1000)

    assert received(manager) == []


def test_what_could_not_be_told_is_told_later_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = ServiceManager(Given(str(tmp_path / "notify")))
    told.tell(State.READY, "serves")
    told.tell(State.RELOADING, "restarting")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as late:
        late.bind(str(tmp_path / "notify"))
        told.tell(State.READY, "serves")
        assert late.recv(4096) == b"STATUS=serves\nREADY=1"

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("service manager can't be told cause=")


def test_a_manager_that_reads_nothing_makes_nobody_wait(manager: socket.socket) -> None:
    told = ServiceManager(Given(address_of(manager)))
    told.tell(State.READY, "")
    for number in range(2000):
        told.tell(State.READY, str(number))

    assert len(received(manager)) < 2000


def test_a_state_that_may_not_follow_is_a_bug() -> None:
    told = ServiceManager(Given())
    told.tell(State.STOPPING, "stopping")

    with pytest.raises(AssertionError, match="does not follow"):
        told.tell(State.READY, "serves")


# -- what it gives


def test_the_variables_are_taken_so_that_no_child_finds_them() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": OWN,
        "LISTEN_FDS": "1",
        "LISTEN_PID": OWN,
        "LISTEN_FDNAMES": "http",
        "HOME": "/",
    }

    assert Given.take(environ) == Given("/run/systemd/notify", 60, 1)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "1"},
        {"WATCHDOG_USEC": "soon", "LISTEN_FDS": "²", "LISTEN_PID": OWN},
    ],
)
def test_what_is_for_another_process_or_no_number_is_nothing(environ: dict[str, str]) -> None:
    assert Given.take(environ) == Given()


def given_file(monkeypatch: pytest.MonkeyPatch, number: int) -> Given:
    monkeypatch.setattr(service_manager, "_FIRST_SOCKET", number)
    return Given(sockets=1)


def test_a_socket_that_listens_is_accepted_from_and_is_not_for_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        os.set_inheritable(listening.fileno(), True)  # noqa: FBT003
        taken = given_file(monkeypatch, os.dup(listening.fileno())).socket()

        assert taken is not None
        with taken, socket.create_connection(listening.getsockname()):
            accepted, _ = taken.accept()
            accepted.close()
            assert not taken.get_inheritable()
    assert Given().socket() is None


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    with (
        socket.socket(socket.AF_INET, kind) as sock,
        pytest.raises(ConfigError, match=r"expected a socket .* that listens for streams"),
    ):
        given_file(monkeypatch, sock.fileno()).socket()


def test_a_file_that_is_no_socket_and_a_second_socket_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(ConfigError, match="expected a socket of the service manager, got 'Socket"),
    ):
        given_file(monkeypatch, file.fileno()).socket()

    with pytest.raises(ConfigError, match="expected one socket of the service manager, got 2"):
        Given(sockets=2).socket()
