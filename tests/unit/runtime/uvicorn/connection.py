"""A connection to ``BoundedProtocol``, fed with bytes by hand, on a clock moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from sse_push.runtime.refusals import Refusals
from sse_push.runtime.uvicorn.protocol import _TICKS, BoundedProtocol, Requests
from sse_push.runtime.uvicorn.states import TRANSITIONS, State
from sse_push.runtime.uvicorn.waiting import _LOOKS, Waiting
from tests.harness.clock import ManualClock

LIMIT_BYTES = 1024
TIMEOUT_S = 10
LATE_S = 2 * TIMEOUT_S / _TICKS
"""A deadline is at most this late."""
SEND_TIMEOUT_S = LATE_S * _LOOKS
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

TOO_LARGE_DETAIL = "request line and headers: expected at most 1024 bytes, got more"
TOO_SLOW = "expected the request within 10 s, got a part"


def refusal(status_line: bytes, code: str, detail: str) -> bytes:
    body = json.dumps({"error": code, "detail": detail}).encode()
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (status_line, len(body), body)
    )


R400 = refusal(b"400 Bad Request", "malformed", "expected HTTP/1.1, got something else")
R408 = refusal(b"408 Request Timeout", "request_timeout", TOO_SLOW)
R431 = refusal(b"431 Request Header Fields Too Large", "headers_too_large", TOO_LARGE_DETAIL)


class Transport(asyncio.Transport):
    """Keeps what is written; with ``unsent_bytes``, only ``abort`` ends it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent_bytes = 0
        self.ended_by: list[str] = []
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.ended_by, "nothing is written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.ended_by.append("eof")

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def is_closing(self) -> bool:
        return {"close", "abort"} & {*self.ended_by} != set()

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        """Bytes are fed by hand."""

    def resume_reading(self) -> None:
        """Bytes are fed by hand."""

    def _end(self, how: str) -> None:
        if {how, "abort"} & {*self.ended_by} or (self.is_closing() and not self.unsent_bytes):
            return
        self.ended_by.append(how)
        if self.protocol is not None and (how == "abort" or not self.unsent_bytes):
            cast("asyncio.Protocol", self.protocol).connection_lost(None)


class Loop(ManualClock):
    """The event loop as the protocol sees it: tasks are real, time is not."""

    def create_task(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(call)

    @property
    def waiting(self) -> int:
        return sum(not timer.is_canceled for timer in self.timers)


async def answer_ok(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and answer."""
    while (message := await receive())["type"] == "http.request":
        if not message["more_body"]:
            break
    else:
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class CheckedProtocol(BoundedProtocol):
    """Records each state, and checks that the table allows it."""

    states: list[State]

    def __setattr__(self, name: str, value: object) -> None:
        if name == "state":
            assert isinstance(value, State)
            former = getattr(self, "state", None)
            assert former is None or value in TRANSITIONS[former], f"{former} -> {value}"
            self.states = [value] if former is None else [*self.states, value]
        super().__setattr__(name, value)


class Connection:
    """One connection to the protocol, alone or beside others of one process."""

    def __init__(
        self,
        app: Callable[..., Any] = answer_ok,
        *,
        limit: int = 100,
        beside: Connection | None = None,
    ) -> None:
        self.scopes: list[Scope] = []

        async def kept(scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            await app(scope, receive, send)

        self.loop: Loop = Loop() if beside is None else beside.loop
        self.loop_ = cast("asyncio.AbstractEventLoop", self.loop)
        self.refusals = Refusals()
        requests = Requests(
            header_limit_bytes=LIMIT_BYTES,
            timeout_s=TIMEOUT_S,
            refusals=self.refusals,
            waiting=Waiting(limit=limit, send_timeout_s=SEND_TIMEOUT_S, clock=self.loop),
            clock=self.loop,
        )
        self.requests: Requests = requests if beside is None else beside.requests
        self.state: ServerState = ServerState() if beside is None else beside.state
        self.protocol = CheckedProtocol(
            Config(kept, ws="none", access_log=False, log_config=None, timeout_keep_alive=75),
            self.state,
            {"requests": self.requests},
            self.loop_,
        )
        self.transport = Transport()
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def feed(self, *pieces: bytes) -> bytes:
        for piece in pieces:
            self.protocol.data_received(piece)
        for _ in range(200):
            await asyncio.sleep(0)
        return self.transport.written

    async def wait(self, seconds: float) -> bytes:
        self.loop.advance(seconds)
        return await self.feed()

    def counted(self) -> dict[str, int]:
        return {refusal.value: count for refusal, count in self.refusals.codes.items() if count}


def fields(size_bytes: int) -> bytes:
    """Return a header that makes the head of a small GET as large as this."""
    return b"X: " + b"x" * (size_bytes - len("/Host: test\r\nX: \r\n")) + b"\r\n"


def get_of(size_bytes: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: test\r\n" + fields(size_bytes) + b"\r\n"
