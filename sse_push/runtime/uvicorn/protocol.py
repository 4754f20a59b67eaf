"""Requests that are too large, or come too slowly: refused before they cost anything.

The one module that knows the inside of uvicorn's protocol for httptools, which limits neither. Does
not know what is asked, nor what is answered.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from sse_push.runtime.timer_wheel import Clock, TimerWheel

REFUSALS = {400: "malformed", 408: "request_timeout", 431: "headers_too_large"}
"""What is answered here, by status."""

REFUSED_KEY = "sse_push.refused"
"""Stands in the ASGI scope of a request whose application is told that its client has left."""

_LINGER_S = 1.0
"""So long is read on after a refusal: a socket closed before would lose the client its answer."""

_FIRST_REQUEST_S = 0.5
"""So long a process that stops waits for the request of a connection that it has just accepted."""

_PIPELINE_LIMIT = 64
"""Requests that may wait behind one that is being answered: each takes some KiB."""


_TICKS = 40
"""Of the time of a request: it is up to two of them longer."""


class Requests:
    """What all connections of a process share: their limits, and what was refused by error."""

    def __init__(
        self, *, header_limit_bytes: int, timeout_s: float, errors: dict[str, int], clock: Clock
    ) -> None:
        self.header_limit_bytes = header_limit_bytes
        self.timeout_s = timeout_s
        self.errors = errors
        self._clock = clock
        # One timer for all: one each would cost more than all else that is done here.
        self._wheel: TimerWheel[BoundedProtocol] = TimerWheel(
            timeout_s / _TICKS, lambda protocol, _: protocol.on_deadline(), clock
        )

    def begin_deadline(self, protocol: BoundedProtocol) -> None:
        """Call ``on_deadline`` when a request that begins now is too late."""
        self._wheel.plan(protocol, self._clock.time() + self.timeout_s + self._wheel.tick_s)

    def end_deadline(self, protocol: BoundedProtocol) -> None:
        """Do not call."""
        self._wheel.forget(protocol)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit for the head of a request and a time for the whole of it.

    The head is the request line with all headers, trailers beside it; more than
    ``header_limit_bytes`` of it is 431. What has not come in full within ``request_timeout_s`` of
    its first byte, or of the connection's beginning, is 408, or the end if there is nothing that
    could be answered. A kept-alive connection that rests, and a stream whose request has come, are
    not concerned. Trailers are dropped: uvicorn would add them to the headers, where a client could
    slip in what a proxy vouches for.

    https://www.rfc-editor.org/rfc/rfc9112#section-7.1.2
    """

    # Beside uvicorn's attributes, which are as many as a dictionary can share the names of with
    # others of its kind: with more, each connection takes 1 KiB.
    __slots__ = (
        "_has_deadline",
        "_is_last",
        "_is_refused",
        "_is_too_large",
        "_is_whole",
        "_linger",
        "_requests",
        "_unused_bytes",
        "tick",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._requests = cast("Requests", app_state["requests"])
        self._has_deadline = False
        self._linger: asyncio.TimerHandle | None = None
        self.tick = 0
        """Its place on the wheel of deadlines."""
        self._unused_bytes = 0
        """Received, and neither a body's nor a whole head's yet."""
        self._is_whole = False
        """What came last ended a request."""
        self._is_too_large = False
        self._is_refused = False
        self._is_last = False
        """The process stops: the request that comes next is the connection's last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Give the first request its time."""
        super().connection_made(transport)
        self._begin_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._end_deadline()
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Stop, but answer what is on its way on a connection that has brought no request yet.

        uvicorn would close it, and a client whose connection was accepted in that moment, by a
        worker that is being replaced, would get no answer.
        """
        if self._last_cycle is not None or self._is_refused:
            super().shutdown()
            return
        self._is_last = True
        self._linger = self.loop.call_later(_FIRST_REQUEST_S, self._close_if_unused)

    def _close_if_unused(self) -> None:
        if self._last_cycle is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes; called for each piece, so that nothing is done here for a usual request."""
        if self._is_refused:
            return
        self._unused_bytes += len(data)
        self._is_whole = False
        super().data_received(data)
        if self._is_refused:
            return
        if self._unused_bytes > self._requests.header_limit_bytes:
            self._refuse_head()
        elif not self._is_whole and not self._has_deadline:
            self._begin_deadline()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._is_whole = False
        super().on_message_begin()
        # The application only reads it; uvicorn's copy is half a KiB for as long as a stream lasts.
        self.scope["state"] = self.app_state

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, though it came in one piece."""
        # More has come than the head, so it is measured only if all of it is over the limit.
        limit_bytes = self._requests.header_limit_bytes
        self._is_too_large = self._unused_bytes > limit_bytes and self._head_bytes() > limit_bytes
        if self._is_too_large or len(self.pipeline) >= _PIPELINE_LIMIT:
            raise _RefusedError
        self._unused_bytes = 0
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        self.headers = _NOWHERE  # trailers; the scope keeps the list that it has

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, whose size is the application's to judge."""
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's time: it has come in full."""
        self._unused_bytes = 0
        self._is_whole = True
        if self._has_deadline:
            self._end_deadline()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's name)
        """Refuse what the parser does not take, or what ``on_headers_complete`` has refused."""
        if self._is_too_large:
            self._refuse_head()
        else:
            self._refuse(400, "expected HTTP/1.1, got something else")

    @property
    def _last_cycle(self) -> RequestResponseCycle | None:
        """Of the last request whose head has come; None before, whatever uvicorn's type says."""
        return self.cycle

    def _head_bytes(self) -> int:
        fields = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        return len(self.url) + fields

    def _begin_deadline(self) -> None:
        self._has_deadline = True
        self._requests.begin_deadline(self)

    def _end_deadline(self) -> None:
        self._has_deadline = False
        self._requests.end_deadline(self)

    def on_deadline(self) -> None:
        """Refuse a request that has not come in time; called by ``Requests``."""
        self._has_deadline = False
        cycle = self._last_cycle
        if self._is_answering_a_whole_request():
            self._begin_deadline()  # what came meanwhile has its turn after that
        elif (cycle is None and not self._unused_bytes) or (
            cycle is not None and cycle.more_body and cycle.response_complete
        ):
            # There is no request, as when a browser connects ahead of one; or its answer was given.
            self._requests.errors[REFUSALS[408]] += 1
            self.transport.close()
        else:
            timeout_s = self._requests.timeout_s
            self._refuse(408, f"expected the request within {timeout_s:g} s, got a part")

    def _is_answering_a_whole_request(self) -> bool:
        cycle = self._last_cycle
        if cycle is None or cycle.response_complete:
            return False
        return not cycle.more_body or bool(self.pipeline)

    def _refuse_head(self) -> None:
        limit_bytes = self._requests.header_limit_bytes
        self._refuse(
            431, f"request line and headers: expected at most {limit_bytes} bytes, got more"
        )

    def _refuse(self, status: int, detail: str) -> None:
        """Answer and close; only close if there would be another answer in the way."""
        self._requests.errors[REFUSALS[status]] += 1
        self._is_refused = True
        self._end_deadline()
        self._unset_keepalive_if_required()
        cycle = self._last_cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self._is_answering_a_whole_request():
                self.transport.abort()
                return
            # The application waits for the body: it learns that there is none, and answers nobody.
            cast("dict[str, object]", cycle.scope)[REFUSED_KEY] = True
            cycle.disconnected = True
            cycle.message_event.set()
        body = json.dumps({"error": REFUSALS[status], "detail": detail}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.write_eof()
        self._linger = self.loop.call_later(_LINGER_S, self.transport.abort)


class _RefusedError(Exception):
    """Ends the parser's work; uvicorn calls ``send_400_response`` then."""


class _Nowhere(list[tuple[bytes, bytes]]):
    """A list that keeps nothing."""

    def append(self, _pair: tuple[bytes, bytes], /) -> None:
        """Drop it."""


_NOWHERE = _Nowhere()
