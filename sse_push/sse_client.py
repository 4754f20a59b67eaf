"""A client of an event stream that behaves like a browser's EventSource, for the command line.

Knows the WHATWG algorithm, and HTTP by httpx2. Does not know what the events mean, nor anything of
the server.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import codecs
import random
import re
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import httpx2

from sse_push.errors import PushError

ReadyState = Literal["CONNECTING", "OPEN", "CLOSED"]

_DEFAULT_RETRY_S = 3.0
_LONGEST_RETRY_S = 86_400.0
_SILENCE_S = 60.0
"""Four default heartbeats: a connection that is silent for longer is dead."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_NO_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_EXPLANATION_BYTES = 200


class GaveUp(PushError):
    """The server's answer was no event stream: an EventSource does not reconnect after that."""


class Event(NamedTuple):
    """One dispatched event; ``id`` is the last event ID at that moment."""

    type: str
    data: str
    id: str


@dataclass(slots=True)
class _Response:
    """The state of the parser in one response; an incomplete event ends with the response."""

    id: str
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8-sig")("replace")
    )
    rest: str = ""
    is_after_cr: bool = False
    type: str = ""
    data: list[str] = field(default_factory=list)


class Parser:
    """Parses the bytes of event streams into events, wherever the chunks are cut.

    The last event ID and the reconnection time outlive a response.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_s: float | None = None
        self._response = _Response(last_event_id)

    def reset(self) -> None:
        """Begin a new response; an incomplete event of the last one is discarded."""
        self._response = _Response(self.last_event_id)

    def feed(self, chunk: bytes) -> Generator[Event]:
        """Parse a chunk, and yield the events that it completes."""
        response = self._response
        text = response.decoder.decode(chunk)
        if not text:
            return
        # A CR ends its line at once: an LF at the start of the next chunk belongs to that CR.
        if response.is_after_cr:
            text = text.removeprefix("\n")
        response.is_after_cr = text.endswith("\r")
        *lines, response.rest = _LINE_END.split(response.rest + text)
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        response = self._response
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            response.type = value
        elif name == "data":
            response.data.append(value)
        elif name == "id" and "\0" not in value:
            response.id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            digits = value.lstrip("0")[:20]  # enough for any time below the longest
            self.retry_s = min(int(digits or "0") / 1000, _LONGEST_RETRY_S)
        return None

    def _dispatch(self) -> Event | None:
        response = self._response
        self.last_event_id = response.id
        event = Event(response.type or "message", "\n".join(response.data), response.id)
        # A line `data:` alone makes an event with empty data: it adds an LF to the data buffer.
        is_event = bool(response.data)
        response.type, response.data = "", []
        return event if is_event else None


@dataclass(frozen=True, slots=True)
class StateChange:
    """The connection has another ``readyState`` now; ``why`` is a text for people."""

    state: ReadyState
    why: str = ""


async def follow(
    client: httpx2.AsyncClient, url: str, last_event_id: str = ""
) -> AsyncGenerator[Event | StateChange]:
    """Yield events and changes of state forever, reconnecting as a browser does.

    Raises:
        GaveUp: the answer was not 200 ``text/event-stream``.
    """
    parser = Parser(last_event_id)
    while True:
        parser.reset()
        yield StateChange("CONNECTING")
        headers = _headers(parser.last_event_id)
        why = "the stream has ended"
        try:
            timeout = httpx2.Timeout(10, read=_SILENCE_S)
            async with client.stream("GET", url, headers=headers, timeout=timeout) as response:
                await _require_event_stream(response)
                yield StateChange("OPEN")
                async for chunk in response.aiter_raw():
                    for event in parser.feed(chunk):
                        yield event
        except httpx2.TransportError as exc:
            why = _reason(exc)
        wait_s = _DEFAULT_RETRY_S if parser.retry_s is None else parser.retry_s
        yield StateChange("CONNECTING", f"{why}; again in {wait_s:.1f} s")
        await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))  # noqa: S311 (spreads load)


def _reason(exc: BaseException) -> str:
    """Return what the system says, which the library keeps below its own words, or those."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__


def _headers(last_event_id: str) -> dict[bytes, bytes]:
    """Return the headers of a request; an ID that no header can hold is left out.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
    """
    headers = {
        b"Accept": b"text/event-stream",
        # Uncompressed: the raw bytes are parsed as they arrive.
        b"Accept-Encoding": b"identity",
        b"Cache-Control": b"no-store",
    }
    value = last_event_id.encode("utf-8", "replace").strip(b" \t")
    if value and not _NO_HEADER.search(value):
        headers[b"Last-Event-ID"] = value
    return headers


async def _require_event_stream(response: httpx2.Response) -> None:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code == 200 and media_type == "text/event-stream":
        return
    body = b""
    async for chunk in response.aiter_bytes():  # the body may never end
        body += chunk
        if len(body) >= _EXPLANATION_BYTES:
            break
    text = body[:_EXPLANATION_BYTES].decode("utf-8", "replace")
    raise GaveUp(f"expected 200 text/event-stream, got {response.status_code} {media_type}: {text}")
