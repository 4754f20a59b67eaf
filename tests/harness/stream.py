"""The two sides of a running service: an event stream that is read, and a backend that notifies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2

from sse_push.sse_client import Event, Parser
from tests.harness import plain_http
from tests.harness.chunks import Dechunker
from tests.harness.service import KEY
from tests.harness.waiting import SECOND, until


class Stream:
    """One event stream over a bare socket: its bytes, and the events in them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""
        self.events: list[Event] = []
        self.parser = Parser()
        self.is_complete = False
        self._task: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.type == kind]

    @property
    def refreshes(self) -> list[Event]:
        return self.of("refresh")

    async def next(self, kind: str, count: int = 1, seconds: float = 5 * SECOND) -> Event:
        """Wait until there are ``count`` events of this type, and return that one."""
        try:
            await until(lambda: len(self.of(kind)) >= count, f"{count} {kind}", seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}, got {self.body!r}") from exc
        return self.of(kind)[count - 1]

    async def wait_complete(self, seconds: float = 5 * SECOND) -> None:
        await until(lambda: self.is_complete, f"the last chunk after {self.body!r}", seconds)

    async def pump(self) -> None:
        """Read chunks until the last one, or until the connection is cut."""
        chunks = Dechunker()
        with suppress(ConnectionResetError):
            while not chunks.is_complete and (data := await self.reader.read(1 << 16)):
                body = chunks.feed(data)
                self.body += body
                self.events += self.parser.feed(body)
        self.is_complete = chunks.is_complete

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.writer.transport.abort()


@asynccontextmanager
async def open_stream(
    url: str,
    merchant_id: str = "42",
    last_event_id: str | None = None,
    *,
    query: str | None = None,
    headers: dict[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    source: str = "127.0.0.1",
) -> AsyncGenerator[Stream]:
    """Open an event stream as a browser at ``source`` does, and read it in the background."""
    target = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(
        target.host, target.port, ssl=trust, local_addr=(source, 0)
    )
    stream = Stream(reader, writer)
    query = f"merchant_id={merchant_id}" if query is None else query
    lines = [f"GET /events?{query} HTTP/1.1", "Host: localhost", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if last_event_id is not None:
        lines.append(f"Last-Event-ID: {last_event_id}")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        async with asyncio.timeout(5 * SECOND):
            stream.head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        if "chunked" in stream.headers.get("transfer-encoding", ""):
            stream._task = asyncio.create_task(stream.pump())
        yield stream
    finally:
        await stream.close()


class Publisher:
    """A backend that notifies, and returns the IDs of its notifications."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.client = plain_http.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10 * SECOND
        )

    async def post(self, **options: Any) -> httpx2.Response:
        return await self.client.post("/notify", **options)

    async def notify(self, merchant_id: str, **fields: object) -> str:
        answer = await self.post(json={"merchant_id": merchant_id, **fields})
        assert answer.status_code == 200, answer.text
        entry_id: str = answer.json()["id"]
        return entry_id

    async def close(self) -> None:
        await self.client.aclose()


@asynccontextmanager
async def publishing(url: str) -> AsyncGenerator[Publisher]:
    """Run a backend that notifies at this address."""
    publisher = Publisher(url)
    try:
        yield publisher
    finally:
        await publisher.close()


def has_ended(stream: Stream) -> bool:
    """Return whether the response has ended, complete or cut."""
    return stream._task is not None and stream._task.done()


async def read_to(reader: AsyncIterator[str], text: str) -> str:
    """Read until this text arrives, heartbeats before it included; return all that was read."""
    got = ""
    async with asyncio.timeout(5 * SECOND):
        while text not in got:
            got += await anext(reader)
    return got
