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
_SILENCE_S = 60.0
"""Four default heartbeats: a stream that is silent for longer is dead."""

_LINE_END = re.compile(r"\r\n|\n|\r")


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
        self._text = ""
        self._type = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> Generator[Event]:
        """Take some bytes, and yield the events that they complete."""
        self._text += self._decoder.decode(chunk)
        # A CR at the end may be half of a CRLF.
        end = len(self._text) - self._text.endswith("\r")
        *lines, rest = _LINE_END.split(self._text[:end])
        self._text = rest + self._text[end:]
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
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event = Event(self._type or "message", "\n".join(self._data), self._id)
        has_data = bool(self._data)
        self._type, self._data = "", []
        return event if has_data and event.data else None


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
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if parser.last_event_id:
            headers["Last-Event-ID"] = parser.last_event_id
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


async def _refuse_other(response: httpx.Response) -> None:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    if response.status_code != 200 or media_type != "text/event-stream":
        body = (await response.aread())[:200].decode("utf-8", "replace")
        raise GaveUp(
            f"expected 200 text/event-stream, came {response.status_code} {media_type}: {body}"
        )
