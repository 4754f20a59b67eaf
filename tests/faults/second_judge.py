"""The checker beside a world: a process of its own, whose only link is lines of JSON.

Knows how to start the checker, and how to hand it the backend's history. Does not know its rules.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.harness.waiting import START_S

EACH = 2
"""Browsers per merchant."""

MERCHANTS = 3
"""More merchants would say nothing more, and take time from the service."""

_LINES_AT_ONCE = 100

_LINE_LIMIT_BYTES = 1 << 20


class SecondJudge:
    """``python -m tests.checker --controlled``, with browsers at the address of a world."""

    def __init__(self, process: Process, merchants: Sequence[str]) -> None:
        self.merchants = merchants
        self._process = process

    @classmethod
    async def start(cls, address: tuple[str, int], merchants: Sequence[str]) -> SecondJudge:
        """Start it, and wait until its browsers are open."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.checker", f"http://{address[0]}:{address[1]}", "--controlled"),
            *("--merchants", ",".join(merchants), "--each", str(EACH)),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_LIMIT_BYTES,
        )
        judge = cls(process, merchants)
        try:
            async with asyncio.timeout(START_S):
                count = (await judge._hear())["open"]
        except BaseException:
            await judge.end()
            raise
        expected = EACH * len(merchants)
        assert count == expected, f"expected {expected} browsers of the checker, got {count}"
        return judge

    async def tell(self, history: Iterable[Mapping[str, object]]) -> None:
        """Hand over what the backend was answered.

        Of other merchants the checker is told no more than the sender's name.
        """
        assert self._process.stdin is not None, "piped"
        for number, each in enumerate(history):
            answer = dict(each)
            if answer["merchant_id"] not in self.merchants:
                if "by" not in answer:
                    continue
                answer.pop("data", None)
            self._process.stdin.write(json.dumps({"answer": answer}).encode() + b"\n")
            if number % _LINES_AT_ONCE == 0:
                await self._process.stdin.drain()

    async def judge(self, terms: Mapping[str, object]) -> dict[str, Any]:
        """Return the verdict on what was told; it may be asked again, by other terms."""
        assert self._process.stdin is not None, "piped"
        self._process.stdin.write(json.dumps({"judge": terms}).encode() + b"\n")
        await self._process.stdin.drain()
        verdict: dict[str, Any] = (await self._hear())["verdict"]
        return verdict

    async def leave(self) -> None:
        """Let it go, with its browsers."""
        assert self._process.stdin is not None, "piped"
        self._process.stdin.close()
        await self._process.wait()

    async def end(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "piped"
        line = await self._process.stdout.readline()
        assert line, f"expected a line of the checker, got its end: {self._process.returncode}"
        said: dict[str, Any] = json.loads(line)
        return said
