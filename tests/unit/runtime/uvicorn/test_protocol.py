"""Fed with bytes by hand, on a clock moved by hand; over real sockets: ``test_limits.py``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, cast

import httptools
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sse_push.runtime.uvicorn.protocol import (
    _FIRST_REQUEST_S,
    _LINGER_S,
    _PIPELINE_LIMIT,
    _TICKS,
    REFUSALS,
    BoundedProtocol,
    Requests,
)
from tests.harness.clock import ManualClock

LIMIT_BYTES = 1024
TIMEOUT_S = 10
LATE_S = 2 * TIMEOUT_S / _TICKS
"""So much later than that a deadline comes at most."""
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

TOO_LARGE = "request line and headers: expected at most 1024 bytes, got more"
TOO_SLOW = "expected the request within 10 s, got a part"


def refusal(status_line: bytes, code: str, detail: str) -> bytes:
    body = json.dumps({"error": code, "detail": detail}).encode()
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (status_line, len(body), body)
    )


R400 = refusal(b"400 Bad Request", "malformed", "expected HTTP/1.1, got something else")
R408 = refusal(b"408 Request Timeout", "request_timeout", TOO_SLOW)
R431 = refusal(b"431 Request Header Fields Too Large", "headers_too_large", TOO_LARGE)


class Transport(asyncio.Transport):
    """Keeps what is written, and tells the protocol when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
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

    def pause_reading(self) -> None:
        """What is fed comes all the same."""

    def resume_reading(self) -> None:
        """As ``pause_reading``."""

    def _end(self, how: str) -> None:
        if self.is_closing():
            return
        self.ended_by.append(how)
        if self.protocol is not None:
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


class Connection:
    """One connection to the protocol."""

    def __init__(self, app: Callable[..., Any] = answer_ok) -> None:
        self.scopes: list[Scope] = []

        async def kept(scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            await app(scope, receive, send)

        self.loop = Loop()
        self.errors = dict.fromkeys(REFUSALS.values(), 0)
        requests = Requests(
            header_limit_bytes=LIMIT_BYTES,
            timeout_s=TIMEOUT_S,
            errors=self.errors,
            clock=self.loop,
        )
        self.state = ServerState()
        self.protocol = BoundedProtocol(
            Config(kept, ws="none", access_log=False, log_config=None, timeout_keep_alive=75),
            self.state,
            {"requests": requests},
            cast("asyncio.AbstractEventLoop", self.loop),
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
        return {code: count for code, count in self.errors.items() if count}


@pytest.fixture
async def connection() -> Connection:
    return Connection()


def fields(size_bytes: int) -> bytes:
    """Return one header that, with the rest of a small GET, is of this size."""
    return b"X: " + b"x" * (size_bytes - len("/Host: test\r\nX: \r\n")) + b"\r\n"


def get_of(size_bytes: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: test\r\n" + fields(size_bytes) + b"\r\n"


# -- what is known of uvicorn


def test_the_inside_of_uvicorn_that_is_known_is_there() -> None:
    assert {"send_400_response", "_unset_keepalive_if_required"} <= set(vars(HttpToolsProtocol))
    used = {"cycle", "pipeline", "headers", "url", "transport", "loop", "parser"}
    made = HttpToolsProtocol.__init__.__code__.co_names + (
        HttpToolsProtocol.on_message_begin.__code__.co_names
    )
    assert used <= set(made)
    cycle = {"response_started", "response_complete", "more_body", "disconnected", "message_event"}
    assert cycle <= set(RequestResponseCycle.__init__.__code__.co_names)


async def test_a_parser_s_error_is_answered_by_send_400_response(connection: Connection) -> None:
    class OnHeaders:
        def on_headers_complete(self) -> None:
            raise ValueError

    with pytest.raises(httptools.HttpParserError):
        httptools.HttpRequestParser(OnHeaders()).feed_data(GET)

    assert await connection.feed(b"nonsense\r\n\r\n") == R400
    assert connection.counted() == {"malformed": 1}


async def test_a_request_is_answered_by_the_cycle_that_the_fast_way_knows() -> None:
    senders = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        senders.append(send)
        await answer_ok(scope, receive, send)

    connection = Connection(app)

    assert await connection.feed(GET) == OK
    assert [type(getattr(send, "__self__", None)) for send in senders] == [RequestResponseCycle]


async def test_the_state_is_the_same_for_all_requests_and_not_copied(
    connection: Connection,
) -> None:
    await connection.feed(GET, GET)

    assert connection.scopes[0]["state"] is connection.scopes[1]["state"]


# -- the size of a head


@pytest.mark.parametrize("piece_bytes", [1, 7, 500, 100_000])
async def test_a_head_may_have_so_many_bytes_and_no_more(piece_bytes: int) -> None:
    def pieces(request: bytes) -> list[bytes]:
        return [
            request[start : start + piece_bytes] for start in range(0, len(request), piece_bytes)
        ]

    # In one piece it is measured without the words around; in several, as it comes.
    slack = 0 if piece_bytes > LIMIT_BYTES else len("GET  HTTP/1.1\r\n\r\n")

    assert await Connection().feed(*pieces(get_of(LIMIT_BYTES - slack))) == OK
    assert await Connection().feed(*pieces(get_of(LIMIT_BYTES + 1))) == R431


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * LIMIT_BYTES,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (LIMIT_BYTES // 6),
        b"GET / HTTP/1.1\r\n" + b"x" * LIMIT_BYTES,
        b"GET / HTTP/1.1\r\nX: " + b"x" * LIMIT_BYTES,
        b"\r\n" * LIMIT_BYTES,
    ],
    ids=["url", "many headers", "name", "value", "empty lines"],
)
async def test_a_head_that_does_not_end_is_refused_at_the_limit(
    connection: Connection, head: bytes
) -> None:
    assert await connection.feed(*(bytes([byte]) for byte in head[: LIMIT_BYTES - 1])) == b""
    assert await connection.feed(head[LIMIT_BYTES - 1 :]) == R431
    assert connection.scopes == []
    assert connection.counted() == {"headers_too_large": 1}


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * LIMIT_BYTES + b"\r\n",
        b"GET /" + b"x" * LIMIT_BYTES + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nX: " + b"x" * LIMIT_BYTES + b"\r\n\r\nab",
    ],
    ids=["many headers", "url", "with a body"],
)
async def test_a_head_that_comes_in_one_piece_is_measured_too(
    connection: Connection, head: bytes
) -> None:
    assert await connection.feed(head) == R431
    assert connection.scopes == []


async def test_a_large_body_is_no_large_head(connection: Connection) -> None:
    body = b"x" * 10 * LIMIT_BYTES
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)

    assert await connection.feed(head + body) == OK
    assert await connection.feed(
        head, *(body[at : at + 999] for at in range(0, len(body), 999))
    ) == (2 * OK)


async def test_many_small_chunks_are_no_large_head(connection: Connection) -> None:
    assert await connection.feed(CHUNKED, *[b"1\r\nx\r\n"] * 1000, b"0\r\n\r\n") == OK


async def test_every_request_of_a_connection_has_the_limit_to_itself(
    connection: Connection,
) -> None:
    answers = [await connection.feed(get_of(LIMIT_BYTES - 20)) for _ in range(5)]

    assert answers[-1] == 5 * OK
    assert await connection.feed(get_of(LIMIT_BYTES + 1)) == 5 * OK + R431


async def test_requests_that_come_together_have_it_each(connection: Connection) -> None:
    assert await connection.feed(get_of(LIMIT_BYTES - 20) * 5) == 5 * OK


# -- trailers


async def test_trailers_are_dropped_so_that_none_passes_for_a_header(
    connection: Connection,
) -> None:
    trailers = b"0\r\nX-Merchant-Id: 43\r\n\r\n"

    assert await connection.feed(CHUNKED + b"1\r\nx\r\n" + trailers) == OK
    assert (
        await connection.feed(CHUNKED, b"1\r\nx\r\n0\r\n", b"X-Merchant-Id: 43\r\n\r\n") == 2 * OK
    )
    assert [scope["headers"] for scope in connection.scopes] == 2 * [
        [(b"host", b"test"), (b"transfer-encoding", b"chunked")]
    ]
    assert connection.protocol.headers == []


@pytest.mark.parametrize(
    "trailer", [b"X: " + b"x" * LIMIT_BYTES, b"A: b\r\n" * LIMIT_BYTES], ids=["one", "many"]
)
async def test_trailers_that_do_not_end_are_refused(connection: Connection, trailer: bytes) -> None:
    assert await connection.feed(CHUNKED, b"1\r\nx\r\n0\r\n", trailer) == R431


# -- after a refusal


async def test_after_a_refusal_what_still_comes_is_read_and_dropped_for_a_while(
    connection: Connection,
) -> None:
    await connection.feed(b"x" * (LIMIT_BYTES + 1))

    assert await connection.feed(*[b"x" * 100_000] * 10) == R400  # "xx" is no method
    assert connection.transport.ended_by == ["eof"]
    assert await connection.wait(_LINGER_S) == R400
    assert connection.transport.ended_by == ["eof", "abort"]
    assert connection.loop.waiting == 0
    assert connection.counted() == {"malformed": 1}


async def test_a_client_that_leaves_after_a_refusal_leaves_no_timer(
    connection: Connection,
) -> None:
    await connection.feed(b"nonsense")
    connection.transport.close()

    await connection.wait(LATE_S)
    assert connection.loop.waiting == 0


# -- the time of a request


async def test_a_connection_on_which_nothing_comes_is_closed_without_an_answer(
    connection: Connection,
) -> None:
    assert await connection.wait(TIMEOUT_S - 0.1) == b""
    assert connection.transport.ended_by == []
    assert await connection.wait(0.1 + LATE_S) == b""
    assert connection.transport.ended_by == ["close"]
    assert connection.counted() == {"request_timeout": 1}


@pytest.mark.parametrize("got", [b"", b"GET / HTTP/1.1\r\n", CHUNKED, GET])
async def test_a_client_that_leaves_is_not_waited_for(connection: Connection, got: bytes) -> None:
    await connection.feed(got)
    connection.transport.close()
    await connection.wait(TIMEOUT_S + LATE_S)

    assert connection.loop.waiting == 0
    assert connection.counted() == {}
    assert connection.transport.ended_by == ["close"]
    assert connection.state.tasks == set()


@pytest.mark.parametrize(
    ("first", "trickle"),
    [
        (b"", b"GET / HTTP/1.1\r\nX: xxxxxxxxxxxxx"),
        (b"GET / HTTP/1.1\r\n", b"X: xxxxxxxxxxxxx"),
        (b"", b"\r\n" * 10),
        (b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", b"x" * 12),
        (CHUNKED, b"1\r\nx\r\n1\r\ny\r\n1\r\nz\r\n"),
        (CHUNKED + b"0\r\n", b"X: xxxxxxxxxxxxx"),
    ],
    ids=["head", "headers", "empty lines", "body", "chunks", "trailers"],
)
async def test_what_trickles_has_so_long_in_all(
    connection: Connection, first: bytes, trickle: bytes
) -> None:
    await connection.feed(first)
    for byte in trickle[:9]:
        assert await connection.feed(bytes([byte])) == b""
        assert await connection.wait(1) == b""

    assert await connection.wait(1 + LATE_S) == R408
    assert connection.transport.ended_by == ["eof"]
    assert connection.counted() == {"request_timeout": 1}
    assert connection.state.tasks == set()  # the application has heard of it, and said nothing


async def test_the_next_request_of_a_connection_has_the_whole_time_again(
    connection: Connection,
) -> None:
    await connection.wait(TIMEOUT_S - 1)
    assert await connection.feed(GET) == OK
    await connection.wait(50)  # it rests
    await connection.feed(b"GET /")
    assert await connection.wait(TIMEOUT_S - 0.1) == OK
    assert await connection.wait(0.1 + LATE_S) == OK + R408


async def test_a_request_that_has_begun_behind_a_whole_one_has_its_time_too(
    connection: Connection,
) -> None:
    assert await connection.feed(GET + b"GET /") == OK
    assert await connection.wait(TIMEOUT_S + LATE_S) == OK + R408


async def test_empty_lines_do_not_keep_a_connection_for_ever(connection: Connection) -> None:
    await connection.feed(GET)
    await connection.feed(b"\r\n")

    assert await connection.wait(TIMEOUT_S + LATE_S) == OK + R408


async def test_a_kept_alive_connection_that_rests_has_only_uvicorn_s_time(
    connection: Connection,
) -> None:
    await connection.feed(GET)
    await connection.wait(74)
    assert connection.transport.ended_by == []
    await connection.wait(1)

    assert connection.transport.ended_by == ["close"]
    assert connection.counted() == {}


async def stream(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, and never end before the client does."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ready", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_a_stream_whose_request_has_come_lasts() -> None:
    connection = Connection(stream)
    begun = await connection.feed(GET)

    assert begun.endswith(b"5\r\nready\r\n")
    assert await connection.wait(LATE_S) == begun
    assert connection.loop.waiting == 0  # also not the one of all deadlines
    assert await connection.feed(b"\r\n") == begun
    assert await connection.wait(100 * TIMEOUT_S) == begun
    assert connection.transport.ended_by == []


@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"x" * 10, 400), (b"GET /" + b"x" * LIMIT_BYTES, 431)],
    ids=["nonsense", "too large"],
)
async def test_into_a_stream_no_other_answer_is_written(rest: bytes, status: int) -> None:
    connection = Connection(stream)
    begun = await connection.feed(GET)

    assert await connection.feed(rest) == begun
    assert connection.transport.ended_by == ["abort"]
    assert connection.counted() == {REFUSALS[status]: 1}
    assert connection.state.tasks == set()


async def test_a_stream_whose_request_does_not_end_is_cut() -> None:
    connection = Connection(stream)
    begun = await connection.feed(CHUNKED)
    for _ in range(TIMEOUT_S - 1):
        await connection.feed(b"1\r\nx\r\n")
        assert await connection.wait(1) == begun

    assert await connection.wait(1 + LATE_S) == begun
    assert connection.transport.ended_by == ["abort"]
    assert connection.state.tasks == set()


async def test_a_body_that_goes_on_after_its_answer_is_cut_off_without_another() -> None:
    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    connection = Connection(refuse)
    answered = await connection.feed(CHUNKED)
    await connection.wait(TIMEOUT_S + LATE_S)

    assert answered.startswith(b"HTTP/1.1 413 ")
    assert connection.transport.written == answered
    assert connection.transport.ended_by == ["close"]


# -- requests that wait behind another


async def test_what_waits_behind_an_answer_has_its_turn_whatever_time_that_takes() -> None:
    may_answer = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await answer_ok(scope, receive, send)

    connection = Connection(slow)
    await connection.feed(GET + CHUNKED)
    assert await connection.wait(5 * TIMEOUT_S) == b""
    may_answer.set()
    assert await connection.feed(b"0\r\n\r\n") == 2 * OK
    assert connection.counted() == {}


async def test_only_so_many_may_wait_behind_an_answer() -> None:
    assert await Connection().feed(GET * (_PIPELINE_LIMIT + 1)) == (_PIPELINE_LIMIT + 1) * OK
    connection = Connection()
    assert await connection.feed(GET * (_PIPELINE_LIMIT + 2)) == b""
    assert connection.transport.ended_by == ["abort"]
    assert connection.counted() == {"malformed": 1}


# -- a process that stops


async def test_a_connection_without_a_request_is_given_a_moment_when_the_process_stops(
    connection: Connection,
) -> None:
    connection.protocol.shutdown()
    at_first = list(connection.transport.ended_by)
    answer = await connection.feed(GET)

    assert at_first == []
    assert answer == OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert connection.transport.ended_by == ["close"]


async def test_a_connection_on_which_none_comes_is_closed_soon_after(
    connection: Connection,
) -> None:
    connection.protocol.shutdown()
    await connection.wait(_FIRST_REQUEST_S)

    assert connection.transport.written == b""
    assert connection.transport.ended_by == ["close"]


async def test_a_connection_that_rests_is_closed_at_once(connection: Connection) -> None:
    await connection.feed(GET)
    connection.protocol.shutdown()

    assert connection.transport.ended_by == ["close"]
