"""A client of an event stream, as a browser's EventSource is one: for terminals and trials.

Knows the WHATWG algorithm and HTTP by httpx. Does not know what the events mean, nor the service
in this process.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import codecs
import random
import re
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import httpx

from sse_push.errors import PushError

ReadyState = Literal["CONNECTING", "OPEN", "CLOSED"]

_DEFAULT_RETRY_S = 3.0
_LONGEST_RETRY_S = 86_400.0
_SILENCE_S = 60.0
"""Four default heartbeats: a stream that is silent for longer is dead."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_NO_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_EXPLANATION_BYTES = 200


class GaveUp(PushError):
    """The server's answer was final: an EventSource does not come back after it."""


class Event(NamedTuple):
    """One event as it was dispatched; ``id`` is the last event ID after it."""

    type: str
    data: str
    id: str


class Parser:
    """Turn the bytes of an event stream into events, however they are cut.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_s: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._is_after_cr = False
        self._type = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> Generator[Event]:
        """Take some bytes, and yield the events that they complete."""
        text = self._decoder.decode(chunk)
        if not text:
            return
        # A CR ends its line at once; the LF that may follow in the next chunk is its other half.
        if self._is_after_cr:
            text = text.removeprefix("\n")
        self._is_after_cr = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def reset(self) -> None:
        """Begin a new response: an event that was not completed is discarded."""
        last_event_id, self_retry_s = self.last_event_id, self.retry_s
        self.__init__()  # type: ignore[misc]  # the state of a new response, and what outlives one
        self.last_event_id = self._id = last_event_id
        self.retry_s = self_retry_s

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            digits = value.lstrip("0")[:20]  # more are a time that nobody lives to see
            self.retry_s = min(int(digits or "0") / 1000, _LONGEST_RETRY_S)
        return None

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event = Event(self._type or "message", "\n".join(self._data), self._id)
        # `data:` alone is an event of an empty text: its line has put an LF into the data buffer.
        is_event = bool(self._data)
        self._type, self._data = "", []
        return event if is_event else None


@dataclass(frozen=True, slots=True)
class StateChange:
    """The connection is now in another ``readyState``; ``why`` is for a person to read."""

    state: ReadyState
    why: str = ""


async def follow(
    client: httpx.AsyncClient, url: str, last_event_id: str = ""
) -> AsyncGenerator[Event | StateChange]:
    """Yield events and changes of state for ever, reconnecting as a browser does.

    Raises:
        GaveUp: the answer was not 200 ``text/event-stream``.
    """
    parser = Parser()
    parser.last_event_id = last_event_id
    while True:
        parser.reset()
        yield StateChange("CONNECTING")
        headers = _headers(parser.last_event_id)
        why = "the stream has ended"
        try:
            timeout = httpx.Timeout(10, read=_SILENCE_S)
            async with client.stream("GET", url, headers=headers, timeout=timeout) as response:
                await _refuse_other(response)
                yield StateChange("OPEN")
                async for chunk in response.aiter_raw():
                    for event in parser.feed(chunk):
                        yield event
        except httpx.TransportError as exc:
            why = str(exc) or type(exc).__name__
        wait_s = _DEFAULT_RETRY_S if parser.retry_s is None else parser.retry_s
        yield StateChange("CONNECTING", f"{why}; again in {wait_s:.1f} s")
        await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))  # noqa: S311 (spreads load)


def _headers(last_event_id: str) -> dict[bytes, bytes]:
    """Return the headers of a request; an ID that no header can hold is as good as none.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
    """
    headers = {
        b"Accept": b"text/event-stream",
        # The bytes are read as they come, so that nothing waits for a decompressor.
        b"Accept-Encoding": b"identity",
        b"Cache-Control": b"no-store",
    }
    value = last_event_id.encode("utf-8", "replace").strip(b" \t")
    if value and not _NO_HEADER.search(value):
        headers[b"Last-Event-ID"] = value
    return headers


async def _refuse_other(response: httpx.Response) -> None:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code == 200 and media_type == "text/event-stream":
        return
    body = b""
    async for chunk in response.aiter_bytes():  # which may have no end
        body += chunk
        if len(body) >= _EXPLANATION_BYTES:
            break
    text = body[:_EXPLANATION_BYTES].decode("utf-8", "replace")
    raise GaveUp(f"expected 200 text/event-stream, got {response.status_code} {media_type}: {text}")
