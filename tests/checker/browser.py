"""An EventSource: it connects, writes down what it receives, and comes back.

Knows the connecting and reconnecting of WHATWG: after a response that ends or is cut, and after a
connection that is refused, it comes back with its last event ID when its reconnection time is over;
any answer but a 200 with an event stream ends it for good. Does not know what should be received.

https://html.spec.whatwg.org/multipage/server-sent-events.html#the-eventsource-interface
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tests.checker.events import Events, TooLong
from tests.checker.history import End, Visit, Witness
from tests.checker.response import Response

RETRY_S = 3.0
"""The reconnection time until a stream has told another one; Chromium's."""

_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Server:
    """Where a service is."""

    host: str
    port: int
    is_tls: bool = False
    path: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Header fields that go along with each request for events."""

    @classmethod
    def at(cls, url: str, token: str | None = None) -> Server:
        """Take the address from a URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"expected a URL such as http://127.0.0.1:8000, got {url}")
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        fields = {} if token is None else {"Authorization": f"Bearer {token}"}
        return cls(parts.hostname, port, is_tls, parts.path.rstrip("/"), fields)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        context = ssl.create_default_context() if self.is_tls else None
        return await asyncio.open_connection(self.host, self.port, ssl=context)

    def request(
        self, method: str, path: str, fields: Mapping[str, str], body: bytes = b""
    ) -> bytes:
        """Write a request as bytes."""
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Browser:
    """One EventSource for one merchant; ``witness`` has what it received."""

    def __init__(self, server: Server, merchant_id: str, name: str) -> None:
        self.witness = Witness(name, merchant_id)
        self.is_final = False
        """An EventSource that has failed never comes back."""
        self._server = server
        self._last_event_id = ""
        self._retry_ms: int | None = None
        self._visiting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Connect again and again, until canceled or failed for good."""
        while not self.is_final:
            self._visiting = asyncio.create_task(self._visit(), name=self.witness.name)
            try:
                await asyncio.wait([self._visiting])
            finally:
                self._visiting.cancel()
                await asyncio.wait([self._visiting])
            if not self._visiting.cancelled():
                self._visiting.result()
            retry_s = RETRY_S if self._retry_ms is None else self._retry_ms / 1000
            await asyncio.sleep(retry_s)

    def drop(self) -> None:
        """Lose the present connection, if there is one, as on a bad network."""
        if self._visiting is not None:
            self._visiting.cancel()

    async def _visit(self) -> None:
        """Make one connection, and take what comes on it."""
        visit = Visit(time.monotonic(), self._last_event_id)
        self.witness.visits.append(visit)
        events = Events(self._last_event_id, self._retry_ms)
        response = Response()
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await self._server.connect()
            writer.write(self._request())
            while not response.is_complete and (data := await reader.read(_READ_BYTES)):
                self._take(response, events, data, visit)
            response.close()
            visit.end = End.COMPLETE if response.is_complete else End.CUT
            visit.rest = events.rest if response.is_complete else ""
        except asyncio.CancelledError:
            visit.end = End.LEFT
            raise
        except OSError:
            visit.end = End.CUT if response.status else End.REFUSED
        except (TooLong, Broken) as exc:
            visit.end, visit.flaw = End.MALFORMED, str(exc)
        except NotAStream as exc:
            visit.end, visit.flaw = End.FINAL, str(exc)
            self.is_final = True
        finally:
            visit.ended_at = time.monotonic()
            if not response.status and visit.end is End.CUT:
                visit.end = End.REFUSED
            if writer is not None:
                writer.transport.abort()

    def _request(self) -> bytes:
        seen = {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}
        fields = {
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
            **self._server.fields,
            **seen,
        }
        return self._server.request(
            "GET", f"/events?merchant_id={quote(self.witness.merchant_id)}", fields
        )

    def _take(self, response: Response, events: Events, data: bytes, visit: Visit) -> None:
        """Take the bytes that one read has brought."""
        body = response.feed(data)
        if not response.status:
            if response.flaw:
                raise Broken(response.flaw)
            return
        kind = response.fields.get("content-type", "")
        if response.status != 200 or kind.partition(";")[0].strip() != "text/event-stream":
            raise NotAStream(f"{response.status} {kind}")
        visit.events += events.feed(body, time.monotonic())
        # A browser keeps these even if the connection breaks right now.
        self._last_event_id, self._retry_ms = events.last_event_id, events.retry_ms
        if response.flaw:
            raise Broken(response.flaw)


class Broken(Exception):
    """The bytes are no HTTP/1.1 response."""


class NotAStream(Exception):
    """An answer after which an EventSource gives up."""
