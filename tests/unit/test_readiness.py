from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sse_push.readiness import Board, Readiness

OWN = str(os.getpid())
ALIVE = str(os.getppid())
"""Another process that lives while the test does."""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def dead_process() -> str:
    """Return the ID of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


def note(folder: Path, process: str, age_s: float) -> Path:
    path = folder / process
    path.write_text(repr(time.monotonic() - age_s))
    return path


def test_an_empty_board_shows_nobody(board: Board) -> None:
    assert board.read() == Readiness(workers=0, worst_age_s=math.inf)


def test_a_worker_that_wrote_is_alive_and_as_old_as_its_last_probe(
    board: Board, tmp_path: Path
) -> None:
    board.write(2.5)

    found = board.read()

    assert found.workers == 1
    assert 2.5 <= found.worst_age_s < 60
    assert [path.name for path in tmp_path.iterdir()] == [OWN]


def test_a_note_grows_old_by_itself(board: Board) -> None:
    board.write(1)
    first = board.read().worst_age_s

    assert board.read().worst_age_s > first


def test_a_worker_that_has_never_seen_its_probe_is_infinitely_old(board: Board) -> None:
    board.write(math.inf)

    assert board.read() == Readiness(workers=1, worst_age_s=math.inf)


def test_a_newer_note_replaces_an_older_one(board: Board) -> None:
    board.write(1000)
    board.write(0)

    found = board.read()

    assert found.workers == 1
    assert found.worst_age_s < 500


def test_of_several_workers_the_worst_counts(board: Board, tmp_path: Path) -> None:
    board.write(1)
    note(tmp_path, ALIVE, 500)

    found = board.read()

    assert found.workers == 2
    assert 500 <= found.worst_age_s < 900


def test_one_worker_judges_another(tmp_path: Path) -> None:
    note(tmp_path, ALIVE, 500)

    assert Board(tmp_path).read().workers == 1


def test_a_worker_that_has_died_is_taken_off(board: Board, tmp_path: Path) -> None:
    board.write(1)
    left_behind = note(tmp_path, dead_process(), 500)

    found = board.read()

    assert found.workers == 1
    assert found.worst_age_s < 500
    assert not left_behind.exists()


def test_a_process_of_another_user_is_alive(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_process: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    note(tmp_path, "1", 5)

    assert board.read().workers == 1


def test_a_worker_that_leaves_while_the_board_is_read_is_not_counted(
    board: Board, tmp_path: Path
) -> None:
    (tmp_path / ALIVE).symlink_to(tmp_path / "gone")

    assert board.read() == Readiness(workers=0, worst_age_s=math.inf)


def test_whatever_else_is_in_the_folder_is_no_worker(board: Board, tmp_path: Path) -> None:
    for name in ("12.draft", "notes", "-1", ".hidden"):
        note(tmp_path, name, 500)

    assert board.read().workers == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_a_worker_takes_itself_off_once_and_for_all(board: Board, tmp_path: Path) -> None:
    board.write(1)

    board.erase()
    board.erase()

    assert list(tmp_path.iterdir()) == []
