"""A Redis and a Valkey that may be broken, and what stands before them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from sse_push.notification import EntryId
from sse_push.stream.contract import stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import program


@dataclass(frozen=True)
class Server:
    """A Redis or a Valkey, wherever it listens."""

    url: str

    def cli(self, *words: str, script: str | None = None) -> str:
        """Run one command, or the lines of a script over one connection."""
        scheme, _, path = self.url.partition("://")
        address = ["-s", path] if scheme == "unix" else ["-u", self.url]
        done = subprocess.run(
            [program("redis-cli", "valkey-cli"), *address, *words],
            input=script,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def add(self, merchant: str, *fields: str) -> EntryId:
        return EntryId.parse(self.cli("XADD", stream_key(merchant), "*", *(fields or ("at", "1"))))

    def length(self, merchant: str) -> int:
        return int(self.cli("XLEN", stream_key(merchant)))

    def calls(self, command: str) -> int:
        """Return how often a command was executed since CONFIG RESETSTAT."""
        lines = self.cli("INFO", "commandstats").splitlines()
        line = next((each for each in lines if each.startswith(f"cmdstat_{command}:")), "calls=0,")
        return int(line.partition("calls=")[2].partition(",")[0])

    def clients(self, name: str) -> list[str]:
        """Return the IDs of this process's connections of a name."""
        wanted = f"name=sse_push-{name}-{os.getpid()}"
        lines = self.cli("CLIENT", "LIST").splitlines()
        return [line.split()[0].removeprefix("id=") for line in lines if wanted in line.split()]


def restart(redis: Redis) -> None:
    """Come back on the same port, with what was saved or nothing."""
    redis.process = Redis.start(redis.folder, port=redis.port).process


@asynccontextmanager
async def proxied(url: str, change: Callable[[bytes], bytes]) -> AsyncGenerator[str]:
    """Serve as a proxy before a Redis that changes its replies."""
    target = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, do: Callable[[bytes], bytes]
    ) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(do(data))
        except ConnectionError:
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection(target.hostname, target.port)
        tasks.add(asyncio.create_task(pump(reader, redis_writer, bytes)))
        tasks.add(asyncio.create_task(pump(redis_reader, writer, change)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"redis://{host}:{port}/0"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def without_announcements(data: bytes) -> bytes:
    pattern = rb">2\r\n\$10\r\ninvalidate\r\n(_\r\n|\*1\r\n\$[0-9]+\r\n[^\r]*\r\n)"
    return re.sub(pattern, b"", data)
