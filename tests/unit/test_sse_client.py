from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import httpx2
import pytest

from sse_push.sse_client import Event, GaveUp, Parser, StateChange, follow

URL = "http://push.example/events?merchant_id=42"
MEDIA_TYPE = {"Content-Type": "text/event-stream; charset=utf-8"}

TEXT = (
    "\ufeff: a comment\r\n"
    "retry: 1500\r"
    "event: refresh\r\n"
    'data: {"text":"线 \U0001f600"}\n'
    "data:  two spaces, one stays\r"
    "id: 7-1\r\n"
    "\r\n"
    "id\n"
    "data: no id\n"
    "\n"
    "data\r"
    "data: after an empty line\r"
    "\r"
    "nonsense: x\n"
    "event: never\n"
    "\n"
    "data: : x\r\n"
    "\n"
    "data: not complete\n"
)
EVENTS = [
    Event("refresh", '{"text":"线 \U0001f600"}\n two spaces, one stays', "7-1"),
    Event("message", "no id", ""),
    Event("message", "\nafter an empty line", ""),
    Event("message", ": x", ""),
]


def parsed(*chunks: bytes) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


# -- the parser


def test_a_text_with_all_kinds_of_line_ends_is_parsed() -> None:
    assert parsed(TEXT.encode()) == EVENTS


def test_a_text_may_be_cut_anywhere() -> None:
    raw = TEXT.encode()

    for cut in range(len(raw) + 1):
        assert parsed(raw[:cut], raw[cut:]) == EVENTS, cut


def test_a_text_may_arrive_byte_by_byte() -> None:
    assert parsed(*(bytes([byte]) for byte in TEXT.encode())) == EVENTS


def test_an_event_is_dispatched_with_its_empty_line_and_not_later() -> None:
    parser = Parser()

    assert list(parser.feed(b"data: 1\n")) == []
    assert list(parser.feed(b"\n")) == [Event("message", "1", "")]
    assert list(parser.feed(b"\n")) == []


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: 1\n\n", [("message", "1", "")]),
        (b"data:1\n\n", [("message", "1", "")]),
        (b"data:  1\n\n", [("message", " 1", "")]),
        (b"data:\t1\n\n", [("message", "\t1", "")]),
        (b"data: a: b\n\n", [("message", "a: b", "")]),
        (b"data: 1\ndata: 2\ndata: 3\n\n", [("message", "1\n2\n3", "")]),
        (b"data\ndata\n\n", [("message", "\n", "")]),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:\n\n", [("message", "", "")]),
        (b"event: refresh\ndata: \nid: 1\n\n\n", [("refresh", "", "1")]),
        (b"data: 1\n\n\n\ndata: 2\n\n", [("message", "1", ""), ("message", "2", "")]),
        (b"event: refresh\ndata: 1\n\n", [("refresh", "1", "")]),
        (b"event:\ndata: 1\n\n", [("message", "1", "")]),
        (b"event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", [("b", "1", ""), ("message", "2", "")]),
        (b"id: 1\ndata: 1\n\ndata: 2\n\n", [("message", "1", "1"), ("message", "2", "1")]),
        (b"id: 1\ndata: 1\n\nid\ndata: 2\n\n", [("message", "1", "1"), ("message", "2", "")]),
        (b"id: 1\nid: 2\0\ndata: 1\n\n", [("message", "1", "1")]),
        (b"id: \0\ndata: 1\n\n", [("message", "1", "")]),
        (b"Data: 1\nDATA: 2\n data: 3\n\n", []),
        (b"data : 1\n\n", []),
        (b":data: 1\n:\n: \n\n", []),
        (b"event: refresh\nid: 1\n\n", []),
        (b"\n\n\n", []),
        (b"", []),
        (b"data: 1", []),
        (b"data: 1\n", []),
        (b"data: 1\nevent: refresh\n", []),
        (b"\xef\xbb\xbfdata: 1\n\n", [("message", "1", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n", []),
        (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [("message", "1", "")]),
        (b"data: \xff\xe7\xba\n\n", [("message", "\ufffd\ufffd", "")]),
        (b"data: a\0b\n\n", [("message", "a\0b", "")]),
        (b"data: a\x0bb\xc2\x85c\xe2\x80\xa8d\n\n", [("message", "a\x0bb\x85c\u2028d", "")]),
        (b"data: 1\r\rdata: 2\r\n\r\ndata: 3\n\n", [("message", f"{n}", "") for n in (1, 2, 3)]),
        (b"data: 1\n\r\ndata: 2\r\n\n", [("message", "1", ""), ("message", "2", "")]),
    ],
)
def test_an_event_stream_is_interpreted_as_the_standard_says(
    raw: bytes, events: list[tuple[str, str, str]]
) -> None:
    assert parsed(raw) == events
    assert parsed(*(bytes([byte]) for byte in raw)) == events


def test_a_line_that_ends_with_cr_is_parsed_before_the_next_byte_arrives() -> None:
    parser = Parser()

    assert list(parser.feed(b"data: 1\r\r")) == [Event("message", "1", "")]
    assert list(parser.feed(b"\ndata: 2\r\n\r")) == [Event("message", "2", "")]
    assert list(parser.feed(b"\n")) == []
    assert list(parser.feed(b"\ndata: 3\r")) == []
    assert list(parser.feed(b"")) == []
    assert list(parser.feed(b"\n")) == []
    assert list(parser.feed(b"\n")) == [Event("message", "3", "")]


def test_an_id_counts_from_the_end_of_its_block_even_without_data() -> None:
    parser = Parser()

    assert list(parser.feed(b"id: 7-1\n")) == []
    assert parser.last_event_id == ""
    assert list(parser.feed(b"\n")) == []
    assert parser.last_event_id == "7-1"


@pytest.mark.parametrize(
    ("raw", "retry_s"),
    [
        (b"retry: 1500\n", 1.5),
        (b"retry:0\n", 0),
        (b"retry: 007\n", 0.007),
        (b"retry: 1\nretry: 2\n", 0.002),
        (b"retry: 86400000\n", 86_400),
        (b"retry: 86400001\n", 86_400),
        (b"retry: " + b"9" * 400 + b"\n", 86_400),
        (b"retry: " + b"9" * 5000 + b"\n", 86_400),
        (b"retry: " + b"0" * 5000 + b"7\n", 0.007),
        (b"retry: 1500", None),
        (b"retry: 1500\r", 1.5),
        (b"retry:\n", None),
        (b"retry\n", None),
        (b"retry: -5\n", None),
        (b"Retry: 5\n", None),
        (b"nonsense: 5\n", None),
        (b"retry: +5\n", None),
        (b"retry: 1.5\n", None),
        (b"retry: 1e3\n", None),
        (b"retry: 1_000\n", None),
        (b"retry:  5\n", None),
        (b"retry: 5 \n", None),
        ("retry: \u0665\n".encode(), None),
        ("retry: \u00b2\n".encode(), None),
    ],
)
def test_a_reconnection_time_is_digits_only(raw: bytes, retry_s: float | None) -> None:
    parser = Parser()

    assert list(parser.feed(raw)) == []
    assert parser.retry_s == retry_s


def test_a_new_response_keeps_the_last_event_id_and_the_reconnection_time() -> None:
    parser = Parser()
    list(parser.feed(b"retry: 100\nid: 1\ndata: 1\n\nid: 2\nevent: half\ndata: half\xe7\xba"))

    parser.reset()

    assert (parser.last_event_id, parser.retry_s) == ("1", 0.1)
    assert list(parser.feed(b"\xef\xbb\xbfdata: 2\n\n")) == [Event("message", "2", "1")]


# -- following a stream


class Servers:
    """The answers, one per connection, and the requests that they answered."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Body(httpx2.AsyncByteStream):
    """A body of chunks, which may end in an error."""

    def __init__(self, chunks: Sequence[bytes], error: Exception | None) -> None:
        self.chunks = chunks
        self.error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error


def stream_of(*chunks: bytes, error: Exception | None = None) -> httpx2.Response:
    return httpx2.Response(200, headers=MEDIA_TYPE, stream=Body(chunks, error))


async def followed(
    servers: Callable[[httpx2.Request], httpx2.Response], count: int, last_event_id: str = ""
) -> list[Event | StateChange]:
    """Return the first ``count`` events and changes of state."""
    got: list[Event | StateChange] = []
    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(servers)) as client,
        contextlib.aclosing(follow(client, URL, last_event_id)) as following,
    ):
        async for each in following:
            got.append(each)
            if len(got) == count:
                break
    return got


async def test_a_stream_is_followed_from_connecting_to_its_events() -> None:
    servers = Servers(stream_of(b"retry: 0\nid: 1\ndata: a\n\nevent: refresh\ndata: b\n\n"))

    got = await followed(servers, 5)

    assert got == [
        StateChange("CONNECTING"),
        StateChange("OPEN"),
        Event("message", "a", "1"),
        Event("refresh", "b", "1"),
        StateChange("CONNECTING", "the stream has ended; again in 0.0 s"),
    ]
    (request,) = servers.requests
    assert str(request.url) == URL
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["cache-control"] == "no-store"
    assert request.headers["accept-encoding"] == "identity"
    assert "last-event-id" not in request.headers
    assert request.extensions["timeout"] == {"connect": 10, "read": 60, "write": 10, "pool": 10}


async def test_a_stream_that_ended_is_resumed_from_its_last_event_id() -> None:
    servers = Servers(
        stream_of(b"retry: 0\nid: 1\ndata: a\n\nid: 2\ndata: not complete\n"),
        stream_of(b"data: b\n\n"),
        stream_of(b"id\ndata: c\n\n"),
        stream_of(b""),
    )

    got = await followed(servers, 16)

    assert [each for each in got if isinstance(each, Event)] == [
        Event("message", "a", "1"),
        Event("message", "b", "1"),
        Event("message", "c", ""),
    ]
    assert [request.headers.get("last-event-id") for request in servers.requests] == [
        None,
        "1",
        "1",
        None,
    ]


async def test_a_last_event_id_may_be_given() -> None:
    servers = Servers(stream_of(b"data: a\n\n"))

    got = await followed(servers, 3, "7-1")

    assert servers.requests[0].headers["last-event-id"] == "7-1"
    assert got[2] == Event("message", "a", "7-1")


@pytest.mark.parametrize(
    ("last_event_id", "sent"),
    [
        ("线", "线".encode()),
        ("\xa0\u2028", "\xa0\u2028".encode()),
        (" a b\t", b"a b"),
        ("a\tb", b"a\tb"),
        ("\udcff", b"?"),
        ("a\x0bb", None),
        ("a\r\nX: y", None),
        ("\x7f", None),
        (" ", None),
    ],
)
async def test_a_last_event_id_is_sent_as_utf_8_if_a_header_can_hold_it(
    last_event_id: str, sent: bytes | None
) -> None:
    servers = Servers(stream_of(b"data: a\n\n"))

    await followed(servers, 2, last_event_id)

    raw = {name.lower(): value for name, value in servers.requests[0].headers.raw}
    assert raw.get(b"last-event-id") == sent


async def test_the_media_type_may_be_of_any_case() -> None:
    answer = httpx2.Response(
        200, headers={"Content-Type": "Text/Event-Stream"}, stream=Body([b"data: a\n\n"], None)
    )

    assert (await followed(Servers(answer), 3))[2] == Event("message", "a", "")


async def test_an_endless_refusal_is_not_read_to_its_end() -> None:
    chunks = [b"x" * 150, b"y" * 150]
    broken = httpx2.ReadError("read on for too long")
    answer = httpx2.Response(500, stream=Body(chunks, broken))

    with pytest.raises(GaveUp, match=f": {'x' * 150}{'y' * 50}$"):
        await followed(Servers(answer), 2)


async def test_a_server_without_a_reconnection_time_is_tried_again_after_three_seconds() -> None:
    servers = Servers(stream_of(b"data: a\n\n"))

    got = await followed(servers, 4)

    assert got[-1] == StateChange("CONNECTING", "the stream has ended; again in 3.0 s")


async def test_the_client_waits_for_the_reconnection_time() -> None:
    servers = Servers(stream_of(b"retry: 60000\n"))
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(servers)) as client:
        following = follow(client, URL)
        got = [await anext(following) for _ in range(3)]

        reconnected = asyncio.ensure_future(anext(following))
        for _ in range(20):
            await asyncio.sleep(0)
        is_waiting = not reconnected.done()
        reconnected.cancel()
        await asyncio.wait([reconnected])

    assert got[-1] == StateChange("CONNECTING", "the stream has ended; again in 60.0 s")
    assert is_waiting
    assert len(servers.requests) == 1


def chained(said: str, cause: OSError) -> Exception:
    """Return an error as the library raises it: the system's stands below its own."""
    error = httpx2.ConnectError(said)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (httpx2.ConnectError("connection refused"), "connection refused"),
        (httpx2.ConnectTimeout(""), "ConnectTimeout"),
        (chained("All connection attempts failed", OSError(111, "refused")), "refused"),
        (httpx2.RemoteProtocolError("peer closed connection"), "peer closed connection"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_tried_again(error: Exception, why: str) -> None:
    servers = Servers(error)

    got = await followed(servers, 2)

    assert got == [
        StateChange("CONNECTING"),
        StateChange("CONNECTING", f"{why}; again in 3.0 s"),
    ]


async def test_a_stream_that_is_cut_off_is_resumed() -> None:
    cut = httpx2.ReadError("connection reset")
    servers = Servers(
        stream_of(b"retry: 0\nid: 1\nda", b"ta: a\n\ndata: hal", error=cut),
        stream_of(b"data: b\n\n"),
    )

    got = await followed(servers, 7)

    assert got == [
        StateChange("CONNECTING"),
        StateChange("OPEN"),
        Event("message", "a", "1"),
        StateChange("CONNECTING", "connection reset; again in 0.0 s"),
        StateChange("CONNECTING"),
        StateChange("OPEN"),
        Event("message", "b", "1"),
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            httpx2.Response(403, json={"error": "forbidden"}),
            'expected 200 text/event-stream, got 403 application/json: {"error":"forbidden"}',
        ),
        (httpx2.Response(204), "expected 200 text/event-stream, got 204 : "),
        (
            httpx2.Response(503, headers=MEDIA_TYPE, content=b"x" * 1000),
            f"expected 200 text/event-stream, got 503 text/event-stream: {'x' * 200}",
        ),
        (
            httpx2.Response(200, html="<h1>\xe9</h1>"),
            "expected 200 text/event-stream, got 200 text/html: <h1>\xe9</h1>",
        ),
        (
            httpx2.Response(200, headers={"Content-Type": "text/plain"}, content=b"\xff"),
            "expected 200 text/event-stream, got 200 text/plain: \ufffd",
        ),
    ],
)
async def test_an_answer_that_is_no_event_stream_is_final(
    answer: httpx2.Response, error: str
) -> None:
    servers = Servers(answer)

    with pytest.raises(GaveUp) as caught:
        await followed(servers, 2)

    assert str(caught.value) == error
    assert len(servers.requests) == 1
