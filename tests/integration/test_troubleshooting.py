"""The commands of ``docs/troubleshooting.md``, each run as it stands, behind nginx as shipped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.documents import examples, text
from tests.harness.nginx import Nginx
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.waiting import SECOND, program, wait_for

PAGE = "sse_push/docs/troubleshooting.md"
BLOCKS = [each for each in examples("sh") if each.document == PAGE]
COMMANDS = dict.fromkeys(
    line.partition("  #")[0].rstrip()
    for source in (
        *(each.code.splitlines() for each in BLOCKS),
        re.findall(r"`((?:sse-push|curl) [^`]+)`", text(PAGE)),
    )
    for line in source
)
PUBLIC, ALONE = "https://shop.example", "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    folder = tmp_path_factory.mktemp("troubles") / "nginx"
    with Nginx.start(folder, f"127.0.0.1:{service.port}") as started:
        yield started


def run(command: str, redis: Redis, service: Service, nginx: Nginx) -> tuple[int, str, str]:
    """Run a command as an operator does; one that listens is interrupted once it has heard."""
    is_listening = command.startswith("sse-push tail")
    command = command.replace(PUBLIC, nginx.url).replace(ALONE, service.url)
    command = command.replace("--wait 70", f"--wait {SECOND:g}")
    environ = {
        **clean_environ(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "SSE_PUSH_URL": nginx.internal_url,
        "SSE_PUSH_NOTIFY_KEY": KEY,
    }
    if command == "sse-push check":
        environ |= {
            "SSE_PUSH_REDIS_URL": redis.url,
            "SSE_PUSH_SUBSCRIBE_AUTH": "none",
            "SSE_PUSH_NOTIFY_KEYS": KEY,
        }
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        words = [program("bash"), "-euc", f"exec {command}"]
        process = subprocess.Popen(words, env=environ, stdout=out, stderr=log)
        try:
            if is_listening:
                path = Path(f"/proc/self/fd/{out.fileno()}")
                wait_for(
                    lambda: " ready " in path.read_text() or process.poll() is not None, command
                )
                process.send_signal(signal.SIGINT)
            status = process.wait(60 * SECOND)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        log.seek(0)
        return status, out.read(), log.read()


SHOWS = {
    "sse-push check": "OK: serve would start and deliver",
    "sse-push doctor": "OK: nothing wrong",
    "sse-push notify": "-",
    "sse-push tail": " ready ",
    "curl": '"ready":true',
}


@pytest.fixture(scope="module")
def done(redis: Redis, service: Service, nginx: Nginx) -> dict[str, tuple[int, str, str]]:
    """All commands, at the same time: most of them wait."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda command: run(command, redis, service, nginx), COMMANDS)
    return dict(zip(COMMANDS, results, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_shows_what_the_page_says(
    done: dict[str, tuple[int, str, str]], command: str
) -> None:
    status, out, log = done[command]

    (shown,) = [text for name, text in SHOWS.items() if command.startswith(name)]
    assert status == 0, out + log
    assert shown in out


def test_the_page_has_commands_for_each_step() -> None:
    assert len(BLOCKS) == 5
    assert all(any(command.startswith(name) for command in COMMANDS) for name in SHOWS)
