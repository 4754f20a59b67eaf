"""The folder in which the workers of one instance keep their numbers.

Knows the variable by which prometheus-client finds the folder. Does not know the library, nor what
is counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SHARED = "metrics"
"""The name of the folder, below that of the instance."""

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_shared = threading.Event()


@contextmanager
def shared_by_workers(folder: Path) -> Generator[None]:
    """Let processes that are forked in this context keep their numbers below one folder."""
    path = folder / SHARED
    path.mkdir()
    os.environ[_VARIABLE] = str(path)
    _shared.set()
    try:
        yield
    finally:
        _shared.clear()
        del os.environ[_VARIABLE]


def is_shared() -> bool:
    """Return whether this process keeps its numbers in such a folder."""
    return _shared.is_set()
