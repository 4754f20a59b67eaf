"""The folder in which the workers of one instance keep their numbers.

Knows the variable by which prometheus-client finds the folder. Does not know the library, nor what
is counted: a supervisor, which counts nothing, starts without them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SHARED = "metrics"
"""The name of the folder, below that of the instance."""

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_by_workers(folder: Path) -> Generator[None]:
    """Let processes that are started in this context keep their numbers below one folder.

    prometheus-client reads the variable when it is imported: only the environment that a worker
    inherits is early enough.
    """
    path = folder / SHARED
    path.mkdir()
    os.environ[_VARIABLE] = str(path)
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
