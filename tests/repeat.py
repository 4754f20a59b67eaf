"""Runs pytest, and what failed beside other tests again, in turn.

A machine that many share may stand still for a second, and no test can tell that from a service
that does. ``python -m tests.repeat ARGUMENTS`` passes the arguments on to pytest, and exits
as pytest does; but with 0 if at most ``MOST`` tests failed, and each passed ``TIMES`` times in
turn. They are named then: a test that is named often has a race of its own, or has found one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MOST = 3
"""With more failures than that, the machine is not the cause."""

TIMES = 3
"""How often a test has to pass in turn."""


def main(arguments: list[str]) -> int:
    """Return pytest's exit status, or 0 if what failed passes in turn."""
    with tempfile.TemporaryDirectory() as folder:
        status = pytest(folder, arguments)
        if status != 1:
            return status
        failed = json.loads((Path(folder) / "v/cache/lastfailed").read_text())
        if len(failed) > MOST:
            return status
        names = ", ".join(failed)
        sys.stdout.write(f"\nrun {TIMES} times in turn: {names}\n")
        for _ in range(TIMES):
            if status := pytest(folder, list(failed)):
                return status
    sys.stdout.write(f"passed, but unsteady beside other tests: {names}\n")
    return 0


def pytest(folder: str, arguments: list[str]) -> int:
    sys.stdout.flush()
    # As this process was started: below ``coverage run``, coverage measures its children.
    command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={folder}"]
    return subprocess.run([*command, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
