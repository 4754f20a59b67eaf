"""How slow this machine is now: the unit of all deadlines.

Knows one piece of work and how long it takes on an ordinary, idle machine. Does not know what
waits.

    python -m tests.harness.machine [PARTS]    print the unit, measured PARTS times at once
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

VARIABLE = "TEST_SECOND"
"""Overrides the measure, and hands it to the processes that tests start.

Without the prefix of settings: the service refuses to start with one that it does not know.
"""

_PROGRAM = "import asyncio, json, ssl; sum(range(1_000_000))"
_REFERENCE_S = 0.08
_TIMES = 5
_MOST = 10.0


def unit() -> float:
    """Return what stands for a second here: 1 on an ordinary idle machine, at most 10."""
    given = os.environ.get(VARIABLE)
    if given is None:
        given = os.environ[VARIABLE] = f"{measure():.2f}"
    return float(given)


def measure(parts: int = 1) -> float:
    """Start a Python a few times, ``parts`` at once; return how much slower the slowest was."""
    slowest_s = max(_start(parts) for _ in range(_TIMES))
    return min(max(1.0, slowest_s / _REFERENCE_S), _MOST)


def _start(parts: int) -> float:
    began_at = time.monotonic()
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    processes = [subprocess.Popen(command) for _ in range(parts)]
    for process in processes:
        process.wait()
    return time.monotonic() - began_at


if __name__ == "__main__":
    parts = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    sys.stdout.write(f"{measure(parts):.2f}\n")
