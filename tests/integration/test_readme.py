"""The examples in README, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sse_push.settings import Settings
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import open_stream
from tests.harness.tokens import checker_of
from tests.harness.waiting import program, until

README = (Path(__file__).parents[2] / "README.md").read_text()
TELL = README.partition("## Tell it")[2].partition("## Listen")[0]


ACCESS = README.partition("## Who may listen")[2].partition("### Settings")[0]


def block(language: str, number: int = 0, text: str = TELL) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
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


def shell(script: str, **environ: str) -> str:
    """Run an example with the ``sse-push`` of these tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [program("bash"), "-euc", script],
        env={**clean_environ(), "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def test_the_example_for_keys_is_one() -> None:
    said = shell(f'{block("sh", 0, ACCESS)}printf %s "$SSE_PUSH_NOTIFY_KEYS"')

    keys = Settings.load(notify_keys=said).notify_keys

    assert isinstance(keys, tuple)
    assert [key.merchants for key in keys] == [(), ("42", "43", "shop-*")]


def test_the_examples_for_tokens_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"{block('sh', 1, ACCESS)}echo $SSE_PUSH_TOKEN_KEYS"
    from_command, secret = shell(script).split()
    monkeypatch.setenv("TOKEN_KEY", secret)
    example: dict[str, Any] = {}
    exec(block("python", 0, ACCESS), example)

    for token in (from_command, example["token_for"]("42")):
        assert checker_of(secret).check(token).merchants == ("42",)
