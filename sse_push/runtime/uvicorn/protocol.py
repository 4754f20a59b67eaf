"""Refuses requests that are too large or arrive too slowly, before the application sees them.

Knows the inside of uvicorn's protocol for httptools, which limits neither size nor time. Does not
know what is requested, nor what the application answers.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from sse_push.errors import RefusalReason
from sse_push.runtime.refusals import Refusals
from sse_push.runtime.timer_wheel import NOT_PLANNED, Clock, TimerWheel
from sse_push.runtime.uvicorn.answering import AnsweringProtocol
from sse_push.runtime.uvicorn.states import BODY, HEAD, LAST_HEAD, REFUSED, TOO_LARGE, WHOLE
from sse_push.runtime.uvicorn.upgrades import feed
from sse_push.runtime.uvicorn.waiting import Waiting

REFUSED_KEY = "sse_push.refused"
"""The mark of a refused request in its ASGI scope; the application gets ``http.disconnect``."""

_FIRST_REQUEST_S = 0.5
"""At shutdown, how long to wait for the first request of a connection just accepted."""

_PIPELINE_LIMIT = 64
"""At most this many requests wait behind one that is being answered: each takes some KiB."""

_TICKS = 40
"""A request's time has this many ticks; a deadline is up to two ticks late."""


class Requests:
    """What all connections of a process share: limits, who waits, and what was refused."""

    def __init__(
        self,
        *,
        header_limit_bytes: int,
        timeout_s: float,
        refusals: Refusals,
        waiting: Waiting,
        clock: Clock,
    ) -> None:
        self.header_limit_bytes = header_limit_bytes
        self.timeout_s = timeout_s
        self.refusals = refusals
        self.waiting = waiting
        self._clock = clock
        # One timer for all requests: one timer each costs more than all else in this module.
        self._wheel: TimerWheel[BoundedProtocol] = TimerWheel(
            timeout_s / _TICKS, lambda protocol, _: protocol.on_deadline(), clock
        )

    def begin_deadline(self, protocol: BoundedProtocol) -> None:
        """Call ``on_deadline`` when a request that begins now has taken too long."""
        self._wheel.plan(protocol, self._clock.time() + self.timeout_s + self._wheel.tick_s)

    def end_deadline(self, protocol: BoundedProtocol) -> None:
        """Cancel the call of ``on_deadline``, if there is one."""
        self._wheel.forget(protocol)


class BoundedProtocol(AnsweringProtocol):
    """uvicorn's protocol, with a limit for the head of a request and a time for the whole of it.

    The head is the request line with all headers; a head, or trailers, of more than
    ``header_limit_bytes`` are answered by 431. A request that has not arrived in full within
    ``request_timeout_s`` of its first byte, or of the connection's start, is answered by 408; if
    there is no request to answer, the connection is closed. An idle kept-alive connection, and an
    event stream, have no such deadline: the one is in ``waiting``, the other in the hub. Trailers
    are dropped: uvicorn would add them to the headers, where a client could forge a header that
    only a proxy may set.

    ==========  =========================================  ==========
    state       event                                      next state
    ==========  =========================================  ==========
    HEAD        the process stops, no request so far       LAST_HEAD
    HEAD        a head within the limit ends               BODY
    HEAD        a head over the limit ends                 TOO_LARGE
    BODY        trailers go over the limit                 TOO_LARGE
    LAST_HEAD   as HEAD                                    as HEAD
    BODY        the request ends                           WHOLE
    WHOLE       more bytes arrive                          HEAD
    TOO_LARGE   the parser gives up                        REFUSED
    HEAD, BODY  a parser error, a limit or a deadline      REFUSED
    ==========  =========================================  ==========

    HEAD and BODY have a deadline. It ends with the request; between two requests there is none.

    https://www.rfc-editor.org/rfc/rfc9112#section-7.1.2
    """

    __slots__ = ("_largest_bytes", "_requests", "_unused_bytes", "state", "tick")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._requests = cast("Requests", app_state["requests"])
        self.state = HEAD
        self.tick = NOT_PLANNED
        """The place of the deadline on the wheel, while there is a deadline."""
        self._unused_bytes = 0
        """Bytes received since the last whole head or piece of a body, but for those that arrived
        together with its end."""
        self._largest_bytes = 0
        """The size of the largest piece received."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the deadline of the first request."""
        super().connection_made(transport)
        self._requests.begin_deadline(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is planned for the connection."""
        self._requests.end_deadline(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection, but answer a first request that is on its way.

        uvicorn would close a connection without a request. A client whose connection was accepted
        just now, by a worker that is being replaced, would get no answer.
        """
        if self._last_cycle is not None or self.state is not HEAD:
            super().shutdown()
            return
        self.state = LAST_HEAD
        self._linger = self.loop.call_later(_FIRST_REQUEST_S, self._close_if_unused)

    def _close_if_unused(self) -> None:
        if self._last_cycle is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse bytes; called for each piece, so a usual request pays for comparisons only."""
        state = self.state
        if state is REFUSED:
            return
        if state is WHOLE:
            self.state = HEAD
        size_bytes = len(data)
        self._unused_bytes += size_bytes
        self._largest_bytes = max(self._largest_bytes, size_bytes)
        self._unset_keepalive_if_required()
        try:
            feed(self, data)
        except httptools.HttpParserError:
            self.send_400_response("")
        state = self.state
        if state is REFUSED:
            return
        if self._unused_bytes > self._requests.header_limit_bytes:
            self._refuse_head()
        elif state is not WHOLE and not self.tick:
            self._requests.begin_deadline(self)

    def on_message_begin(self) -> None:
        """Begin a request, maybe behind another one in the same piece."""
        if self.state is WHOLE:
            self.state = HEAD
        super().on_message_begin()
        # The application only reads the state; uvicorn's copy would take half a KiB per stream.
        self.scope["state"] = self.app_state

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, in whatever pieces it arrived; begin the body."""
        limit_bytes = self._requests.header_limit_bytes
        # The head may have begun in the piece that ended what was before it, so that its bytes are
        # not all counted. It is measured where it could be too large, which is rare.
        is_doubtful = self._unused_bytes + self._largest_bytes > limit_bytes
        if is_doubtful and len(self.url) + sum(map(_field_bytes, self.headers)) > limit_bytes:
            self.state = TOO_LARGE
            raise _RefusedError
        if len(self.pipeline) >= _PIPELINE_LIMIT:
            raise _RefusedError
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _RefusedError  # a tunnel follows, not a request
            return  # ``feed`` has this head parsed once more
        self._unused_bytes = 0
        super().on_headers_complete()
        if self.state is LAST_HEAD:
            self.cycle.keep_alive = False
        self.state = BODY
        self.headers = _NOWHERE  # for trailers; the scope keeps the list of the headers

    def on_chunk_header(self) -> None:
        """Expect trailers behind the chunks, the last of which may be this one."""
        if self.headers is _NOWHERE:
            self.headers = _Trailers(self._requests.header_limit_bytes)

    def on_body(self, body: bytes) -> None:
        """Add a piece of a body; the application limits its size."""
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the deadline: the request has arrived in full."""
        if self.parser.should_upgrade():
            return  # it has not: ``feed`` has its head parsed once more
        self._unused_bytes = 0
        self.state = WHOLE
        if self.tick:
            self._requests.end_deadline(self)
        super().on_message_complete()
        self.cycle.more_body = False  # also if it was answered before

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's name)
        """Refuse what the parser, or ``on_headers_complete``, does not accept."""
        if isinstance(self.headers, _Trailers) and self.headers.left_bytes < 0:
            self.state = TOO_LARGE
        if self.state is TOO_LARGE:
            self._refuse_head()
        else:
            self._refuse(RefusalReason.NOT_HTTP, "expected HTTP/1.1, got something else")

    def on_deadline(self) -> None:
        """Refuse a request that has not arrived in time; called by ``Requests``."""
        cycle = self._last_cycle
        if self._is_answering_a_whole_request():
            # An earlier request holds the connection: the later one is judged after its answer.
            self._requests.begin_deadline(self)
        elif (cycle is None and not self._unused_bytes) or (
            cycle is not None and cycle.more_body and cycle.response_complete
        ):
            # No request needs an answer: a browser has connected ahead of a request, or the
            # application has answered without reading the body to its end. Neither is worth a line.
            self._requests.refusals.count(RefusalReason.REQUEST_TIMEOUT)
            self.transport.close()
        else:
            timeout_s = self._requests.timeout_s
            self._refuse(
                RefusalReason.REQUEST_TIMEOUT,
                f"expected the request within {timeout_s:g} s, got a part",
            )

    def _is_answering_a_whole_request(self) -> bool:
        cycle = self._last_cycle
        if cycle is None or cycle.response_complete:
            return False
        return not cycle.more_body or bool(self.pipeline)

    def _refuse_head(self) -> None:
        limit_bytes = self._requests.header_limit_bytes
        self._refuse(
            RefusalReason.HEADERS_TOO_LARGE,
            f"request line and headers: expected at most {limit_bytes} bytes, got more",
        )

    def _refuse(self, reason: RefusalReason, detail: str) -> None:
        """End the connection with an error, behind the answers to the requests before."""
        address = self.client[0] if self.client else "unknown"
        self._requests.refusals.add(reason, "-", f"address {address}")
        self.state = REFUSED
        self._requests.end_deadline(self)
        cycle = self._last_cycle
        if cycle is None or cycle.response_complete:
            is_answered = cycle is not None and cycle.more_body
            self._end(b"" if is_answered else _answer(reason, detail))
        elif cycle.response_started:
            self.transport.abort()  # a refusal would be written into another answer
        elif self._is_answering_a_whole_request():
            self._end_behind_answers(_answer(reason, detail))
        else:
            # The application waits for the rest of the body, and gets a disconnect instead.
            cast("dict[str, object]", cycle.scope)[REFUSED_KEY] = True
            cycle.disconnected = True
            cycle.message_event.set()
            self._end(_answer(reason, detail))


def _answer(reason: RefusalReason, detail: str) -> bytes:
    refusal = reason.refusal
    body = json.dumps(refusal.body(detail)).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[refusal.status] + head % len(body) + body


class _RefusedError(Exception):
    """Makes the parser give up, with an error as for bytes that are not HTTP."""


def _field_bytes(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + len(": \r\n")


class _Nowhere(list[tuple[bytes, bytes]]):
    """A list that stays empty."""

    def append(self, _field: tuple[bytes, bytes], /) -> None:
        """Drop the field."""


_NOWHERE = _Nowhere()


class _Trailers(list[tuple[bytes, bytes]]):
    """A list that stays empty, of trailers whose size has a limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.left_bytes = limit_bytes

    def append(self, field: tuple[bytes, bytes], /) -> None:
        """Measure the field, and drop it."""
        self.left_bytes -= _field_bytes(field)
        if self.left_bytes < 0:
            raise _RefusedError
