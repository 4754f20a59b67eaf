from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from types import FrameType

import pytest

from sse_push.runtime import process
from sse_push.runtime.process import (
    on_stop_signal,
    stop_broken,
    stop_if_a_callback_fails,
    stop_if_it_dies,
)
from tests.harness.waiting import SECOND

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Server:
    """A server that handles both signals."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def handle_exit(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)


@pytest.fixture
def server() -> Generator[Server]:
    """Let a server handle both signals, as it does while it serves."""
    serving = Server()
    originals = {number: signal.signal(number, serving.handle_exit) for number in SIGNALS}
    yield serving
    process.broken.clear()
    process._is_signaled.clear()
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

    with on_stop_signal(begun.set, is_supervised=False):
        signal.raise_signal(number)
        is_begun_within_the_handler = begun.is_set()
        await when(begun)

    assert not is_begun_within_the_handler
    assert server.received == [number]


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
async def test_a_second_signal_is_left_to_the_server(
    server: Server, first: signal.Signals, second: signal.Signals
) -> None:
    begun: list[str] = []

    with on_stop_signal(lambda: begun.append("begun"), is_supervised=False):
        signal.raise_signal(first)
        signal.raise_signal(second)
        await asyncio.sleep(0)

    assert begun == ["begun"]
    assert server.received == [first, second]


@pytest.mark.usefixtures("server")
async def test_a_handler_of_no_server_is_called_as_well() -> None:
    received: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, handler)

    with on_stop_signal(lambda: None, is_supervised=False):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    assert received == [signal.SIGTERM] * 2


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("original", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_signal_without_a_handler_only_begins_the_end(original: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, original)
    begun = asyncio.Event()

    with on_stop_signal(begun.set, is_supervised=False):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await when(begun)

    assert signal.getsignal(signal.SIGTERM) is original


async def test_the_handlers_are_put_back(server: Server) -> None:
    with on_stop_signal(lambda: None, is_supervised=False):
        assert signal.getsignal(signal.SIGTERM) != server.handle_exit
        assert signal.getsignal(signal.SIGINT) != server.handle_exit

    assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_the_handlers_are_put_back_after_an_error(server: Server) -> None:
    with (
        pytest.raises(OSError, match="no"),
        on_stop_signal(lambda: None, is_supervised=False),
    ):
        raise OSError("no")

    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_a_supervised_process_leaves_ctrl_c_to_its_supervisor(server: Server) -> None:
    begun = asyncio.Event()

    with on_stop_signal(begun.set, is_supervised=True):
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        is_begun_by_ctrl_c = begun.is_set()
        signal.raise_signal(signal.SIGTERM)
        await when(begun)

    assert not is_begun_by_ctrl_c
    assert server.received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == server.handle_exit


async def test_a_supervised_process_leaves_a_second_signal_to_its_supervisor(
    server: Server,
) -> None:
    begun: list[str] = []

    with on_stop_signal(lambda: begun.append("begun"), is_supervised=True):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    assert begun == ["begun"]
    assert server.received == [signal.SIGTERM]


# -- a part that has died


@pytest.mark.parametrize("from_a_thread", [False, True])
async def test_a_broken_process_stops_in_order_and_remembers_why(
    server: Server, *, from_a_thread: bool
) -> None:
    if from_a_thread:
        await asyncio.to_thread(stop_broken)
    else:
        stop_broken()
    await asyncio.sleep(0)

    assert server.received == [signal.SIGTERM]
    assert process.broken.is_set()


@pytest.mark.parametrize("stop", [lambda: signal.raise_signal(signal.SIGTERM), stop_broken])
async def test_a_part_that_dies_while_the_process_stops_changes_nothing(
    server: Server, stop: Callable[[], None]
) -> None:
    """By a second signal the server would cut the connections that end in order."""
    with on_stop_signal(lambda: None, is_supervised=False):
        stop()
        stop_broken()
        received_from_parts = list(server.received)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    assert received_from_parts == [signal.SIGTERM]
    assert server.received == [signal.SIGTERM] * 2, "an operator's signal counts"
    assert process.broken.is_set()


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

    assert server.received == [signal.SIGTERM]
    assert process.broken.is_set()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.CRITICAL, "tail died, stopping")
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception()


async def test_a_task_that_ends_without_an_error_stops_the_process_too(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task = asyncio.create_task(finish(), name="tail")
    stop_if_it_dies(task)

    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert server.received == [signal.SIGTERM]
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

    assert server.received == []
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

    assert server.received == [signal.SIGTERM]
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

    assert server.received == []
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


def test_a_process_whose_loop_hangs_exits_and_logs_where() -> None:
    hanging = watched("hangs")

    _, log = hanging.communicate(timeout=20 * SECOND)

    assert hanging.returncode == process.HANGING == 70
    assert "the event loop hangs, exiting limit_s=0.5" in log
    assert "time.sleep(60)" in log or "in main" in log


def test_a_process_that_was_stopped_as_a_whole_goes_on() -> None:
    """The loop did not hang: the machine slept, or the process was frozen."""
    frozen = watched()
    assert frozen.stdout is not None
    frozen.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        frozen.wait(1)  # longer than the limit: a stopped process gives no sign to wait for
    frozen.send_signal(signal.SIGCONT)

    _, log = frozen.communicate("\n", timeout=20 * SECOND)

    assert (frozen.returncode, log) == (0, "")
