from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from types import FrameType

import pytest

from sse_push.runtime import process
from sse_push.runtime.process import (
    hear_stop,
    stop_if_a_callback_fails,
    stop_if_it_dies,
    stop_with_parent,
)
from tests.harness.waiting import SECOND

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Server:
    """What the handlers find of a server: one that stops at the first signal, and waits."""

    def __init__(self) -> None:
        self.force_exit = False
        self.heard: list[int] = []

    def handle_exit(self, number: int, _frame: FrameType | None) -> None:
        self.heard.append(number)


@pytest.fixture
def server() -> Generator[Server]:
    """Let a server handle both signals, as it does while it serves."""
    serving = Server()
    originals = {number: signal.signal(number, serving.handle_exit) for number in SIGNALS}
    yield serving
    process.broken.clear()
    for number, original in originals.items():
        signal.signal(number, original)


async def when(event: asyncio.Event) -> None:
    async with asyncio.timeout(5 * SECOND):
        await event.wait()


# -- the signals


@pytest.mark.parametrize("number", SIGNALS)
async def test_the_first_signal_begins_the_end_in_the_loop_and_reaches_the_server(
    server: Server, number: signal.Signals
) -> None:
    begun = asyncio.Event()

    with hear_stop(begun.set, is_supervised=False):
        signal.raise_signal(number)
        is_begun_within_the_handler = begun.is_set()
        await when(begun)

    assert not is_begun_within_the_handler
    assert server.heard == [number]
    assert not server.force_exit


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
async def test_a_second_signal_makes_the_server_stop_waiting(
    server: Server, first: signal.Signals, second: signal.Signals
) -> None:
    begun: list[str] = []

    with hear_stop(lambda: begun.append("begun"), is_supervised=False):
        signal.raise_signal(first)
        signal.raise_signal(second)
        await asyncio.sleep(0)

    assert begun == ["begun"]
    assert server.heard == [first, second]
    assert server.force_exit


async def test_a_handler_that_is_no_server_s_is_called_all_the_same(server: Server) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))

    with hear_stop(lambda: None, is_supervised=False):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    assert heard == [signal.SIGTERM, signal.SIGTERM]
    assert not server.force_exit


@pytest.mark.parametrize("original", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.usefixtures("server")
async def test_a_signal_that_nobody_handles_begins_the_end_and_no_more(
    original: signal.Handlers,
) -> None:
    signal.signal(signal.SIGTERM, original)
    begun = asyncio.Event()

    with hear_stop(begun.set, is_supervised=False):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await when(begun)

    assert signal.getsignal(signal.SIGTERM) is original


async def test_the_handlers_are_put_back(server: Server) -> None:
    with hear_stop(lambda: None, is_supervised=False):
        assert signal.getsignal(signal.SIGTERM) != server.handle_exit
        assert signal.getsignal(signal.SIGINT) != server.handle_exit

    assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_the_handlers_are_put_back_after_an_error(server: Server) -> None:
    with pytest.raises(OSError, match="no"), hear_stop(lambda: None, is_supervised=False):
        raise OSError("no")

    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_a_supervised_process_leaves_ctrl_c_to_its_supervisor(server: Server) -> None:
    begun = asyncio.Event()

    with hear_stop(begun.set, is_supervised=True):
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        is_begun_by_ctrl_c = begun.is_set()
        signal.raise_signal(signal.SIGTERM)
        await when(begun)

    assert not is_begun_by_ctrl_c
    assert server.heard == [signal.SIGTERM]
    assert not server.force_exit
    assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_a_supervised_process_leaves_a_second_signal_to_its_supervisor(
    server: Server,
) -> None:
    begun: list[str] = []

    with hear_stop(lambda: begun.append("begun"), is_supervised=True):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    assert begun == ["begun"]
    assert server.heard == [signal.SIGTERM]
    assert not server.force_exit


# -- a task that must not end


async def fail() -> None:
    raise RuntimeError("the tail is broken")


async def finish() -> None:
    return


async def wait() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_fails_stops_the_process(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(fail(), name="tail")
    stop_if_it_dies(task)

    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert server.heard == [signal.SIGTERM]
    assert process.broken.is_set()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.CRITICAL, "tail died, stopping")
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception()


async def test_a_task_that_just_ends_stops_the_process_too(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(finish(), name="tail")
    stop_if_it_dies(task)

    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert server.heard == [signal.SIGTERM]
    assert [record.getMessage() for record in caplog.records] == ["tail died, stopping"]


async def test_a_task_that_was_canceled_stops_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(wait(), name="tail")
    stop_if_it_dies(task)
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert server.heard == []
    assert caplog.records == []


# -- a callback that must not fail


def break_down() -> None:
    raise RuntimeError("the fan-out is broken")


async def test_a_callback_that_fails_stops_the_process(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    stop_if_a_callback_fails(loop)

    loop.call_soon(break_down)
    await asyncio.sleep(0)

    assert server.heard == [signal.SIGTERM]
    assert process.broken.is_set()
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.CRITICAL]
    assert caplog.records[1].getMessage() == "a callback failed, stopping"


@pytest.mark.parametrize(
    "context",
    [
        {"message": "a connection was lost", "exception": OSError("reset")},
        {"message": "a handle without an error", "handle": None},
    ],
)
async def test_an_error_of_a_single_connection_is_only_logged(
    server: Server, caplog: pytest.LogCaptureFixture, context: dict[str, object]
) -> None:
    loop = asyncio.get_running_loop()
    stop_if_a_callback_fails(loop)

    loop.call_exception_handler(context)

    assert server.heard == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- a loop that hangs


LOOP = """
import asyncio, sys, time
from sse_push.runtime.process import exit_if_it_hangs

async def main(hangs):
    with exit_if_it_hangs(asyncio.get_running_loop(), 0.5):
        print("watched", flush=True)
        if hangs:
            time.sleep(60)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(len(sys.argv) > 1))
"""


def watched(*arguments: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", LOOP, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "watched\n"
    return started


def test_a_process_whose_loop_hangs_exits_and_says_where() -> None:
    hanging = watched("hangs")

    _, log = hanging.communicate(timeout=20 * SECOND)

    assert hanging.returncode == process.HANGING == 70
    assert "the event loop hangs, exiting limit_s=0.5" in log
    assert "time.sleep(60)" in log or "in main" in log


def test_a_process_that_was_stopped_as_a_whole_goes_on() -> None:
    """Nobody hung: the machine was asleep, or the process was frozen and thawed."""
    frozen = watched()
    assert frozen.stdout is not None
    frozen.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        frozen.wait(1)  # longer than the limit: nothing can be awaited of a stopped process
    frozen.send_signal(signal.SIGCONT)

    _, log = frozen.communicate("\n", timeout=20 * SECOND)

    assert (frozen.returncode, log) == (0, "")


# -- a worker and its supervisor


async def test_a_worker_stops_once_its_parent_is_gone(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parents = iter([10, 10, 10, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(process, "_PARENT_INTERVAL_S", 0)

    async with asyncio.timeout(5 * SECOND):
        await stop_with_parent()

    assert server.heard == [signal.SIGTERM]
    assert [record.getMessage() for record in caplog.records] == [
        "the supervising process is gone, stopping parent=10"
    ]


async def test_a_worker_whose_parent_lives_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PARENT_INTERVAL_S", 0)
    task = asyncio.create_task(stop_with_parent())

    for _ in range(20):
        await asyncio.sleep(0)
    is_running = not task.done()
    task.cancel()
    await asyncio.wait([task])

    assert is_running
    assert server.heard == []
