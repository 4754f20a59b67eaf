"""A Redis and a Valkey that may be broken, and what stands before them."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sse_push.notification import EntryId
from tests.harness.keys import stream_key
from tests.harness.redis import CLI_S, Redis
from tests.harness.waiting import program, wait_for


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
            timeout=CLI_S,
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


def follow(replica: Redis, primary: Redis) -> None:
    """Make a server a replica, and wait until it has all that the other one has."""
    replica.cli("REPLICAOF", primary.host, str(primary.port))
    is_up = "master_link_status:up"
    wait_for(lambda: is_up in replica.cli("INFO", "replication"), "the replica to have everything")


@dataclass
class Proxy:
    """An address that leads to one server, and then to another one."""

    target: tuple[str, int]
    change: Callable[[bytes], bytes] = bytes
    """What becomes of the replies."""
    delay_s: float = 0.0
    """How late each piece arrives, in both directions."""
    reply_bytes_per_s: float = math.inf
    """How fast replies go on."""
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def lead_to(self, url: str) -> None:
        """Lead new connections to this server; those that there are stay where they are."""
        self.target = address_of(url)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is known from its first moment, and so is closed."""
        self._writers.append(writer)
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            redis_reader, redis_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        self._writers.append(redis_writer)
        for source, sink, is_reply in (
            (reader, redis_writer, False),
            (redis_reader, writer, True),
        ):
            pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
            self._tasks.add(asyncio.create_task(self._take(source, pieces, is_reply=is_reply)))
            self._tasks.add(asyncio.create_task(self._give(pieces, sink, is_reply=is_reply)))

    async def _take(
        self,
        reader: asyncio.StreamReader,
        pieces: asyncio.Queue[tuple[float, bytes | None]],
        *,
        is_reply: bool,
    ) -> None:
        data: bytes | None = b"first"
        while data is not None:
            try:
                data = await reader.read(65_536) or None
            except ConnectionError:
                data = None
            due_at = asyncio.get_running_loop().time() + self.delay_s
            pieces.put_nowait((due_at, self.change(data) if is_reply and data else data))

    async def _give(
        self,
        pieces: asyncio.Queue[tuple[float, bytes | None]],
        writer: asyncio.StreamWriter,
        *,
        is_reply: bool,
    ) -> None:
        try:
            while True:
                due_at, data = await pieces.get()
                await asyncio.sleep(due_at - asyncio.get_running_loop().time())
                if data is None:
                    return
                while is_reply and len(data) > self.reply_bytes_per_s / 100:
                    size = int(self.reply_bytes_per_s / 100)
                    writer.write(data[:size])
                    data = data[size:]
                    await asyncio.sleep(0.01)
                writer.write(data)
        finally:
            writer.close()

    async def close(self) -> None:
        """End every connection, also where the other side does not take what it was sent."""
        while running := {task for task in self._tasks if not task.done()}:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        for writer in self._writers:
            writer.transport.abort()
        closed = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*closed, return_exceptions=True)


def address_of(url: str) -> tuple[str, int]:
    target = urlsplit(url)
    assert target.hostname is not None, "a server that listens to TCP"
    assert target.port is not None, "a server that listens to TCP"
    return target.hostname, target.port


@asynccontextmanager
async def led(url: str) -> AsyncGenerator[Proxy]:
    """Serve as an address that leads to a Redis."""
    proxy = Proxy(address_of(url))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.url = f"redis://{host}:{port}/0"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


@asynccontextmanager
async def proxied(url: str, change: Callable[[bytes], bytes]) -> AsyncGenerator[str]:
    """Serve as a proxy before a Redis that changes its replies."""
    async with led(url) as proxy:
        proxy.change = change
        yield proxy.url


def without_announcements(data: bytes) -> bytes:
    pattern = rb">2\r\n\$10\r\ninvalidate\r\n(_\r\n|\*1\r\n\$[0-9]+\r\n[^\r]*\r\n)"
    return re.sub(pattern, b"", data)
