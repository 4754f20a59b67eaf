"""Real servers on free ports, for tests: started, waited for, and ended.

Every wait is for a thing, with a deadline. All deadlines are multiples of ``SECOND``, which
``SSE_PUSH_TEST_SECOND`` scales on a slow machine.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from sse_push.sse_client import Event, Parser

SECOND = float(os.environ.get("SSE_PUSH_TEST_SECOND", "1"))
START_S = 20 * SECOND
STOP_S = 20 * SECOND
KEY = "a-key-of-the-tests-0123456789"


def program(*names: str) -> str:
    """Return the path of a program; skip without it on a laptop, fail where CI is set."""
    for name in names:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path is not None:
            return path
    text = f"{' or '.join(names)} is not installed"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection is given either.

    A server that is restarted finds it free again only if it lies outside the system's own range.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    """Ask again and again, until it is there or the deadline has passed."""
    deadline = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < deadline, f"expected {what} within {seconds} s"
        time.sleep(0.01)


async def until(is_there: Callable[[], bool], what: str, seconds: float = 5 * SECOND) -> None:
    """As ``wait_for``, and let the loop run meanwhile."""
    deadline = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < deadline, f"expected {what} within {seconds} s"
        await asyncio.sleep(0.005)


def accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


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


@dataclass
class Service:
    """``sse-push serve`` as a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path
    key: str = KEY

    @classmethod
    def start(
        cls,
        folder: Path,
        redis_url: str | None,
        *arguments: str,
        uds: Path | None = None,
        module: Sequence[str] = ("sse_push", "serve"),
        port: int | None = None,
        settings: Mapping[str, object] = MappingProxyType({}),
        **more_settings: object,
    ) -> Service:
        port = port or free_port()
        command = [sys.executable, "-m", *module, "--subscribe-auth", "none"]
        command += ["--notify-keys", KEY, *arguments]
        command += ["--uds", str(uds)] if uds is not None else ["--port", str(port)]
        command += ["--redis-url", redis_url] if redis_url is not None else ["--embedded"]
        environ, given = clean_environ(), {**settings, **more_settings}
        environ |= {f"SSE_PUSH_{name.upper()}": str(value) for name, value in given.items()}
        log_path = folder / f"service-{port}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        service = cls(f"http://127.0.0.1:{port}", process, log_path)
        if uds is not None:
            wait_for(uds.exists, "the service's socket")
            return service
        wait_for(lambda: service.is_ready() or process.poll() is not None, "the service")
        assert process.poll() is None, log_path.read_text()
        return service

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """End it as an operator does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def assert_no_errors(self) -> None:
        assert_no_errors(self.log)


def assert_no_errors(log: str) -> None:
    """Find what an operator would be alarmed by, in any form of log, and from any process."""
    found = [line for line in log.splitlines() if _ALARM.search(line)]
    assert not found, "\n".join([*found, "-- in", log])


_ALARM = re.compile(r'\blevel=(error|critical)\b|"level": ?"(error|critical)"|Traceback')


def clean_environ() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("SSE_PUSH_")}


class Stream:
    """One event stream over a bare socket: what came, byte for byte, and as events."""

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
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body = (await self.reader.readexactly(size + 2))[:-2]
                self.body += body
                self.events += self.parser.feed(body)
            self.is_complete = True
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return

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
    target = httpx.URL(url)
    reader, writer = await asyncio.open_connection(
        target.host, target.port, ssl=trust, local_addr=(source, 0)
    )
    stream = Stream(reader, writer)
    query = f"merchant_id={merchant_id}" if query is None else query
    lines = [f"GET /events?{query} HTTP/1.1", "Host: test", "Accept: text/event-stream"]
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
    """A backend: it notifies, and keeps the IDs that it was given."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10 * SECOND
        )

    async def post(self, **options: Any) -> httpx.Response:
        return await self.client.post("/notify", **options)

    async def notify(self, merchant_id: str, **fields: object) -> str:
        answer = await self.post(json={"merchant_id": merchant_id, **fields})
        assert answer.status_code == 200, answer.text
        entry_id: str = answer.json()["id"]
        return entry_id

    async def close(self) -> None:
        await self.client.aclose()
