"""``sse-push`` as a process of its own: the one way in which tests start it.

Knows the command and its environment, and where the output goes. Does not know what is served.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from tests.harness.waiting import STOP_S

NOTHING: Mapping[str, object] = MappingProxyType({})


def clean_environ() -> dict[str, str]:
    """Return this process's environment without any setting of the service."""
    return {name: text for name, text in os.environ.items() if not name.startswith("SSE_PUSH_")}


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as the variables of an environment."""
    return {f"SSE_PUSH_{name.upper()}": str(value) for name, value in settings.items()}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``sse-push`` to its end, with no setting but these variables."""
    return subprocess.run(
        [sys.executable, "-m", "sse_push", *arguments],
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
    """``sse-push`` while it runs: its process, what it prints, and its log."""

    process: subprocess.Popen[bytes]
    out_path: Path
    log_path: Path

    @classmethod
    def start(cls, folder: Path, *arguments: str, **environ: str) -> Running:
        """Start a command in a process group of its own, as a terminal gives it one."""
        return cls(*spawn(folder, "sse-push", arguments, environ=environ, has_group=True))

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def press_ctrl_c(self) -> int:
        """Send SIGINT to the whole group, as a terminal does, and return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_S)

    def stop(self) -> int:
        """End the process as an operator does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def spawn(
    folder: Path,
    name: str,
    arguments: Sequence[str],
    *,
    module: str = "sse_push",
    through: Sequence[str] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
    cwd: Path | None = None,
    has_group: bool = False,
) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """Start ``python -m module``, its output in files of the folder; return process and paths.

    ``through`` is a program that starts another one, such as ``taskset``. Without a group of its
    own the process ends with whoever ends ours.
    """
    out_path, log_path = folder / f"{name}.out", folder / f"{name}.log"
    with out_path.open("ab") as out, log_path.open("ab") as log:
        process = subprocess.Popen(
            [*through, sys.executable, "-m", module, *arguments],
            env={**clean_environ(), "PYTHONUNBUFFERED": "1", **environ},
            cwd=cwd,
            stdout=out,
            stderr=log,
            process_group=0 if has_group else None,
        )
    return process, out_path, log_path
