"""The files in which workers keep their numbers, and how one worker adds them all up.

Knows the inside of prometheus-client's multiprocess mode. Does not know what is counted.

https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sse_push.runtime.readiness import WorkerBoard

logger = logging.getLogger(__name__)

_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")
_FILE_BYTES = 1 << 20
"""How large the library makes a file; most of it is never written."""

_USED_BYTES = 1 << 16
"""Four times what the series of a worker take: the number of labels is bounded."""

_RETIRED = "retired"
"""The name, instead of a process ID, of the files that hold the counts of all dead workers."""

_LOCK_STEP_S = 0.01
_LOCK_TRIES = 100


class OwnFiles:
    """The files of this process, and their names: ``<kind>_<process ID>-<number>.db``.

    If somebody has deleted the files, the numbers continue in new ones, of the next number.

    Raises:
        OSError: the folder takes no files, or has no room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._reserve()
        # The library decides as it is imported whether there are files: before there is a folder.
        values.ValueClass = values.MultiProcessValue(self._name)

    def are_new(self) -> bool:
        """Return whether the files were gone, and others begin, in which every number is 0."""
        if self._path("counter").exists():
            return False
        self._number += 1
        try:
            self._reserve()
        except OSError as exc:
            self._number -= 1
            logger.debug("no new files for the metrics cause=%s", exc)
            return False
        return True

    def _name(self) -> str:
        return f"{os.getpid()}-{self._number}"

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}_{self._name()}.db"

    def _reserve(self) -> None:
        """Make the files with room on the disk: without it, a write to the memory would kill."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for kind in _KINDS:
            with self._path(kind).open("wb") as file:
                file.truncate(_FILE_BYTES)
                os.posix_fallocate(file.fileno(), 0, _USED_BYTES)


def own_files(folder: Path | None) -> OwnFiles | None:
    """Make the files of this process; without any, its numbers are kept in its memory."""
    if folder is not None:
        try:
            return OwnFiles(folder)
        except OSError as exc:  # a service without the sum of its metrics is better than none
            logger.warning("metrics of this worker can't be shared cause=%s", exc)
    values.ValueClass = values.MutexValue
    return None


class AllFiles(Collector):
    """The files of all workers: the gauges of the living, the counters of all."""

    def __init__(self, board: WorkerBoard, folder: Path) -> None:
        self._board = board
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the sums over all files."""
        with _locked(self._folder / "lock", fcntl.LOCK_EX, tries=1) as is_alone:
            if is_alone:
                self._retire_the_dead()
        with _locked(self._folder / "lock", fcntl.LOCK_SH, tries=_LOCK_TRIES):
            # A worker that has just started has created its file, and not filled it yet.
            files = [str(path) for path in self._folder.glob("*.db") if _size_of(path) > 0]
            return cast("Iterable[Metric]", MultiProcessCollector.merge(files))

    def _retire_the_dead(self) -> None:
        """Delete dead workers' gauges, and add their counts to one file of all dead workers.

        Otherwise a worker that dies again and again would leave ever more files to read.
        """
        # Files first, board second: a worker is on the board before it has files.
        files = [path for path in self._folder.glob("*_*.db") if not _is_retired(path)]
        living = self._board.living()
        for path in files:
            kind, _, name = path.stem.rpartition("_")
            if int(name.partition("-")[0]) not in living:
                if kind in ("counter", "histogram") and _size_of(path) > 0:
                    _add(path, path.with_name(f"{kind}_{_RETIRED}.db"))
                path.unlink(missing_ok=True)


def _is_retired(path: Path) -> bool:
    return path.stem.endswith(f"_{_RETIRED}")


def _add(source: Path, target: Path) -> None:
    # MmapedDict is not documented; read from prometheus-client 0.26.0. The last argument of
    # write_value is the time of a gauge, which a counter does not have.
    total = MmapedDict(str(target))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, 0.0)
    finally:
        total.close()


@contextmanager
def _locked(path: Path, mode: int, *, tries: int) -> Generator[bool]:
    """Hold a lock, or yield False after some tries: its holder may be stuck for ever."""
    try:
        lock = path.open("a")
    except OSError:  # the folder was deleted, and comes back at the next update
        yield False
        return
    with lock:
        is_held = False
        for number in range(tries):
            if number:
                time.sleep(_LOCK_STEP_S)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, mode | fcntl.LOCK_NB)
                is_held = True
                break
        yield is_held


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
