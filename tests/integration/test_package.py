"""The package as it is installed: away from its checkout, with the page and the module inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from tests.harness.demo import Demo
from tests.harness.waiting import SECOND

ROOT = Path(__file__).parents[2]


def test_the_demo_runs_from_an_installed_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True, timeout=120 * SECOND
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()

    environ = {"PYTHONPATH": str(installed)}
    with Demo.start(tmp_path, cwd=empty, environ=environ) as demo:
        page = httpx.get(f"{demo.url}/")
        module = httpx.get(f"{demo.url}/client/index.js")

    assert "<html" in page.text
    assert "export function onRefresh" in module.text
    assert module.headers["content-type"].startswith("text/javascript")
    assert {path.name for path in (installed / "sse_push/docs").iterdir()} == {
        path.name for path in (ROOT / "sse_push/docs").glob("*.md")
    }
    assert list(empty.iterdir()) == []
