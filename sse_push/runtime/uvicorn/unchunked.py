"""Answers to clients that know no chunks (HTTP/1.0): a body ends where its connection ends.

Knows the inside of uvicorn's request cycle, which writes chunks to every client. Does not know what
is answered.

A header marks each such answer: a proxy that asks in this way answers its own clients in chunks,
and nothing else would show it.

https://www.rfc-editor.org/rfc/rfc9112#section-6.3
"""

from __future__ import annotations

from typing import Self

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

UNCHUNKED_HEADER = "X-Sse-Push-Unchunked"
"""Marks an answer whose end can't be told from a cut, for ``sse-push doctor``."""


def write_no_chunks(cycle: RequestResponseCycle) -> None:
    """Let a cycle write bodies as they are, and close the connection behind its answer.

    Called before the application sees the request. A ``Content-Length`` of the application is sent,
    and not compared with the body.
    """
    cycle.default_headers = [*cycle.default_headers, _MARK]
    cycle.chunked_encoding = False
    cycle.expected_content_length = _Unknown()
    cycle.keep_alive = False
    cycle.waiting_for_100_continue = False  # such a client does not know that answer either


_MARK = (UNCHUNKED_HEADER.lower().encode(), b"1")


class _Unknown(int):
    """The length of a body before its end: no body is longer, and none is shorter."""

    def __lt__(self, _size: int) -> bool:
        return False

    def __sub__(self, _size: int) -> Self:
        return self
