"""``force_exit``, how long a worker may take to start, and a second signal for the supervisor.

The server and its workers run in ``integration/test_server.py``.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from types import FrameType
from typing import Any, cast
from unittest.mock import Mock

import pytest
import uvicorn

from sse_push.runtime.uvicorn import force_exit, serving
from tests.harness.waiting import until


class ServerOfAnotherMake:
    force_exit = False

    def handle_exit(self, _number: int, _frame: FrameType | None) -> None:
        raise NotImplementedError


async def test_the_connections_of_a_handlers_server_are_cut() -> None:
    server = uvicorn.Server(uvicorn.Config(cast("Any", None), log_config=None))
    connections = [Mock(), Mock()]
    server.server_state.connections.update(connections)

    force_exit(server.handle_exit)

    for connection in connections:
        connection.transport.abort.assert_called_once_with()
    assert not server.force_exit


async def test_what_does_not_end_once_it_is_cut_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = uvicorn.Server(uvicorn.Config(cast("Any", None), log_config=None))
    monkeypatch.setattr(serving, "_CUT_LIMIT_S", 0.01)

    force_exit(server.handle_exit)

    await until(lambda: server.force_exit, "the end of the wait")


def test_a_handler_of_another_server_or_of_none_has_no_effect() -> None:
    other = ServerOfAnotherMake()

    force_exit(other.handle_exit)
    force_exit(None)
    force_exit(lambda *_: None)

    assert not other.force_exit


class RunningProcess:
    """A process that runs, whatever becomes of it."""

    is_running = True

    def start(self) -> None:
        """Do nothing: the test answers for the process."""

    def is_alive(self) -> bool:
        return self.is_running


@pytest.fixture
def worker() -> serving._Worker:
    made = serving._Worker(uvicorn.Config(cast("Any", None), log_config=None), [])
    made.process = cast("Any", RunningProcess())
    made.start()
    return made


def answer(worker: serving._Worker, *, has_started: bool) -> None:
    worker.child_conn.send(has_started)


def test_a_worker_that_starts_slowly_is_alive_and_not_waited_for(worker: serving._Worker) -> None:
    assert worker.is_alive(timeout=0)
    assert worker.is_alive(timeout=0)


def test_a_worker_that_has_not_started_within_its_limit_is_dead(
    worker: serving._Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_START_LIMIT_S", 0)

    assert not worker.is_alive(timeout=0)


def test_a_worker_whose_process_has_ended_is_dead(worker: serving._Worker) -> None:
    cast("RunningProcess", worker.process).is_running = False

    assert not worker.is_alive(timeout=0)


def test_a_worker_that_has_started_answers_each_time_or_is_dead(worker: serving._Worker) -> None:
    answer(worker, has_started=False)
    assert not worker.is_alive(timeout=0), "only the start was answered"

    answer(worker, has_started=False)
    assert worker.is_alive(timeout=0)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_replacement_has_the_limit_of_a_start(
    worker: serving._Worker, monkeypatch: pytest.MonkeyPatch, *, is_running: bool
) -> None:
    cast("RunningProcess", worker.process).is_running = is_running
    answer(worker, has_started=True)  # uvicorn's own limit has passed

    assert worker.wait_until_ready(timeout=0) is is_running

    monkeypatch.setattr(serving, "_START_LIMIT_S", 0)
    assert not worker.wait_until_ready(timeout=60)


def test_a_second_signal_ends_workers_that_still_drain(worker: serving._Worker) -> None:
    """Two of them, in processes that sleep for ten minutes."""
    second = serving._Worker(worker.config, [])
    supervisor = serving._Workers.__new__(serving._Workers)
    supervisor.processes = [worker, second]
    for each in supervisor.processes:
        sleeps = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
        sleeps.start()
        each.process = sleeps
    supervisor.signal_queue = [signal.SIGTERM]

    supervisor.join_all()

    assert [each.exitcode for each in supervisor.processes] == [-signal.SIGKILL] * 2
