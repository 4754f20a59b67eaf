"""The checker's own reader of HTTP/1.1 responses."""

from __future__ import annotations

import pytest

from tests.checker.response import Response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (CHUNKED + b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"hello0123456789"),
        (CHUNKED + b"1\r\na\r\n000\r\nTrailer: x\r\n\r\n", b"a"),
        (b"HTTP/1.1 200\r\ncontent-length:  5 \r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_a_response_is_read_however_it_is_cut_into_pieces(
    answer: bytes, body: bytes, size: int
) -> None:
    response = Response()

    read = b"".join(response.feed(answer[at : at + size]) for at in range(0, len(answer), size))

    assert (read, response.is_complete) == (body, True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    response = Response()

    assert response.feed(b"HTTP/1.0 200 OK\r\nA: b\r\na: c\r\n\r\nhello") == b"hello"
    assert (response.is_complete, response.fields) == (False, {"a": "b, c"})
    response.close()
    assert response.is_complete


@pytest.mark.parametrize("answer", [CHUNKED[:-4], CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello"])
def test_a_response_that_is_cut_is_not_complete(answer: bytes) -> None:
    response = Response()

    response.feed(answer)
    response.close()

    assert not response.is_complete


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nspace : before\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"5\r\nhello\nA",
        CHUNKED + b"\r\n",
        CHUNKED + b"-5\r\n",
        pytest.param(CHUNKED + b"x" * 5000, id="a size without an end"),
        CHUNKED + b"0\r\n\r\nmore",
        pytest.param(b"x" * 70_000, id="a head without an end"),
    ],
)
def test_bytes_that_are_no_response_are_named(answer: bytes) -> None:
    response = Response()

    response.feed(answer)

    assert response.flaw.startswith("expected")


def test_the_body_before_a_flaw_is_read() -> None:
    response = Response()

    assert response.feed(CHUNKED + b"5\r\nhello\r\n2\r\nhi and more") == b"hellohi"
    assert (response.flaw, response.is_complete) != ("", True)
    assert response.feed(b"5\r\nhello\r\n") == b""
