"""A TCP proxy that delays, stands still, cuts, or leads elsewhere, as a test sets it.

In the place of ``tc netem``, which many kernels lack.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

Address = tuple[str, int]

_PIECES_ON_THE_WAY = 1000
"""At most this many pieces of one direction of a connection are on a long way."""


class Proxy:
    """A proxy before one address; its attributes may change at any time."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.delay_s = 0.0
        """Each piece of data is delayed by a random time up to this; the order stays."""
        self.cut_share = 0.0
        """The share of pieces after which the connection is cut."""
        self.passes = asyncio.Event()
        self.passes.set()
        self.address: Address = ("", 0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address as one of Redis."""
        return f"redis://{self.address[0]}:{self.address[1]}/0"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, which is known from its first moment, and so is cut."""
        self._writers.add(writer)
        self._start(self._serve(reader, writer))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.passes.wait()
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(there_writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            self._start(self._pump(source, sink))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(random.uniform(0, self.delay_s))
                await self.passes.wait()
                if self.cut_share and random.random() < self.cut_share:
                    writer.write(data[: len(data) // 2])
                    break
                writer.write(data)
                await writer.drain()
            writer.close()
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    async def close(self) -> None:
        """End every connection, also one that is just being made."""
        self.cut()
        while running := set(self._tasks):
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        self.cut()


class LongWay(Proxy):
    """A proxy behind which all is far away: each piece is on its way for as long."""

    way_s = 0.0
    """How long, in either direction."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_ON_THE_WAY)

        async def take() -> None:
            data = b"first"
            while data:
                try:
                    data = await reader.read(65_536)
                except OSError:
                    data = b""
                await way.put((now() + self.way_s, data))

        taking = asyncio.create_task(take())
        try:
            while True:
                due_at, data = await way.get()
                await asyncio.sleep(max(0.0, due_at - now()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()
        except OSError:
            writer.transport.abort()
        finally:
            taking.cancel()
            self._writers.discard(writer)


@asynccontextmanager
async def proxy(target: Address) -> AsyncGenerator[Proxy]:
    """Run a proxy for as long as the context lasts."""
    made = Proxy(target)
    async with running(made):
        yield made


@asynccontextmanager
async def running(made: Proxy) -> AsyncGenerator[None]:
    """Let a proxy accept connections for as long as the context lasts."""
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0, backlog=1000)
    made.address = server.sockets[0].getsockname()[:2]
    try:
        yield
    finally:
        server.close()
        await made.close()
