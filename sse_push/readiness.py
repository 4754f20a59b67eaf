"""Whether every worker hears Redis, known to each of them.

Knows processes and the age of their probes. Does not know what a probe is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple


class Readiness(NamedTuple):
    """The state of all workers: how many are alive, and how old the oldest good probe is."""

    workers: int
    worst_age_s: float


class Board:
    """A folder with one file per worker: when its last probe came back.

    Times are those of the system-wide monotonic clock, so that one worker can judge another, and
    one that is frozen or dead grows old by itself.

    https://docs.python.org/3/library/time.html#time.monotonic
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / str(os.getpid())

    def write(self, age_s: float) -> None:
        """Note how long ago this process's last good probe was; infinite if never."""
        draft = self._own.with_suffix(".draft")
        draft.write_text(repr(time.monotonic() - age_s))
        draft.replace(self._own)

    def erase(self) -> None:
        """Take this process off the board."""
        self._own.unlink(missing_ok=True)

    def read(self) -> Readiness:
        """Judge all workers that are alive, whichever of them asks."""
        now = time.monotonic()
        ages = []
        for note in self._folder.iterdir():
            if not note.name.isdigit():
                continue
            if not _is_alive(int(note.name)):
                note.unlink(missing_ok=True)
                continue
            try:
                ages.append(now - float(note.read_text()))
            except FileNotFoundError:  # it left between the listing and the reading
                continue
        return Readiness(len(ages), max(ages, default=float("inf")))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
