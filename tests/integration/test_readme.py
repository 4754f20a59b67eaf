"""The examples in README, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import KEY, Redis, Service, open_stream, program, until

README = (Path(__file__).parents[2] / "README.md").read_text()
TELL = README.partition("## Tell it")[2].partition("## Listen")[0]


def block(language: str, number: int = 0) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", TELL, re.DOTALL)
    return blocks[number]


def command(language: str, folder: Path) -> list[str]:
    if language == "sh":
        return [program("bash"), "-euc", block("sh")]
    suffix, runner = {
        "python": ("py", sys.executable),
        "php": ("php", "php"),
        "js": ("mjs", "node"),
    }[language]
    script = folder / f"example.{suffix}"
    script.write_text(block(language))
    return [program(runner), str(script)]


@pytest.mark.parametrize("language", ["sh", "python", "php", "js"])
async def test_the_example_for_a_backend_reaches_a_browser(
    service: Service, tmp_path: Path, language: str
) -> None:
    words = command(language, tmp_path)
    environ = {**os.environ, "SSE_PUSH": service.url, "KEY": KEY}
    async with open_stream(service.url, "42") as stream:
        await stream.next("refresh")

        done = subprocess.run(
            words, env=environ, capture_output=True, text=True, check=True, timeout=30
        )
        told = re.findall(r"[0-9]{13}-[0-9]+", done.stdout)

        await until(lambda: stream.refreshes[-1].id == told[0], "a refresh with the ID told")


async def test_the_example_for_redis_reaches_a_browser(redis: Redis, service: Service) -> None:
    environ = {**os.environ, "REDIS": redis.url}
    async with open_stream(service.url, "42") as stream:
        await stream.next("refresh")

        done = subprocess.run(
            [program("bash"), "-euc", block("sh", 1)],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        entry_id, expires = done.stdout.split()

        await until(lambda: stream.refreshes[-1].id == entry_id, "a refresh with its ID")
    assert expires == "1"
