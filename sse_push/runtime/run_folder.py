"""A folder for as long as a service runs: in it its workers share their state.

Knows the file system. Does not know what is in the folder.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sse_push.errors import ConfigError


@contextmanager
def run_folder(name: str, parent: Path | None = None) -> Generator[Path]:
    """Make a folder below ``parent``, or where the system has temporary files, until the end.

    The folder is locked, so that a cleaner of old temporary files leaves it alone.

    Raises:
        ConfigError: no folder can be made there.

    https://www.freedesktop.org/software/systemd/man/latest/tmpfiles.d.html#Age
    """
    try:
        made = tempfile.TemporaryDirectory(
            prefix=f"{name}-", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as exc:
        where = "" if parent is None else f" below {parent}"
        raise ConfigError(
            f"expected to make a folder for temporary files{where}, got {exc.strerror!r}: set"
            " run_folder, or the variable TMPDIR, to a folder that can be written"
        ) from exc
    with made as folder:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(lock)
