from __future__ import annotations

import fcntl
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from sse_push.runtime.readiness import Readiness, WorkerBoard

OWN = str(os.getpid())
ALIVE = str(os.getppid())
"""Another process that lives while the test does."""


@pytest.fixture
def board(tmp_path: Path) -> WorkerBoard:
    return WorkerBoard(tmp_path)


def dead_process() -> str:
    """Return the ID of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


@pytest.fixture
def other(tmp_path: Path) -> Generator[str]:
    """Another worker's process ID, whose note is locked while the test runs."""
    with (tmp_path / ALIVE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note(tmp_path, ALIVE, 0)
        yield ALIVE


WORKER = """
import sys, time
from pathlib import Path
from sse_push.runtime.readiness import WorkerBoard
WorkerBoard(Path(sys.argv[1])).write(1)
print("written", flush=True)
time.sleep(600)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Generator[subprocess.Popen[bytes]]:
    """Another process, on the board."""
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        yield process
        process.kill()


def note(folder: Path, process: str, age_s: float) -> Path:
    path = folder / process
    path.write_bytes(struct.pack("=d", time.monotonic() - age_s))
    return path


def test_an_empty_board_shows_no_worker(board: WorkerBoard) -> None:
    assert board.read() == Readiness(workers=0, worst_age_s=math.inf)


def test_a_worker_that_wrote_is_alive_and_as_old_as_its_last_probe(
    board: WorkerBoard, tmp_path: Path
) -> None:
    board.write(2.5)

    found = board.read()

    assert found.workers == 1
    assert 2.5 <= found.worst_age_s < 60
    assert {path.name for path in tmp_path.iterdir()} == {OWN}


def test_a_note_grows_old_by_itself(board: WorkerBoard) -> None:
    board.write(1)
    first = board.read().worst_age_s

    assert board.read().worst_age_s > first


def test_a_worker_that_has_never_seen_its_probe_is_infinitely_old(board: WorkerBoard) -> None:
    board.write(math.inf)

    assert board.read() == Readiness(workers=1, worst_age_s=math.inf)


def test_a_newer_note_replaces_an_older_one(board: WorkerBoard) -> None:
    board.write(1000)
    board.write(0)

    found = board.read()

    assert found.workers == 1
    assert found.worst_age_s < 500


def test_the_worst_age_of_several_workers_counts(
    board: WorkerBoard, tmp_path: Path, other: str
) -> None:
    board.write(1)
    note(tmp_path, other, 500)

    found = board.read()

    assert found.workers == 2
    assert 500 <= found.worst_age_s < 900


def test_a_worker_reads_the_note_of_another(tmp_path: Path, other: str) -> None:
    note(tmp_path, other, 500)

    assert WorkerBoard(tmp_path).read().workers == 1


def test_the_note_of_a_dead_worker_is_removed(board: WorkerBoard, tmp_path: Path) -> None:
    board.write(1)
    left_behind = note(tmp_path, dead_process(), 500)

    found = board.read()

    assert found.workers == 1
    assert found.worst_age_s < 500
    assert not left_behind.exists()


def test_a_worker_that_is_killed_is_off_the_board_at_once(
    board: WorkerBoard, tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    board.write(1)
    assert set(board.living()) == {worker.pid, os.getpid()}

    worker.kill()
    worker.wait()

    assert set(board.living()) == {os.getpid()}
    assert {path.name for path in tmp_path.iterdir()} == {OWN}


def test_a_process_with_the_id_of_a_dead_worker_is_no_worker(
    board: WorkerBoard, tmp_path: Path
) -> None:
    left_behind = note(tmp_path, ALIVE, 500)  # not locked

    assert board.read().workers == 0
    assert not left_behind.exists()


def test_two_readers_at_the_same_time_do_not_look_alive_to_each_other(
    board: WorkerBoard, tmp_path: Path
) -> None:
    note(tmp_path, ALIVE, 500)
    with (tmp_path / ALIVE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)

        assert board.read().workers == 0


def test_a_worker_whose_note_was_removed_writes_it_again(
    board: WorkerBoard, tmp_path: Path
) -> None:
    board.write(1)
    (tmp_path / OWN).unlink()
    assert board.read().workers == 0

    board.write(1)

    (tmp_path / OWN).rename(tmp_path / ALIVE)  # as another worker sees it
    assert set(board.living()) == {int(ALIVE)}


def test_a_worker_without_a_file_to_spare_can_still_write_but_is_not_ready(
    board: WorkerBoard,
) -> None:
    board.write(1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)  # the lowest number that is free
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        board.write(1)
        found = board.read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert found == Readiness(workers=0, worst_age_s=math.inf)
    assert board.read().worst_age_s < 500


def test_a_worker_that_leaves_while_the_board_is_read_is_not_counted(
    board: WorkerBoard, tmp_path: Path, other: str
) -> None:
    (tmp_path / other).unlink()
    (tmp_path / other).symlink_to(tmp_path / "gone")

    assert board.read() == Readiness(workers=0, worst_age_s=math.inf)


def test_other_files_in_the_folder_are_no_workers(board: WorkerBoard, tmp_path: Path) -> None:
    for name in ("12.draft", "notes", "-1", ".hidden"):
        note(tmp_path, name, 500)

    assert board.read().workers == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_a_worker_erases_its_note_once(board: WorkerBoard, tmp_path: Path) -> None:
    board.write(1)

    board.erase()
    board.erase()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    board = WorkerBoard(tmp_path / "run")
    board.write(1)
    shutil.rmtree(tmp_path / "run")
    assert board.living() == {}

    board.write(1)

    assert board.read().workers == 1


def test_a_place_that_takes_no_notes_is_logged_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").touch()
    board = WorkerBoard(tmp_path / "run")

    board.write(1)
    board.write(1)
    assert board.read().workers == 0
    (tmp_path / "run").unlink()
    board.write(1)

    assert board.read().workers == 1
    (message,) = caplog.messages
    assert message.startswith("state of this worker can't be shared cause=")
