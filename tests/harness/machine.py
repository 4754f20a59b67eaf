"""How slow this machine is now: the unit of all deadlines.

Knows one piece of work and how long it takes on an ordinary, idle machine. Does not know what
waits. ``python -m tests.harness.machine 3`` prints the unit, with three of that work at once.
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
_MOST = 5.0
"""Deadlines have room of their own, and times that a test must spend grow with the unit as well."""


def unit() -> float:
    """Return what stands for a second here: 1 on an ordinary idle machine, at most 5."""
    given = os.environ.get(VARIABLE)
    if given is None:
        given = os.environ[VARIABLE] = f"{measure():.2f}"
    return float(given)


def measure(count: int = os.cpu_count() or 1) -> float:
    """Start ``count`` Pythons at once, a few times; return how much slower the slowest was."""
    slowest_s = max(_start(count) for _ in range(_TIMES))
    return min(max(1.0, slowest_s / _REFERENCE_S), _MOST)


def _start(count: int) -> float:
    began_at = time.monotonic()
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    processes = [subprocess.Popen(command) for _ in range(count)]
    for process in processes:
        process.wait()
    return time.monotonic() - began_at


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]]
    sys.stdout.write(f"{measure(*counts):.2f}\n")
