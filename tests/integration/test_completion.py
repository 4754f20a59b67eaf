"""What a shell gets at TAB, and that this needs no library that only commands need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sse_push.cli import COMMANDS
from tests.harness.documents import Example
from tests.harness.programs import clean_environ
from tests.harness.waiting import SECOND, program

COMPLETION = Example("sse_push/docs/reference.md", "sh")

HEAVY = "asyncio httpx2 jwt prometheus_client pydantic redis starlette.routing uvicorn"
TAB = "import sys, sse_push.__main__ as m\ntry: m.run()\nexcept SystemExit: pass"
ALL = f"import sys; from sse_push.cli import {', '.join(COMMANDS)}"


def imported(code: str, **environ: str) -> set[str]:
    """Return which of the heavy libraries a program imports."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(*sys.modules, file=sys.stderr)"],
        env={**clean_environ(), **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    return set(HEAVY.split()) & set(done.stderr.decode().split())


@pytest.mark.parametrize("typed", ["sse-push ", "sse-push serve --", "sse-push notify --"])
def test_completion_imports_no_library_of_a_command(typed: str) -> None:
    words = typed.split(" ")
    environ = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}

    assert imported(TAB, _SSE_PUSH_COMPLETE="bash_complete", **environ) == set()


def test_every_command_is_imported_without_what_it_needs_to_run() -> None:
    assert imported(ALL) == set()


def test_a_supervisor_is_imported_without_the_libraries_of_a_worker() -> None:
    assert imported("import sys, sse_push.server") == {"asyncio", "pydantic", "uvicorn"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", set(COMMANDS)),
        ("re", {"revoke"}),
        ("sevre --", {"--version", "--help"}),
        ("notify --k", {"--key", "--key-file"}),
        ("check --subscribe", {"--subscribe-auth"}),
    ],
)
def test_bash_completes_commands_and_flags(typed: str, offered: set[str], tmp_path: Path) -> None:
    words = ["sse-push", *typed.split(" ")]
    script = (
        f"{COMPLETION.code}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        f"_sse_push_completion sse-push '{words[-1]}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        [program("bash"), "-uc", script],
        env={**clean_environ(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20 * SECOND,
        check=True,
    )

    assert set(done.stdout.split()) == offered
