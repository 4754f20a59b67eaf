"""The installed package, away from its checkout: it has the page, the module and the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import plain_http
from tests.harness.demo import Demo
from tests.harness.programs import run
from tests.harness.waiting import SECOND

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True, timeout=120 * SECOND
    )
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def test_the_demo_runs_from_an_installed_wheel_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    environ = {"PYTHONPATH": str(installed)}
    with Demo.start(tmp_path, cwd=empty, environ=environ) as demo:
        page = plain_http.get(f"{demo.url}/")
        module = plain_http.get(f"{demo.url}/client/index.js")

    assert "<html" in page.text
    assert "export function onRefresh" in module.text
    assert module.headers["content-type"].startswith("text/javascript")
    assert list(empty.iterdir()) == []


def test_the_command_docs_finds_the_documentation_of_the_installed_package(installed: Path) -> None:
    done = run("docs", PYTHONPATH=str(installed), PYTHONSAFEPATH="1")

    folder = installed / "sse_push" / "docs"
    files = {path.name for path in (ROOT / "sse_push" / "docs").glob("*.md")}
    assert done.stdout.splitlines()[0] == str(folder)
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == files
    assert {path.name for path in folder.iterdir()} == files
