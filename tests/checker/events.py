"""The events of a ``text/event-stream``, from its bytes as they arrive.

Knows the parsing rules of WHATWG. Does not know what the events mean.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
import re

from tests.checker.history import Event

EVENT_LIMIT = 1 << 20
"""At most this many characters of one event are kept."""

_END_OF_LINE = re.compile(r"\r\n|\n|\r")


class TooLong(ValueError):
    """An event has no end within the limit."""


class Events:
    """Takes the bytes of a stream, and gives the events in them.

    ``last_event_id`` and ``retry_ms`` are the EventSource's: give a new stream what the one before
    has left, since that is what Chromium does with a block that has no ``id``.
    """

    def __init__(self, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self.last_event_id = last_event_id
        self.retry_ms = retry_ms
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._is_after_cr = False
        self._begin()

    def _begin(self) -> None:
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._retry_ms: int | None = None
        self._length = 0

    @property
    def rest(self) -> str:
        """Return the beginning of what is no whole event yet; empty between two events."""
        begun = [name for name in (self._type, *self._data, self._id) if name]
        return " ".join([*begun, self._line])[:80].strip()

    def feed(self, data: bytes, at: float) -> list[Event]:
        """Take what has arrived; return the events that are whole.

        Raises:
            TooLong: an event goes on and on.
        """
        text = self._decoder.decode(data)
        if self._is_after_cr and text:
            text = text.removeprefix("\n")
            self._is_after_cr = False
        if not text:
            return []
        self._is_after_cr = text.endswith("\r")
        *lines, self._line = _END_OF_LINE.split(self._line + text)
        events = []
        for line in lines:
            if line:
                self._take(line)
            elif (event := self._dispatch(at)) is not None:
                events.append(event)
        if self._length + len(self._line) > EVENT_LIMIT:
            raise TooLong(f"expected an event of at most {EVENT_LIMIT} characters")
        return events

    def _take(self, line: str) -> None:
        """Take one line that is not empty; one that begins with a colon is a comment."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self._length += len(line)
        match name:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if re.fullmatch(r"[0-9]+", value):
                self._retry_ms = self.retry_ms = int(value)

    def _dispatch(self, at: float) -> Event | None:
        """End a block; without ``data`` it is no event, but its ID counts."""
        event = None
        if self._id is not None:
            self.last_event_id = self._id
        if self._data:
            kind, data = self._type or "message", "\n".join(self._data)
            event = Event(at, kind, data, self._id, self._retry_ms)
        self._begin()
        return event
