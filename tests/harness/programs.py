"""``sse-push`` as a person runs it: what it prints, its process group, what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.service import clean_environ
from tests.harness.waiting import STOP_S, program

COMMAND = (sys.executable, "-m", "sse_push")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``sse-push`` to its end, with no setting but these variables."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=STOP_S,
        check=False,
    )


async def run_all(*commands: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Run several at the same time."""
    return await asyncio.gather(*(asyncio.to_thread(run, *each) for each in commands))


@dataclass
class Running:
    """``sse-push`` while it runs, in a process group of its own, as a terminal gives it one."""

    process: subprocess.Popen[bytes]
    out_path: Path
    error_path: Path

    @classmethod
    def start(cls, folder: Path, *arguments: str, **environ: str) -> Running:
        out_path, error_path = folder / "out.txt", folder / "error.txt"
        with out_path.open("wb") as out, error_path.open("wb") as error:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                env={**clean_environ(), "PYTHONUNBUFFERED": "1", **environ},
                stdout=out,
                stderr=error,
                process_group=0,
            )
        return cls(process, out_path, error_path)

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def errors(self) -> str:
        return self.error_path.read_text()

    def press_ctrl_c(self) -> int:
        """Send SIGINT to the whole group, as a terminal does, and return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_S)

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


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
    """Return whether a process is there; one that only waits to be buried is not."""
    state = subprocess.run(
        [program("ps"), "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


@contextmanager
def paused(process: subprocess.Popen[bytes]) -> Generator[None]:
    """Freeze a process for as long as the context lasts: it is there, and does not answer."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
