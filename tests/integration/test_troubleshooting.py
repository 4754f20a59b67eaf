"""The commands of ``docs/troubleshooting.md``, each run as it stands, behind nginx as shipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.documents import examples, text
from tests.harness.nginx import Nginx
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.waiting import SECOND, program

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


def run(
    command: str, redis: Redis, service: Service, nginx: Nginx
) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator does; one that listens is interrupted after a while."""
    command = command.replace(PUBLIC, nginx.url).replace(ALONE, service.url)
    command = command.replace("--wait 70", f"--wait {SECOND:g}")
    if command.startswith("sse-push tail"):
        command = f"timeout --preserve-status -s INT {2 * SECOND:g} {command}"
    environ = {
        **clean_environ(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SSE_PUSH_URL": nginx.internal_url,
        "SSE_PUSH_NOTIFY_KEY": KEY,
    }
    if command == "sse-push check":
        environ |= {
            "SSE_PUSH_REDIS_URL": redis.url,
            "SSE_PUSH_SUBSCRIBE_AUTH": "none",
            "SSE_PUSH_NOTIFY_KEYS": KEY,
        }
    return subprocess.run(
        [program("bash"), "-euc", command],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SECOND,
    )


SHOWS = {
    "sse-push check": "OK: serve would start and deliver",
    "sse-push doctor": "OK: nothing wrong",
    "sse-push notify": "-",
    "sse-push tail": " ready ",
    "curl": '"ready":true',
}


@pytest.fixture(scope="module")
def done(
    redis: Redis, service: Service, nginx: Nginx
) -> dict[str, subprocess.CompletedProcess[str]]:
    """All commands, at the same time: most of them wait."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda command: run(command, redis, service, nginx), COMMANDS)
    return dict(zip(COMMANDS, results, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_shows_what_the_page_says(
    done: dict[str, subprocess.CompletedProcess[str]], command: str
) -> None:
    ran = done[command]

    (shown,) = [text for name, text in SHOWS.items() if command.startswith(name)]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert shown in ran.stdout


def test_the_page_has_commands_for_each_step() -> None:
    assert len(BLOCKS) == 5
    assert all(any(command.startswith(name) for command in COMMANDS) for name in SHOWS)
