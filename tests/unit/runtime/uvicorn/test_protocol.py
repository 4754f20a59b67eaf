"""Fed with bytes by hand, on a clock moved by hand; over real sockets: ``integration/limits``."""

from __future__ import annotations

import asyncio
import random

import httptools
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sse_push.runtime.timer_wheel import NOT_PLANNED
from sse_push.runtime.uvicorn.answering import LINGER_S
from sse_push.runtime.uvicorn.protocol import (
    _FIRST_REQUEST_S,
    _PIPELINE_LIMIT,
)
from tests.unit.runtime.uvicorn.connection import (
    CHUNKED,
    GET,
    LATE_S,
    LIMIT_BYTES,
    OK,
    R400,
    R408,
    R431,
    TIMEOUT_S,
    Connection,
    Transport,
    answer_ok,
    get_of,
)


@pytest.fixture
async def connection() -> Connection:
    return Connection()


# -- what is known of uvicorn


def test_uvicorn_has_the_attributes_that_are_used() -> None:
    methods = {"send_400_response", "_unset_keepalive_if_required", "on_response_complete"}
    assert methods <= set(vars(HttpToolsProtocol))
    used = {"cycle", "pipeline", "headers", "url", "transport", "loop", "parser"}
    used |= {"connections", "flow", "scope"}
    made = HttpToolsProtocol.__init__.__code__.co_names + (
        HttpToolsProtocol.on_message_begin.__code__.co_names
    )
    assert used <= set(made)
    cycle = {"response_started", "response_complete", "more_body", "disconnected", "message_event"}
    cycle |= {"chunked_encoding", "expected_content_length", "keep_alive"}
    cycle |= {"waiting_for_100_continue"}
    assert cycle <= set(RequestResponseCycle.__init__.__code__.co_names)


async def test_an_error_of_the_parser_is_answered_by_send_400_response(
    connection: Connection,
) -> None:
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


# -- what a connection keeps


@pytest.mark.parametrize(
    ("pieces", "has_deadline"),
    [
        ([], True),
        ([b"GET /"], True),
        ([CHUNKED], True),
        ([GET], False),
        ([GET + b"GET /"], True),
        ([GET, b"\r\n"], True),
        ([b"nonsense"], False),
    ],
)
async def test_a_request_has_a_deadline_until_it_is_whole_or_refused(
    connection: Connection, pieces: list[bytes], *, has_deadline: bool
) -> None:
    await connection.feed(*pieces)

    assert (connection.protocol.tick != NOT_PLANNED) is has_deadline


async def test_a_connection_has_no_attributes_beside_those_of_uvicorn(
    connection: Connection,
) -> None:
    """One more, and its dictionary does not share its keys with others: 1 KiB per connection."""
    plain = HttpToolsProtocol(connection.protocol.config, ServerState(), {}, connection.loop_)
    plain.connection_made(Transport())
    await connection.feed(GET)
    plain.data_received(GET)

    assert set(vars(connection.protocol)) - {"states"} == set(vars(plain))


async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


# -- the size of a head

TOO_LONG = b"GET /" + b"x" * LIMIT_BYTES


@pytest.mark.parametrize("piece_bytes", [1, 7, 500, 100_000])
async def test_a_head_may_be_as_large_as_the_limit_and_no_larger(piece_bytes: int) -> None:
    def pieces(request: bytes) -> list[bytes]:
        return [
            request[start : start + piece_bytes] for start in range(0, len(request), piece_bytes)
        ]

    # In one piece only names, values and the URL are measured; in several, every byte.
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
async def test_a_head_that_arrives_in_one_piece_is_measured_too(
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


async def test_requests_that_arrive_together_have_the_limit_each(connection: Connection) -> None:
    assert await connection.feed(get_of(LIMIT_BYTES - 20) * 5) == 5 * OK


# -- trailers


async def test_trailers_are_dropped_so_that_no_trailer_passes_for_a_header(
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


LARGE_TRAILERS = {"one": b"X: " + b"x" * LIMIT_BYTES, "many": b"A: b\r\n" * LIMIT_BYTES}


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["endless", "whole"])
@pytest.mark.parametrize("kind", LARGE_TRAILERS)
async def test_trailers_that_are_too_large_are_refused_in_whatever_pieces(
    kind: str, end: bytes
) -> None:
    body, trailers = b"1\r\nx\r\n0\r\n", LARGE_TRAILERS[kind] + end

    assert await Connection().feed(CHUNKED, body, trailers) == R431
    assert await Connection().feed(CHUNKED + body, trailers[:9], trailers[9:]) == R431
    if end or kind == "many":
        assert await Connection().feed(CHUNKED + body + trailers) == R431
        assert await Connection().feed(GET + CHUNKED + body + trailers) == OK + R431


async def test_a_request_that_was_answered_before_its_trailers_gets_no_second_answer() -> None:
    connection = Connection(refuse)
    answered = await connection.feed(CHUNKED)

    assert await connection.feed(b"0\r\n" + LARGE_TRAILERS["many"]) == answered
    assert connection.transport.ended_by == ["eof"]
    assert await connection.wait(LINGER_S) == answered
    assert connection.transport.ended_by == ["eof", "abort"]


async def test_a_request_behind_one_that_was_answered_before_its_body_is_refused() -> None:
    connection = Connection(refuse)
    answered = await connection.feed(CHUNKED)

    assert await connection.feed(b"0\r\n\r\n", b"nonsense") == answered + R400


# -- any pieces

PARTS = {
    "small": (GET, OK),
    "large": (get_of(LIMIT_BYTES - 50), OK),
    "a body": (b"POST / HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, OK),
    "trailers": (CHUNKED + b"2\r\nab\r\n0\r\n" + b"A: b\r\n" * 150 + b"\r\n", OK),
    "a large head, and trailers": (
        get_of(LIMIT_BYTES - 80)[:-2] + CHUNKED[-30:] + b"0\r\n" + b"A: b\r\n" * 150 + b"\r\n",
        OK,
    ),
    "too large": (get_of(60_000), R431),
    "a URL too large": (TOO_LONG + b" HTTP/1.1\r\n\r\n", R431),
    "trailers too large": (CHUNKED + b"0\r\n" + LARGE_TRAILERS["many"] + b"\r\n", R431),
    "nonsense": (b"nonsense\r\n\r\n", R400),
}


FINE = [name for name, (_, answer) in PARTS.items() if answer is OK]


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Return the data in pieces: one, a few at random, or many of one size."""
    size = chance.choice([len(data), chance.randrange(1, len(data) + 1), 7, 1000, 16_384])
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("seed", range(60))
async def test_requests_in_any_pieces_are_answered_as_each_alone_up_to_a_refusal(seed: int) -> None:
    chance = random.Random(seed)
    names = chance.choices(FINE, k=chance.randrange(6)) + chance.choices(list(PARTS), k=2)
    pieces = cut(b"".join(PARTS[name][0] for name in names), chance)
    expected = b""
    for name in names:
        expected += PARTS[name][1]
        if PARTS[name][1] is not OK:
            break

    connection = Connection()
    for piece in pieces:
        if chance.random() < 0.9:
            connection.protocol.data_received(piece)
        else:
            await connection.feed(piece)

    assert await connection.feed() == expected, names


# -- after a refusal


async def test_bytes_that_follow_a_refusal_are_read_and_dropped_for_a_while(
    connection: Connection,
) -> None:
    await connection.feed(b"x" * (LIMIT_BYTES + 1))

    assert await connection.feed(*[b"x" * 100_000] * 10) == R400  # "xx" is no method
    assert connection.transport.ended_by == ["eof"]
    assert await connection.wait(LINGER_S) == R400
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


async def test_a_connection_without_a_request_is_closed_without_an_answer(
    connection: Connection,
) -> None:
    assert await connection.wait(TIMEOUT_S - 0.1) == b""
    assert connection.transport.ended_by == []
    assert await connection.wait(0.1 + LATE_S) == b""
    assert connection.transport.ended_by == ["close"]
    assert connection.counted() == {"request_timeout": 1}


@pytest.mark.parametrize("got", [b"", b"GET / HTTP/1.1\r\n", CHUNKED, GET])
async def test_a_client_that_leaves_has_no_deadline_any_more(
    connection: Connection, got: bytes
) -> None:
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
async def test_a_request_that_trickles_in_has_the_time_of_any_request(
    connection: Connection, first: bytes, trickle: bytes
) -> None:
    await connection.feed(first)
    for byte in trickle[:9]:
        assert await connection.feed(bytes([byte])) == b""
        assert await connection.wait(1) == b""

    assert await connection.wait(1 + LATE_S) == R408
    assert connection.transport.ended_by == ["eof"]
    assert connection.counted() == {"request_timeout": 1}
    assert connection.state.tasks == set()  # the application has returned without an answer


async def test_the_next_request_of_a_connection_has_the_whole_time_again(
    connection: Connection,
) -> None:
    await connection.wait(TIMEOUT_S - 1)
    assert await connection.feed(GET) == OK
    await connection.wait(50)  # idle
    await connection.feed(b"GET /")
    assert await connection.wait(TIMEOUT_S - 0.1) == OK
    assert await connection.wait(0.1 + LATE_S) == OK + R408


async def test_a_request_that_begins_behind_a_whole_request_has_a_deadline_too(
    connection: Connection,
) -> None:
    assert await connection.feed(GET + b"GET /") == OK
    assert await connection.wait(TIMEOUT_S + LATE_S) == OK + R408


async def test_empty_lines_do_not_keep_a_connection_for_ever(connection: Connection) -> None:
    await connection.feed(GET)
    await connection.feed(b"\r\n")

    assert await connection.wait(TIMEOUT_S + LATE_S) == OK + R408


async def test_an_idle_kept_alive_connection_has_only_the_time_of_uvicorn(
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


async def test_an_event_stream_whose_request_has_arrived_has_no_deadline() -> None:
    connection = Connection(stream)
    begun = await connection.feed(GET)

    assert begun.endswith(b"5\r\nready\r\n")
    assert await connection.wait(LATE_S) == begun
    assert connection.loop.waiting == 0  # not even the timer of all deadlines
    assert await connection.feed(b"\r\n") == begun
    assert await connection.wait(100 * TIMEOUT_S) == begun
    assert connection.transport.ended_by == []


@pytest.mark.parametrize(
    ("rest", "code"),
    [(b"x" * 10, "malformed"), (b"GET /" + b"x" * LIMIT_BYTES, "headers_too_large")],
    ids=["nonsense", "too large"],
)
async def test_a_refusal_is_not_written_into_an_event_stream(rest: bytes, code: str) -> None:
    connection = Connection(stream)
    begun = await connection.feed(GET)

    assert await connection.feed(rest) == begun
    assert connection.transport.ended_by == ["abort"]
    assert connection.counted() == {code: 1}
    assert connection.state.tasks == set()


async def test_an_event_stream_whose_request_does_not_end_is_aborted() -> None:
    connection = Connection(stream)
    begun = await connection.feed(CHUNKED)
    for _ in range(TIMEOUT_S - 1):
        await connection.feed(b"1\r\nx\r\n")
        assert await connection.wait(1) == begun

    assert await connection.wait(1 + LATE_S) == begun
    assert connection.transport.ended_by == ["abort"]
    assert connection.state.tasks == set()


async def test_a_body_that_goes_on_after_its_answer_gets_no_second_answer() -> None:
    connection = Connection(refuse)
    answered = await connection.feed(CHUNKED)
    await connection.wait(TIMEOUT_S + LATE_S)

    assert answered.startswith(b"HTTP/1.1 413 ")
    assert connection.transport.written == answered
    assert connection.transport.ended_by == ["close"]


# -- requests that wait behind another


async def test_a_request_behind_another_has_its_turn_however_long_that_takes() -> None:
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


async def test_only_a_few_requests_may_wait_behind_another() -> None:
    assert await Connection().feed(GET * (_PIPELINE_LIMIT + 1)) == (_PIPELINE_LIMIT + 1) * OK
    connection = Connection()
    assert await connection.feed(GET * (_PIPELINE_LIMIT + 9)) == (_PIPELINE_LIMIT + 1) * OK + R400
    assert connection.transport.ended_by == ["eof"]
    assert connection.counted() == {"malformed": 1}


# -- a process that stops

LAST_OK = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def test_a_first_request_that_arrives_while_the_process_stops_is_answered(
    connection: Connection,
) -> None:
    connection.protocol.shutdown()
    at_first = list(connection.transport.ended_by)
    answer = await connection.feed(GET)

    assert at_first == []
    assert answer == LAST_OK
    assert connection.transport.ended_by == ["close"]


async def test_what_follows_the_last_request_of_a_connection_gets_no_answer(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.protocol.shutdown()

    assert await connection.feed(GET + b"nonsense") == LAST_OK
    assert connection.transport.ended_by == ["close"]
    assert [record.name for record in caplog.records] == ["sse_push.runtime.refusals"]


async def test_a_first_request_that_arrives_while_the_process_stops_may_take_long() -> None:
    connection = Connection(stream)
    connection.protocol.shutdown()
    begun = await connection.feed(GET)

    assert await connection.wait(_FIRST_REQUEST_S) == begun
    assert connection.transport.ended_by == []


async def test_a_connection_without_a_request_is_closed_soon_after_the_process_stops(
    connection: Connection,
) -> None:
    connection.protocol.shutdown()
    await connection.wait(_FIRST_REQUEST_S)

    assert connection.transport.written == b""
    assert connection.transport.ended_by == ["close"]


async def test_an_idle_connection_is_closed_at_once_when_the_process_stops(
    connection: Connection,
) -> None:
    await connection.feed(GET)
    connection.protocol.shutdown()

    assert connection.transport.ended_by == ["close"]
