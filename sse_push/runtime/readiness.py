"""Whether every worker hears Redis, known to each of them.

Knows processes and the age of their probes. Does not know what a probe is.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple, cast

_TIME = struct.Struct("=d")


class Readiness(NamedTuple):
    """The state of all workers: how many are alive, and how old the oldest good probe is."""

    workers: int
    worst_age_s: float


class Board:
    """A folder with a note of each worker: when its last probe came back.

    Times are those of the system-wide monotonic clock, so that one worker can judge another, and
    one that is frozen or dead grows old by itself.

    Each worker keeps its note open and locked for as long as it lives. Whoever can lock it knows
    that the worker is dead, however it died; that there is a process with its number does not say
    so, since numbers are given again. Being open, it can be written without another file, when
    clients have taken them all.

    https://docs.python.org/3/library/time.html#time.monotonic
    https://man7.org/linux/man-pages/man2/flock.2.html
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / str(os.getpid())
        self._note: int | None = None

    def write(self, age_s: float) -> None:
        """Note how long ago this process's last good probe was; infinite if never."""
        text = _TIME.pack(time.monotonic() - age_s)
        if self._note is None or not self._own.exists():
            self._begin(text)
        else:
            os.pwrite(self._note, text, 0)

    def erase(self) -> None:
        """Take this process off the board."""
        if self._note is not None:
            self._own.unlink(missing_ok=True)
            os.close(self._note)
            self._note = None

    def read(self) -> Readiness:
        """Judge all workers that are alive, whichever of them asks."""
        ages = self.living()
        return Readiness(len(ages), max(ages.values(), default=float("inf")))

    def living(self) -> dict[int, float]:
        """Return the process IDs of the workers that are alive, each with its probe's age.

        One whose note can't be read is not among them: it may be leaving, or we may be out of file
        descriptors, and then we are not ready either.
        """
        now = time.monotonic()
        ages = {}
        try:
            paths = [path for path in self._folder.iterdir() if path.name.isdigit()]
        except OSError:
            return {}
        for path in paths:
            try:
                noted_at = self._look(path)
            except OSError:
                continue
            if noted_at is None:
                path.unlink(missing_ok=True)
            else:
                ages[int(path.name)] = now - noted_at
        return ages

    def _begin(self, text: bytes) -> None:
        # Locked and written before it has its name: nobody finds it free, or empty.
        if self._note is not None:
            os.close(self._note)
            self._note = None
        draft = self._own.with_suffix(".draft")
        self._note = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(self._note, text, 0)
        draft.replace(self._own)

    def _look(self, path: Path) -> float | None:
        """Return what a worker has noted, None if it is dead."""
        note = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if path != self._own and _can_lock(note):
                return None
            return cast("float", _TIME.unpack(os.pread(note, _TIME.size, 0))[0])
        finally:
            os.close(note)


def _can_lock(note: int) -> bool:
    try:
        # Shared: two that judge at the same time do not take each other for its owner.
        fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
