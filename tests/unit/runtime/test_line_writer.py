"""Lines into a pipe that is read late, or never."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Generator

import pytest

from sse_push.runtime import supervisor
from sse_push.runtime.line_writer import LineWriter
from tests.harness.waiting import SECOND, wait_for

PIPE_BYTES = 65_536
LINE = b"x" * 999 + b"\n"


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    """A reader's and a writer's end; the first may be closed by a test."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)


def read(fd: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        readable, _, _ = select.select([fd], [], [], 5 * SECOND)
        assert readable, f"expected {size} bytes, got {len(found)}"
        found += os.read(fd, size - len(found))
    return found


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    lines = [b"%d\n" % number for number in range(1000)]

    has_room = [writer.put(line) for line in lines]

    assert all(has_room)
    assert writer.flush(5 * SECOND)
    assert read(pipe[0], len(b"".join(lines))) == b"".join(lines)
    os.close(pipe[0])


def test_a_pipe_that_nobody_reads_makes_nobody_wait_and_what_has_no_room_is_counted(
    pipe: tuple[int, int],
) -> None:
    limit_bytes = 100 * len(LINE)
    writer = LineWriter(pipe[1], limit_bytes=limit_bytes)

    began_at = time.monotonic()
    put = sum(writer.put(LINE) for _ in range(1000))
    took_s = time.monotonic() - began_at

    assert took_s < SECOND
    assert 100 <= put <= 100 + PIPE_BYTES // len(LINE)
    assert writer.take_dropped() == 0, "there is no room for a line that says so"
    assert not writer.flush(0.01)

    assert read(pipe[0], put * len(LINE)) == LINE * put
    assert writer.flush(5 * SECOND)
    assert writer.take_dropped() == 1000 - put
    assert writer.take_dropped() == 0
    os.close(pipe[0])


def test_a_line_that_is_longer_than_the_pipe_is_written_whole(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    line = bytes(range(65, 91)) * 10_000

    writer.put(line)

    assert read(pipe[0], len(line)) == line
    os.close(pipe[0])


def test_a_file_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1])
    put = 3 * PIPE_BYTES // len(LINE)
    for _ in range(put):
        writer.put(LINE)
    wait_for(lambda: not select.select([], [pipe[1]], [], 0)[1], "the pipe to be full")

    assert read(pipe[0], put * len(LINE)) == LINE * put
    assert writer.flush(5 * SECOND)
    os.close(pipe[0])


def test_lines_for_a_reader_that_is_gone_are_lost_and_nothing_else(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    os.close(pipe[0])

    assert writer.put(LINE)
    assert writer.put(LINE)

    wait_for(lambda: writer.flush(0), "the lines to be given up")


def test_a_fork_finds_the_lock_free_while_another_thread_writes(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], limit_bytes=len(LINE))
    is_over = threading.Event()

    def keep_writing() -> None:
        while not is_over.is_set():
            writer.put(LINE)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    statuses = set()
    for _ in range(50):
        pid = supervisor._fork()
        if pid == 0:  # pragma: no cover (nothing traces a function that a fork is in)
            signal.alarm(5)  # a lock that nobody can release would hold for ever
            writer.put(b"")
            os._exit(0)
        statuses.add(os.waitpid(pid, 0)[1])
    is_over.set()
    thread.join()
    os.close(pipe[0])

    assert statuses == {0}
