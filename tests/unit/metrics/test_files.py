"""The files of several workers, and those of one that somebody has deleted."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from sse_push.metrics import files as module
from sse_push.metrics.files import AllFiles, OwnFiles, own_files
from sse_push.runtime.readiness import WorkerBoard
from tests.harness.waiting import SECOND


class Files:
    """A folder with the files of workers; ``DEAD`` is the ID of a process that has ended."""

    DEAD = (1, 2)

    def __init__(self, folder: Path) -> None:
        (folder / "metrics").mkdir()
        self.folder = folder / "metrics"
        self.board = WorkerBoard(folder)
        self.board.write(0)
        self.living = os.getpid()
        self.collector = AllFiles(self.board, self.folder)

    def write(self, kind: str, process_id: int, **values: float) -> None:
        """Write a counter, a gauge or a bucket of a histogram."""
        samples = MmapedDict(str(self.folder / f"{kind}_{process_id}.db"))
        for name, value in values.items():
            series, labels = name, []
            if kind == "histogram":
                series, _, bound = name.partition("_")
                labels = [bound]
            key = mmap_key(
                series, f"{series}_bucket" if labels else name, ["le"][: len(labels)], labels, "-"
            )
            samples.write_value(key, value, 0.0)
        samples.close()

    def scraped(self) -> dict[str, float]:
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in self.collector.collect()
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.db")}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_counts_of_dead_workers_are_kept_in_one_file(files: Files) -> None:
    first, second = files.DEAD
    for process_id in (files.living, first, second):
        files.write("counter", process_id, a=process_id, b=1)
    files.write("counter", second, c=5)

    for _ in range(2):
        assert files.scraped() == {"a": files.living + first + second, "b": 3, "c": 5}
        assert files.names == {f"counter_{files.living}.db", "counter_retired.db"}

    files.write("counter", first, b=7)  # another one, of the same number, has died since

    assert files.scraped() == {"a": files.living + first + second, "b": 10, "c": 5}
    assert files.names == {f"counter_{files.living}.db", "counter_retired.db"}


def test_the_buckets_of_dead_workers_are_added_up(files: Files) -> None:
    for process_id in (files.living, *files.DEAD):
        files.write("histogram", process_id, **{"h_1.0": 2, "h_+Inf": 1})

    for _ in range(2):
        assert files.scraped() == {"h_bucket{1.0}": 6, "h_bucket{+Inf}": 9, "h_count": 9}
    assert files.names == {f"histogram_{files.living}.db", "histogram_retired.db"}


def test_the_gauges_of_dead_workers_are_deleted(files: Files) -> None:
    for process_id in (files.living, *files.DEAD):
        files.write("gauge_livesum", process_id, streams=process_id)
        files.write("gauge_livemax", process_id, lag=0 if process_id == files.living else 9)

    assert files.scraped() == {"streams": files.living, "lag": 0}
    assert files.names == {f"gauge_live{each}_{files.living}.db" for each in ("sum", "max")}


@pytest.mark.parametrize("process_id", ["living", *Files.DEAD])
def test_a_file_that_is_not_filled_yet_adds_nothing(files: Files, process_id: int | str) -> None:
    files.write("counter", files.living, a=3)
    number = files.living if process_id == "living" else process_id
    (files.folder / f"histogram_{number}.db").touch()

    assert files.scraped() == {"a": 3}


def test_a_worker_that_is_stuck_with_the_lock_keeps_no_other_from_answering(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_TRIES", 2)
    files.write("counter", files.living, a=3)
    files.write("counter", files.DEAD[0], a=4)

    with (files.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert files.scraped() == {"a": 7}
        assert "counter_retired.db" not in files.names

    assert files.scraped() == {"a": 7}
    assert "counter_retired.db" in files.names


def test_two_workers_that_answer_at_the_same_time_do_not_wait_for_each_other(files: Files) -> None:
    files.write("counter", files.living, a=3)

    with (files.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        began_at = time.monotonic()
        assert files.scraped() == {"a": 3}

    assert time.monotonic() - began_at < SECOND


def test_a_folder_that_was_deleted_has_no_numbers_and_is_no_error(files: Files) -> None:
    files.write("counter", files.living, a=3)
    shutil.rmtree(files.folder)

    assert files.scraped() == {}
    assert module._size_of(files.folder / "deleted") == 0


# -- the files of this process


def test_the_files_of_a_process_have_room_and_a_name_that_tells_whose_they_are(
    tmp_path: Path,
) -> None:
    OwnFiles(tmp_path / "made")

    paths = sorted((tmp_path / "made").iterdir())
    assert [path.name for path in paths] == [
        f"{kind}_{os.getpid()}-0.db"
        for kind in ("counter", "gauge_livemax", "gauge_livesum", "histogram")
    ]
    assert {path.stat().st_size for path in paths} == {1 << 20}
    assert all(1 << 16 <= path.stat().st_blocks * 512 < 1 << 19 for path in paths)


def test_files_that_were_deleted_are_made_again_under_the_next_name(tmp_path: Path) -> None:
    own = OwnFiles(tmp_path / "made")
    assert not own.are_new()

    shutil.rmtree(tmp_path / "made")
    assert own.are_new()
    assert not own.are_new()

    assert (tmp_path / "made" / f"counter_{os.getpid()}-1.db").exists()


def test_a_place_that_takes_no_files_is_tried_again(tmp_path: Path) -> None:
    own = OwnFiles(tmp_path / "made")
    shutil.rmtree(tmp_path / "made")
    (tmp_path / "made").touch()

    assert not own.are_new()
    (tmp_path / "made").unlink()

    assert own.are_new()


def test_a_disk_without_room_is_told_and_the_numbers_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)

    assert own_files(tmp_path) is None
    assert values.ValueClass is values.MutexValue
    assert caplog.messages == [
        "metrics of this worker can't be shared cause=[Errno 28] No space left on device"
    ]
