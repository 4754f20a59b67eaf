"""The board: which workers are alive, and how old the last good probe of each is.

Knows processes and the age of their probes. Does not know what a probe is, nor which age is too
old.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple, cast

logger = logging.getLogger(__name__)

_TIME = struct.Struct("=d")


class Readiness(NamedTuple):
    """The state of all workers: how many are alive, and the age of the oldest last good probe."""

    workers: int
    worst_age_s: float


class WorkerBoard:
    """A folder with one note per worker: the time of the worker's last good probe.

    Times are those of the system-wide monotonic clock, so that workers can compare them, and the
    age of a frozen or dead worker grows by itself.

    A worker keeps its note open and locked while it lives. A note that another process can lock
    belongs to a dead worker, however the worker died; its process ID would not prove that, since
    the system uses IDs again. An open note can also be written when clients have taken all file
    descriptors.

    https://docs.python.org/3/library/time.html#time.monotonic
    https://man7.org/linux/man-pages/man2/flock.2.html
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / str(os.getpid())
        self._note: int | None = None
        self._is_failing = False

    def write(self, age_s: float) -> None:
        """Note the age of this process's last good probe; infinite if there was none.

        Where no note can be written, this worker is missing on the board, and that is logged once.
        """
        text = _TIME.pack(time.monotonic() - age_s)
        try:
            if self._note is None or not self._own.exists():
                self._create_note(text)
            else:
                os.pwrite(self._note, text, 0)
        except OSError as exc:
            if not self._is_failing:
                logger.warning("state of this worker can't be shared cause=%s", exc)
            self._is_failing = True
        else:
            self._is_failing = False

    def erase(self) -> None:
        """Remove this process's note."""
        if self._note is not None:
            self._own.unlink(missing_ok=True)
            os.close(self._note)
            self._note = None

    def read(self) -> Readiness:
        """Return the state of all workers that are alive; the same in each of them."""
        ages = self.living()
        return Readiness(len(ages), max(ages.values(), default=float("inf")))

    def living(self) -> dict[int, float]:
        """Return the process IDs of the workers that are alive, each with the age of its probe.

        A worker whose note can't be read is left out: the worker may be leaving. Or this process
        may be out of file descriptors, and then it is not ready either.
        """
        now = time.monotonic()
        ages = {}
        try:
            paths = [path for path in self._folder.iterdir() if path.name.isdigit()]
        except OSError:
            return {}
        for path in paths:
            try:
                probed_at = self._read_note(path)
            except OSError:
                continue
            if probed_at is None:
                path.unlink(missing_ok=True)
            else:
                ages[int(path.name)] = now - probed_at
        return ages

    def _create_note(self, text: bytes) -> None:
        # Locked and written before it gets its name: no worker finds it unlocked or empty.
        if self._note is not None:
            os.close(self._note)
            self._note = None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have deleted it
        draft = self._own.with_suffix(".draft")
        self._note = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(self._note, text, 0)
        draft.replace(self._own)

    def _read_note(self, path: Path) -> float | None:
        """Return the time in a worker's note, or None if the worker is dead."""
        note = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if path != self._own and _can_lock(note):
                return None
            return cast("float", _TIME.unpack(os.pread(note, _TIME.size, 0))[0])
        finally:
            os.close(note)


def _can_lock(note: int) -> bool:
    try:
        # Shared: two processes that try at the same time do not look alive to each other.
        fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
