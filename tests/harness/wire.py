"""Bare connections, and event streams read to the letter: for tests of hostile input."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from sse_push.sse_client import Event, Parser
from tests.harness.chunks import Dechunker
from tests.harness.waiting import SECOND, Deadline

ANSWER_S = 2 * SECOND
"""How long the service may take to answer any request."""

_BLOCK = re.compile(
    r"(?:retry: (?P<retry>[0-9]+)\n)?(?:id: (?P<id>[0-9]+-[0-9]+\.[0-9a-f]{8})\n)?"
    r"event: (?P<type>[a-z]+)\ndata: (?P<data>\{.*\})",
    re.ASCII,
)
_KEYS = {
    "ready": ({"merchant_id", "heartbeat_s", "connection_id"}, set[str]()),
    "refresh": ({"merchant_id"}, {"topic", "data", "by", "reason"}),
    "heartbeat": (set[str](), set[str]()),
    "expiring": ({"expires_in_s"}, set[str]()),
    "goodbye": ({"reason"}, set[str]()),
}
_WITH_RETRY = {"ready", "goodbye"}
_WITH_ID = {"ready", "refresh"}


class Answer(NamedTuple):
    """One answer; the ``body`` of an event stream is read later."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error; the whole text, if uvicorn's parser answered by itself."""
        if self.headers.get("content-type") == "application/json":
            error: str = json.loads(self.body)["error"]
            return error
        return self.body.decode()


class Wire:
    """A connection that sends exactly the bytes of a test."""

    def __init__(self, port: int, request: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.body = b""
        self._chunks = Dechunker()
        self._buffer = b""
        if request:
            self.send(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def answer(self, *, to_head: bool = False) -> Answer | None:
        """Return the next answer; None if the connection is closed instead."""
        if not self._has(b"\r\n\r\n"):
            return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (each.partition(":") for each in lines)
        }
        status = int(status_line.split(" ")[1])
        if to_head or status in {100, 204} or headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"")
        if "content-length" not in headers:
            while self._more():
                pass
        size = int(headers.get("content-length", len(self._buffer)))
        while len(self._buffer) < size:
            assert self._more(), "a body is complete"
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(status, headers, body)

    def events(self, merchant_id: str, kind: str = "refresh", count: int = 1) -> list[Event]:
        """Read an event stream until ``count`` events of this kind have arrived; check all."""
        return self._read(merchant_id, kind, lambda found: len(found) >= count)

    def refresh(self, merchant_id: str, entry_id: str) -> Event:
        """Read an event stream until the refresh of this entry has arrived; return the event."""
        found = self._read(
            merchant_id, "refresh", lambda found: bool(found) and found[-1].id == entry_id
        )
        return found[-1]

    def _read(
        self, merchant_id: str, kind: str, is_enough: Callable[[list[Event]], bool]
    ) -> list[Event]:
        deadline = Deadline(ANSWER_S)
        while True:
            events = well_formed(self.body, merchant_id)
            found = [event for event in events if event.type == kind]
            if is_enough(found):
                return found
            assert not deadline.is_over(), f"expected more of {kind}, got {self.body!r}"
            assert not self._chunks.is_complete, "a stream goes on"
            assert self._buffer or self._more(), "a stream goes on"
            self.body += self._chunks.feed(self._buffer)
            self._buffer = b""

    def is_closed(self) -> bool:
        """Return whether the other end closes the connection without another byte."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _has(self, mark: bytes) -> bool:
        while mark not in self._buffer:
            if not self._more():
                return False
        return True

    def _more(self) -> bool:
        try:
            got = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._buffer += got
        return got != b""


def well_formed(body: bytes, merchant_id: str) -> list[Event]:
    """Return the events of a stream; each line must be one that the service writes.

    Exactly: the blocks of "The events on the wire" in client/README.md, their data compact JSON of
    the keys that such an event has, and no character at which any reader of lines would end one.
    """
    text = body.decode("utf-8")
    assert text.splitlines() == text.split("\n")[:-1], "only LF ends a line, and the last has one"
    blocks = text.split("\n\n")
    assert blocks.pop() == "", "whole events"
    for block in blocks:
        match = _BLOCK.fullmatch(block)
        assert match, f"expected an event of ours, got {block!r}"
        value = json.loads(match["data"])
        needed, allowed = _KEYS[match["type"]]
        assert needed <= set(value) <= needed | allowed, block
        assert (match["retry"] is not None) is (match["type"] in _WITH_RETRY), block
        assert match["id"] is None or match["type"] in _WITH_ID, block
        assert value.get("merchant_id", merchant_id) == merchant_id, block
    parsed = list(Parser().feed(body))
    assert len(parsed) == len(blocks), "each block is an event, and nothing else is"
    return parsed
