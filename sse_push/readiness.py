"""Whether every worker hears Redis, known to each of them.

Knows processes and the age of their probes. Does not know what a probe is.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import NamedTuple


class Readiness(NamedTuple):
    """The state of all workers: how many are alive, and how old the oldest good probe is."""

    workers: int
    worst_age_s: float


class Board:
    """A folder with a note of each worker: when its last probe came back.

    Times are those of the system-wide monotonic clock, so that one worker can judge another, and
    one that is frozen or dead grows old by itself.

    Beside its note each worker has a file that it keeps locked for as long as it lives. Whoever
    can lock it knows that the worker is dead, however it died; that there is a process with its
    number does not say so, since numbers are given again.

    https://docs.python.org/3/library/time.html#time.monotonic
    https://man7.org/linux/man-pages/man2/flock.2.html
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / str(os.getpid())
        self._lock: int | None = None

    def write(self, age_s: float) -> None:
        """Note how long ago this process's last good probe was; infinite if never."""
        if self._lock is None or not _lock_of(self._own).exists():
            self._hold_lock()
        draft = self._own.with_suffix(".draft")
        draft.write_text(repr(time.monotonic() - age_s))
        draft.replace(self._own)

    def erase(self) -> None:
        """Take this process off the board."""
        self._own.unlink(missing_ok=True)
        if self._lock is not None:
            _lock_of(self._own).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def read(self) -> Readiness:
        """Judge all workers that are alive, whichever of them asks."""
        ages = self.living()
        return Readiness(len(ages), max(ages.values(), default=float("inf")))

    def living(self) -> dict[int, float]:
        """Return the process IDs of the workers that are alive, each with its probe's age."""
        now = time.monotonic()
        ages = {}
        for note in self._folder.iterdir():
            if not note.name.isdigit():
                continue
            if note != self._own and _is_dead(note):
                note.unlink(missing_ok=True)
                _lock_of(note).unlink(missing_ok=True)
                continue
            try:
                ages[int(note.name)] = now - float(note.read_text())
            except FileNotFoundError:  # it left between the listing and the reading
                continue
        return ages

    def _hold_lock(self) -> None:
        # Locked before it has its name: nobody can find it free.
        if self._lock is not None:
            os.close(self._lock)
        draft = self._own.with_suffix(".lock-draft")
        self._lock = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.replace(_lock_of(self._own))


def _lock_of(note: Path) -> Path:
    return note.with_suffix(".lock")


def _is_dead(note: Path) -> bool:
    try:
        lock = os.open(_lock_of(note), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared: two that judge at the same time do not take each other for its owner.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
