"""Browsers of a harness: raw clients that do what Chromium's EventSource does.

One connection at a time; ``retry`` and the last event ID are obeyed; a stream that ends or is cut
is opened again, and so is a connection that is refused; any answer but a 200 event stream is final.
Each keeps what a checker must know, and no more: nothing grows with the number of events.

https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sse_push.notification import EntryId, EventId
from sse_push.sse_client import Event, Parser
from tests.harness.chunks import Dechunker

Address = tuple[str, int]

CHROMIUM_RETRY_S = 3.0
"""The reconnection time of a browser before a stream has set one."""


@dataclass
class Record:
    """What all browsers of a run have seen together."""

    connects: list[float] = field(default_factory=list)
    """When each connection was begun."""
    ends: Counter[str] = field(default_factory=Counter)
    """How connections ended: ``complete``, ``cut``, ``refused``, ``soft`` (a soft answer)."""
    goodbyes: Counter[str] = field(default_factory=Counter)
    retries_ms: set[int] = field(default_factory=set)
    """The reconnection times in goodbyes."""
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Violations: an event of another merchant, IDs that fall, a final answer."""
    longest_silence_s: float = 0.0
    """The longest time between two events on the connection of a browser that always reads."""


class ParserOfIds(Parser):
    """A parser that also knows whether the block that was just dispatched had an ID of its own."""

    has_id = False

    def _line(self, line: str) -> Event | None:
        if line.startswith("id:"):
            self.has_id = True
        return super()._line(line)


class Browser:
    """One EventSource, for one merchant."""

    def __init__(self, merchant_id: str, address: Callable[[], Address], record: Record) -> None:
        self.merchant_id = merchant_id
        self.address = address
        self.record = record
        self.parser = ParserOfIds()
        self.is_open = False
        """``ready`` has arrived on the present connection."""
        self.is_closed = False
        self.is_away = False
        """The browser is offline until ``open`` is called again."""
        self.seen: EntryId | None = None
        """The newest ID that a refresh has brought, in the present history."""
        self.refreshed_at = -1.0
        self.heard_at = time.monotonic()
        self.has_slept = False
        """The browser has stopped reading once, so that its silences do not count."""
        self.refreshes = 0
        self.receive_buffer_bytes: int | None = None
        """The size of its socket's receive buffer; None: the system's default."""
        self.latencies_s: list[float] | None = None
        """If a list: the age of each refresh at its arrival, by its ID."""
        self.transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    # -- as a page uses it

    def open(self) -> None:
        """Connect, unless it is closed."""
        self._timer = None
        self.is_away = False
        if not self.is_closed:
            self.record.connects.append(time.monotonic())
            self._connecting = asyncio.create_task(self._connect())

    def close(self) -> None:
        """Leave, as a page that is closed."""
        self.is_closed = True
        self.drop()
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()

    def leave(self) -> None:
        """Be offline until it is opened again."""
        self.is_away = True
        self.drop()
        if self._timer is not None:
            self._timer.cancel()

    def drop(self) -> None:
        """Reset the connection."""
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        self.has_slept = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def is_current(self, newest: EntryId | None, since: float) -> bool:
        """Return whether the browser has seen this entry, and was refreshed since ``since``."""
        knows = newest is None or (self.seen is not None and self.seen >= newest)
        return knows and self.refreshed_at >= since

    # -- what its connection tells

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 (its only argument)
        if self.receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes)
        try:
            await loop.sock_connect(sock, self.address())
            await loop.create_connection(lambda: Connection(self), sock=sock)
        except OSError:
            sock.close()
            self.record.ends["refused"] += 1
            self.open_later()
        except asyncio.CancelledError:
            sock.close()
            raise

    def open_later(self) -> None:
        """Come back after the reconnection time."""
        self.is_open = False
        self.transport = None
        if self.is_away:
            return
        retry_s = CHROMIUM_RETRY_S if self.parser.retry_s is None else self.parser.retry_s
        if not self.is_closed:
            self._timer = asyncio.get_running_loop().call_later(retry_s, self.open)

    def fail(self, why: str) -> None:
        """Give up for good, as an EventSource does."""
        self.is_closed = True
        self.record.wrong.append(f"{self.merchant_id}: gave up after {why}")

    def hear(self, event: Event, connection: Connection, *, has_id: bool) -> None:
        """Handle one event."""
        now = time.monotonic()
        self._end_silence(now, is_first=event.type == "ready")
        said = json.loads(event.data)
        if event.type == "goodbye":
            self.record.goodbyes[said["reason"]] += 1
            self.record.retries_ms.add(round((self.parser.retry_s or 0) * 1000))
            return
        if event.type not in ("ready", "refresh"):
            return
        if said["merchant_id"] != self.merchant_id:
            self.record.wrong.append(f"{self.merchant_id}: heard {event.data}")
        if event.type == "ready":
            self.is_open = True
            if has_id and event.id != connection.last_event_id:
                self.record.wrong.append(f"{self.merchant_id}: ready brought {event.id} by itself")
            return
        self.refreshes += 1
        self.refreshed_at = now
        reason = said.get("reason")
        if not has_id:
            if reason is not None:
                # The stream is gone: nothing is newer than nothing.
                self.seen = connection.newest = None
            return
        entry_id = EventId.parse(event.id).entry_id
        if connection.newest is not None and entry_id <= connection.newest and reason != "resync":
            self.record.wrong.append(f"{self.merchant_id}: {entry_id} after {connection.newest}")
        connection.newest = self.seen = entry_id
        if self.latencies_s is not None and reason is None:
            self.latencies_s.append(time.time() - entry_id.ms / 1000)

    def _end_silence(self, now: float, *, is_first: bool) -> None:
        if not is_first and not self.has_slept:
            self.record.longest_silence_s = max(self.record.longest_silence_s, now - self.heard_at)
        self.heard_at = now


class Connection(asyncio.Protocol):
    """One response of a browser's."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.newest: EntryId | None = None
        self.head = b""
        self.is_complete = False
        self.last_event_id = ""
        """The last event ID in the request."""
        self._buffer = b""
        self._dechunker: Dechunker | None = None
        self._rest_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        browser = self.browser
        browser.transport = transport
        if browser.is_closed:
            browser.transport.abort()
            return
        browser.parser.reset()
        browser.parser.has_id = False
        seen = self.last_event_id = browser.parser.last_event_id
        line = f"Last-Event-ID: {seen}\r\n" if seen else ""
        browser.transport.write(
            f"GET /events?merchant_id={browser.merchant_id} HTTP/1.1\r\nHost: shop\r\n"
            f"Accept: text/event-stream\r\nCache-Control: no-cache\r\n{line}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Parse the head, then each complete event."""
        if not self.head:
            self._buffer += data
            self.head, end, data = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self.head = b""
                return
            self._begin()
        if self.browser.is_closed:
            return
        body = data
        if self._dechunker is not None:
            body = self._dechunker.feed(data)
            self.is_complete = self._dechunker.is_complete
        else:
            self._rest_bytes -= len(data)
            self.is_complete = self._rest_bytes <= 0
        parser = self.browser.parser
        for event in parser.feed(body):
            self.browser.hear(event, self, has_id=parser.has_id)
            parser.has_id = False
        if self.is_complete:
            self.browser.transport.close()

    def _begin(self) -> None:
        browser = self.browser
        lines = self.head.lower().split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        browser.record.statuses[status] += 1
        headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        kind = headers.get(b"content-type", b"")
        if status != 200 or not kind.startswith(b"text/event-stream"):
            browser.fail(f"{status} {kind.decode()}")
            browser.transport.abort()
            return
        if b"x-sse-push-soft-answer" in headers:
            browser.record.ends["soft"] += 1
        if headers.get(b"transfer-encoding") == b"chunked":
            self._dechunker = Dechunker()
        else:
            self._rest_bytes = int(headers[b"content-length"])

    def connection_lost(self, _exc: Exception | None) -> None:
        """Record how the connection ended, and reconnect unless the browser is closed."""
        browser = self.browser
        if browser.is_closed:
            return
        if not browser.is_away:
            browser.record.ends["complete" if self.is_complete else "cut"] += 1
        browser.open_later()
