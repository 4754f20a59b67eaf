"""The package as it is installed: away from its checkout, with the page and the module inside."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.harness.service import clean_environ
from tests.harness.waiting import START_S, STOP_S, free_port, wait_for

ROOT = Path(__file__).parents[2]


def test_the_demo_runs_from_an_installed_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    url = f"http://127.0.0.1:{free_port()}"

    demo = subprocess.Popen(
        [sys.executable, "-m", "sse_push", "demo", "--port", url.rpartition(":")[2]],
        cwd=empty,
        env={**clean_environ(), "PYTHONPATH": str(installed)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(url) or demo.poll() is not None, "the demo", START_S)
        page = httpx.get(f"{url}/")
        module = httpx.get(f"{url}/client/index.js")
    finally:
        demo.send_signal(signal.SIGINT)
        status = demo.wait(STOP_S)

    assert "<html" in page.text
    assert "export function onRefresh" in module.text
    assert module.headers["content-type"].startswith("text/javascript")
    assert status == 0
    assert list(empty.iterdir()) == []


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
