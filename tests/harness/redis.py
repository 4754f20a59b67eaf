"""A Redis server of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.waiting import STOP_S, free_port, program, wait_for


@dataclass
class Redis:
    """A redis-server of our own."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    arguments: Sequence[str] = ()
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @classmethod
    def start(
        cls,
        folder: Path,
        *arguments: str,
        port: int | None = None,
        host: str = "127.0.0.1",
        through: Sequence[str] = (),
    ) -> Redis:
        """Start a server, ``through`` another program if need be, and wait until it answers."""
        port = port or free_port()
        command = [*through, program("redis-server", "valkey-server"), "--port", str(port)]
        command += ["--bind", host, "--protected-mode", "no"]
        command += ["--dir", str(folder), "--save", "", *arguments]
        with (folder / "redis.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        redis = cls(port, process, folder, arguments, host)
        wait_for(redis.answers, "redis-server to answer")
        return redis

    def answers(self) -> bool:
        try:
            return self.cli("PING") == "PONG"
        except subprocess.CalledProcessError:
            return False

    def cli(self, *words: str) -> str:
        """Run one command as a backend without any library would: with ``redis-cli``."""
        command = [program("redis-cli", "valkey-cli"), "-h", self.host, "-p", str(self.port)]
        command += words
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def connections(self, name: str) -> int:
        return sum(
            f"name=sse_push-{name}" in line for line in self.cli("CLIENT", "LIST").split("\n")
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(STOP_S)
