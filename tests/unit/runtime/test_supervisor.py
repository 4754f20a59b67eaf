"""Real processes under a supervisor, which do nothing but what a test wants.

A service under its supervisor is in ``integration/test_server.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sse_push.runtime import process, supervisor
from sse_push.runtime.process import stop_broken
from sse_push.runtime.service_manager import Given, ServiceManager
from sse_push.runtime.supervision import Limits, Supervision
from tests.harness.processes import is_running
from tests.harness.waiting import SECOND, STOP_S, wait_for

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from sse_push.runtime.process import stop_broken
from sse_push.runtime.service_manager import Given, ServiceManager
from sse_push.runtime.supervision import Limits
from sse_push.runtime.supervisor import supervise
from sse_push.runtime.logs import configure_logging

configure_logging("info")
folder = Path(sys.argv[1])

def note(name):
    (folder / f"{name}-{os.getpid()}").touch()

async def serve(link):
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    link.on_cut = lambda: (note("cut"), ended.set())
    following = asyncio.create_task(link.follow())
    following.add_done_callback(lambda _: ended.set())
    await link.tell_serving()
    note("serving")
    await ended.wait()

WORK

status = supervise(
    work,
    workers=int(sys.argv[2]),
    limits=Limits(start_s=60, silence_s=600, stop_s=60),
    on_stopping=lambda: note("stopping"),
)
note("ended")
sys.exit(status)
"""

SERVES = """
def work(link):
    asyncio.run(serve(link))
    note("done")
    return 0
"""


class Supervised:
    """A program under a supervisor, and the notes of its processes."""

    def __init__(self, folder: Path, work: str, workers: int) -> None:
        program = textwrap.dedent(PROGRAM).replace("WORK", work)
        self.folder = folder / "notes"
        self.folder.mkdir()
        self.log_path = folder / "log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, str(self.folder), str(workers)], stderr=log
            )

    def pids(self, name: str) -> set[int]:
        """Return the processes that have made a note of this name."""
        return {int(path.name.partition("-")[2]) for path in self.folder.glob(f"{name}-*")}

    def wait(self, name: str, count: int) -> set[int]:
        wait_for(lambda: len(self.pids(name)) >= count, f"{count} notes of {name}")
        return self.pids(name)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(STOP_S)

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@pytest.fixture
def supervised(tmp_path: Path) -> Callable[..., Supervised]:
    def start(work: str = SERVES, workers: int = 2) -> Supervised:
        return Supervised(tmp_path, work, workers)

    return start


Start = Callable[..., Supervised]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_are_forked_and_end_at_a_signal(supervised: Start, number: signal.Signals) -> None:
    service = supervised()
    workers = service.wait("serving", 2)

    service.signal(number)

    assert service.end() == 0, service.log
    assert service.pids("done") == workers
    assert service.pids("stopping") == {service.process.pid}
    assert service.pids("ended") == {service.process.pid}, "no worker leaves the supervision"


def test_a_worker_that_dies_is_replaced(supervised: Start) -> None:
    service = supervised(workers=1)
    (first,) = service.wait("serving", 1)

    os.kill(first, signal.SIGKILL)
    service.wait("serving", 2)
    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert f"pid={first} status=-9" in service.log


def test_a_hangup_replaces_the_workers(supervised: Start) -> None:
    service = supervised(workers=1)
    first = service.wait("serving", 1)

    service.signal(signal.SIGHUP)
    service.wait("serving", 2)
    assert service.wait("done", 1) == first
    service.signal(signal.SIGTERM)

    assert service.end() == 0


def test_a_terminal_that_is_gone_is_a_wish_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [True, False, True, True]
    monkeypatch.setattr(supervisor, "_has_terminal", lambda: answers.pop(0))
    machine = Supervision(1, Limits(60, 5, 30))
    manager = ServiceManager(Given())
    boss = supervisor._Supervisor(lambda _: 0, machine, lambda: None, manager)
    wishes: list[str] = []
    monkeypatch.setattr(machine, "stop", lambda: wishes.append("stop"))
    monkeypatch.setattr(machine, "restart", lambda: wishes.append("restart"))

    boss._handle(signal.SIGHUP)
    boss._has_terminal = supervisor._has_terminal()
    boss._handle(signal.SIGHUP)

    assert wishes == ["stop", "restart"]


def test_a_terminal_is_found_where_there_is_one() -> None:
    read = "from sse_push.runtime.supervisor import _has_terminal; print(_has_terminal())"
    pty = f"import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', {read!r}]))"

    without = subprocess.run(
        [sys.executable, "-c", read], start_new_session=True, capture_output=True, check=True
    )
    with_one = subprocess.run(
        [sys.executable, "-c", pty], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )

    assert without.stdout.split() == [b"False"]
    assert with_one.stdout.split() == [b"True"]


def test_a_second_signal_has_the_workers_cut_and_a_third_kills(supervised: Start) -> None:
    service = supervised(
        """
def work(link):
    asyncio.run(serve(link))
    while not service_is_cut.wait(0.1):
        pass
    return 0

service_is_cut = threading.Event()

async def serve(link):
    loop = asyncio.get_running_loop()
    asked, cut = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, lambda: note("asked"))
    link.on_cut = lambda: note("cut")
    following = asyncio.create_task(link.follow())
    await link.tell_serving()
    note("serving")
    await asyncio.Event().wait()
"""
    )
    workers = service.wait("serving", 2)

    service.signal(signal.SIGTERM)
    assert service.wait("asked", 2) == workers
    service.signal(signal.SIGTERM)
    assert service.wait("cut", 2) == workers
    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("act", ["pass", "link._channel.close()"])
def test_a_worker_that_does_not_listen_is_killed_at_the_third_signal(
    supervised: Start, act: str
) -> None:
    service = supervised(
        f"""
def work(link):
    signal.signal(signal.SIGTERM, lambda *_: note("asked"))
    asyncio.run(link.tell_serving())
    {act}
    note("serving")
    time.sleep(600)
""",
        workers=1,
    )
    (worker,) = service.wait("serving", 1)

    service.signal(signal.SIGTERM)
    service.wait("asked", 1)
    service.signal(signal.SIGTERM)
    service.signal(signal.SIGINT)

    assert service.end() == 0
    assert not is_running(worker)


def test_a_failing_start_ends_the_service_with_status_one(supervised: Start) -> None:
    service = supervised("def work(link):\n    raise RuntimeError('no keys')")

    assert service.end() == 1
    assert service.log.count("worker failed") >= 1
    assert "no keys" in service.log
    assert "no worker has started, stopping" in service.log


@pytest.mark.parametrize(("code", "status"), [("3", "3"), ("None", "1")])
def test_the_exit_of_a_worker_is_its_status(supervised: Start, code: str, status: str) -> None:
    service = supervised(
        f"""
def work(link):
    if not list(folder.glob("serving-*")):
        asyncio.run(serve(link))
        sys.exit({code})
    asyncio.run(serve(link))
    return 0
""",
        workers=1,
    )
    (first,) = service.wait("serving", 1)

    os.kill(first, signal.SIGTERM)
    service.wait("serving", 2)
    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert f"pid={first} status={status} " in service.log


def test_a_hangup_is_ignored_where_it_was_before(tmp_path: Path) -> None:
    """As under ``nohup``."""
    original = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        service = Supervised(tmp_path, SERVES, 1)
    finally:
        signal.signal(signal.SIGHUP, original)
    first = service.wait("serving", 1)

    service.signal(signal.SIGHUP)
    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert service.pids("serving") == first


def test_a_part_of_the_supervisor_that_dies_ends_the_service_with_status_one(
    supervised: Start,
) -> None:
    service = supervised(
        SERVES
        + """
def die():
    while len(list(folder.glob("serving-*"))) < 2:
        time.sleep(0.01)
    stop_broken()

threading.Thread(target=die, daemon=True).start()
"""
    )

    assert service.end() == 1
    assert len(service.pids("done")) == 2


def test_a_part_that_dies_ends_nothing_before_its_signal(supervised: Start) -> None:
    """Until then a worker that serves may be unheard of, and would be killed as if it started."""
    service = supervised(
        SERVES
        + """
from sse_push.runtime.process import broken

def die():
    while not (first := list(folder.glob("serving-*"))):
        time.sleep(0.01)
    broken.set()
    os.kill(int(first[0].name.partition("-")[2]), signal.SIGKILL)
    while len(list(folder.glob("serving-*"))) < 2:
        time.sleep(0.01)
    stop_broken()

threading.Thread(target=die, daemon=True).start()
""",
        workers=1,
    )

    assert service.end() == 1
    assert len(service.pids("done")) == 1


def test_a_part_that_dies_is_no_wish_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the connections of a service that stops already would be cut."""
    machine = Supervision(1, Limits(60, 5, 30))
    boss = supervisor._Supervisor(lambda _: 0, machine, lambda: None, ServiceManager(Given()))
    heard: list[str] = []
    monkeypatch.setattr(machine, "stop", lambda: heard.append("stop"))
    monkeypatch.setattr(machine, "fail", lambda: heard.append("fail"))
    monkeypatch.setattr(process, "broken", threading.Event())
    monkeypatch.setattr(os, "kill", lambda _pid, number: boss._handle(number))

    stop_broken()
    boss._handle(signal.SIGTERM)

    assert heard == ["fail", "stop"], "the second signal is an operator's"


def test_workers_end_with_a_supervisor_that_is_killed(supervised: Start) -> None:
    service = supervised()
    workers = service.wait("serving", 2)

    service.process.kill()
    service.end()

    wait_for(lambda: service.pids("done") == workers, "the workers' end")


def test_a_worker_ignores_the_signals_of_a_terminal(supervised: Start) -> None:
    service = supervised(workers=1)
    (worker,) = service.wait("serving", 1)

    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGHUP)
    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert service.pids("done") == {worker}


def test_a_start_that_is_stopped_ends_at_once(supervised: Start) -> None:
    service = supervised(
        "def work(link):\n    note('starting')\n    time.sleep(600)\n    return 0", workers=2
    )
    workers = service.wait("starting", 2)

    service.signal(signal.SIGTERM)

    assert service.end() == 0
    assert not any(map(is_running, workers))


def test_a_system_without_processes_is_a_start_that_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    original = signal.getsignal(signal.SIGTERM)

    try:
        status = supervisor.supervise(
            lambda _: 0, workers=1, limits=Limits(60, 5, 30), on_stopping=lambda: None
        )
    finally:
        signal.signal(signal.SIGTERM, original)

    assert status == 1
    assert "Resource temporarily unavailable" in caplog.text


def test_text_that_was_printed_before_is_not_printed_again_by_a_worker(tmp_path: Path) -> None:
    program = PROGRAM.replace("WORK", 'print("once")\ndef work(link):\n    return 1')

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "2"],
        capture_output=True,
        timeout=60 * SECOND,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == b"once\n"
