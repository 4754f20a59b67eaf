"""Processes as the system sees them, by their IDs: workers, open files, memory, processor time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.harness.waiting import program, wait_for


def workers_of(pid: int) -> list[int]:
    """Return the workers of a supervisor that run: its forks, and not what it has executed."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    command = command_of(pid)
    return [int(child) for child in children if command_of(int(child)) == command]


def state_of(pid: int) -> str:
    """Return the letter of a process's state, as in proc(5); X, of a dead one, if it has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def command_of(pid: int) -> str:
    """Return a process's command line; nothing if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_fds(pid: int) -> int:
    """Return how many files a process has open; none if it has gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0


def resident_kib(pid: int) -> int:
    """Return the memory that a process has resident."""
    return _status_kib(pid, "VmRSS")


def peak_kib(pid: int) -> int:
    """Return the most memory that a process has had resident so far."""
    return _status_kib(pid, "VmHWM")


def _status_kib(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", text)[1])  # type: ignore[index]  # each has it


@contextmanager
def frozen(pid: int) -> Generator[None]:
    """Freeze a process within the context: the process exists, and does not answer.

    It may be killed there; then nothing is left to wake.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        # It stops when the system next gives it a turn, and may answer before.
        wait_for(lambda: state_of(pid) in "TZX", "a process that has stopped")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, at any depth: names of programs by process ID."""
    listed = subprocess.run(
        [program("ps"), "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {int(row[0]): row[2] for row in rows if int(row[1]) in parents and len(row) > 2}
        found |= children
        parents = set(children)
    return found


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    state = subprocess.run(
        [program("ps"), "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")
