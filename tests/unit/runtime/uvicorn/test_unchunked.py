"""Answers to HTTP/1.0; over real sockets: ``tests/integration/http/test_hostile_requests.py``."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from tests.unit.runtime.uvicorn.connection import Connection, answer_ok

HEAD = b"HTTP/1.1 200 OK\r\n"
MARKED = HEAD + b"x-sse-push-unchunked: 1\r\n"


async def in_parts(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer by a body whose length is not known before its end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


@pytest.mark.parametrize("version", [b"1.0", b"0.9"])
async def test_a_body_of_unknown_length_ends_with_its_connection(version: bytes) -> None:
    connection = Connection(in_parts)
    kept = b"Connection: keep-alive\r\n"

    written = await connection.feed(b"GET / HTTP/%b\r\n%b\r\n" % (version, kept))

    assert written == MARKED + b"connection: close\r\n\r\none two"
    assert connection.transport.ended_by == ["close"]


async def test_a_client_of_http_1_1_gets_chunks() -> None:
    written = await Connection(in_parts).feed(b"GET / HTTP/1.1\r\n\r\n")

    assert written == HEAD + (
        b"transfer-encoding: chunked\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
    )


async def test_a_length_that_the_application_gives_is_sent() -> None:
    written = await Connection(answer_ok).feed(b"GET / HTTP/1.0\r\n\r\n")

    assert written == MARKED + b"content-length: 2\r\nconnection: close\r\n\r\nok"


async def test_head_has_no_body() -> None:
    written = await Connection(in_parts).feed(b"HEAD / HTTP/1.0\r\n\r\n")

    assert written == MARKED + b"connection: close\r\n\r\n"


async def test_a_client_that_does_not_know_100_continue_does_not_get_it() -> None:
    request = b"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    connection = Connection(answer_ok)

    assert await connection.feed(request) == b""
    assert (await connection.feed(b"x")).endswith(b"ok")
