"""One request on a connection of its own, and its answer as it arrives: bytes, events, times.

Knows sockets and HTTP/1.1. Does not know what an answer means. What a server sends never raises:
whatever it is, the answer says so. All that is read has a limit, and all waits have one.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

import httptools

from sse_push import __version__
from sse_push.doctor.target import Address
from sse_push.sse_client import Event, Parser

ACCEPT_ENCODING = "gzip, deflate, br, zstd"
"""What browsers accept today."""

_HEAD_LIMIT_BYTES = 65_536
_BODY_LIMIT_BYTES = 1_048_576
_READ_BYTES = 65_536
_SHOWN_BYTES = 200


class Stage(Enum):
    """How far an answer is.

    WAITING becomes OPEN with the head. Either becomes ENDED or FAILED.
    """

    WAITING = auto()
    OPEN = auto()
    ENDED = auto()
    """Nothing more arrives, whether the answer is whole or was cut."""
    FAILED = auto()
    """There is no connection, or what arrives is no HTTP; or it is too long."""


@dataclass(slots=True)
class Answer:
    """What has arrived of an answer so far."""

    stage: Stage = Stage.WAITING
    version: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    events: list[tuple[float, Event]] = field(default_factory=list)
    """With the time since the request was sent."""
    head_s: float = 0.0
    """When the head was complete."""
    ended_s: float = 0.0
    at: float = 0.0
    """The wall clock when the head was complete."""
    trouble: str = ""
    """What happened, if the stage is FAILED."""

    @property
    def is_event_stream(self) -> bool:
        """Whether an EventSource would take it."""
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self.status == 200 and media_type == "text/event-stream"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more arrives."""
        return self.stage not in (Stage.WAITING, Stage.OPEN)

    def of(self, kind: str) -> list[tuple[float, Event]]:
        """Return the events of a type, each with its time."""
        return [each for each in self.events if each[1].type == kind]

    def __str__(self) -> str:
        if self.stage is Stage.FAILED:
            return self.trouble
        if self.status == 0:
            return "no answer" if self.stage is Stage.WAITING else "an end without an answer"
        text = self.body[:_SHOWN_BYTES].decode("utf-8", "replace")
        words = f"{self.status} {self.headers.get('content-type', '')} {text}".split()
        return " ".join(words)


class _Reader:
    """Takes bytes, and fills an answer: the callbacks of httptools."""

    def __init__(self, answer: Answer, began_at: float, *, is_head: bool) -> None:
        self._answer = answer
        self._began_at = began_at
        self._is_head = is_head
        self._http = httptools.HttpResponseParser(self)
        self._sse = Parser()
        self._read_bytes = 0
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._read_bytes += len(data)
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("expected an answer, got an upgrade to another protocol")
        except httptools.HttpParserError:
            self._fail(f"expected HTTP, got {data[:60]!a}")
        self._take_pieces()
        limit = _HEAD_LIMIT_BYTES if self._answer.stage is Stage.WAITING else _BODY_LIMIT_BYTES
        if self._read_bytes > limit and not self._answer.has_ended:
            self._fail(f"expected at most {limit} bytes, got more")

    def end(self) -> None:
        """Take the end of the connection."""
        if not self._answer.has_ended:
            self._finish(Stage.ENDED)

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._answer.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        answer = self._answer
        if self._http.get_status_code() < 200:  # an interim answer
            answer.headers.clear()
            return
        answer.stage = Stage.OPEN
        answer.status = self._http.get_status_code()
        answer.version = self._http.get_http_version()
        answer.head_s, answer.at = time.monotonic() - self._began_at, time.time()
        if self._is_head:
            self._finish(Stage.ENDED)

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._answer.stage is Stage.OPEN:
            self._finish(Stage.ENDED)

    def _take_pieces(self) -> None:
        """Take what was read together: a server may send a body in chunks of one byte."""
        answer, data = self._answer, b"".join(self._pieces)
        self._pieces.clear()
        answer.body += data
        if answer.is_event_stream:
            now_s = time.monotonic() - self._began_at
            answer.events += [(now_s, event) for event in self._sse.feed(data)]

    def _fail(self, trouble: str) -> None:
        if not self._answer.has_ended:
            self._answer.trouble = trouble
            self._finish(Stage.FAILED)

    def _finish(self, stage: Stage) -> None:
        self._answer.stage = stage
        self._answer.ended_s = time.monotonic() - self._began_at


class Exchange:
    """A request, and its answer while it arrives."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.sent_at = time.monotonic()
        self._changed = asyncio.Event()

    async def run(
        self, address: Address, method: str, request: bytes, trust: ssl.SSLContext | None
    ) -> None:
        """Send the request, and read until the end of the answer."""
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=trust)
        except (OSError, ValueError) as exc:
            self.answer.trouble = f"no connection: {exc or type(exc).__name__}"
            self.answer.stage = Stage.FAILED
            self._changed.set()
            return
        try:
            self.sent_at = time.monotonic()
            answered = _Reader(self.answer, self.sent_at, is_head=method == "HEAD")
            writer.write(request)
            with suppress(OSError):  # a reset: what was read before it counts
                while not self.answer.has_ended and (data := await reader.read(_READ_BYTES)):
                    answered.feed(data)
                    self._changed.set()
            answered.end()
            self._changed.set()
        finally:
            writer.transport.abort()

    async def wait(self, is_there: Callable[[Answer], object], seconds: float) -> bool:
        """Wait until this is true of the answer, or the answer has ended, or the time is up.

        Return whether it is true.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_there(self.answer) and not self.answer.has_ended:
                    self._changed.clear()
                    await self._changed.wait()
        return bool(is_there(self.answer))


@asynccontextmanager
async def exchange(
    address: Address,
    path: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    body: bytes = b"",
    trust: ssl.SSLContext | None = None,
) -> AsyncGenerator[Exchange]:
    """Send a request as a browser does; at the end the connection is closed."""
    lines = {
        "Host": address.netloc,
        "User-Agent": f"sse-push-doctor/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": ACCEPT_ENCODING,
        "Connection": "keep-alive",
        **headers,
    }
    if body or method == "POST":
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "replace") + body
    made = Exchange()
    task = asyncio.create_task(made.run(address, method, request, trust), name=f"{method} {path}")
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
