"""Requests that wish to speak another protocol than HTTP/1.1: read as if they did not.

Knows httptools' parser, which stops behind the head of such a request, and would take the body for
another request. Does not know what is requested, nor the limits of a request.

https://www.rfc-editor.org/rfc/rfc9110#section-7.8
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import httptools


class Parsed(Protocol):
    """What a parser calls, as far as it has come in a request."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]
    """With names in lower case."""


def feed(parsed: Parsed, data: bytes) -> None:
    """Parse bytes; the head of a request that wishes to upgrade is parsed twice.

    The second time it has no ``Upgrade``. While ``parser.should_upgrade()`` says that it is the
    first time, the end of the head and of the message mean nothing.

    Raises:
        httptools.HttpParserError: the bytes are not HTTP/1.1.
    """
    while data:
        try:
            parsed.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            data = _head_without_upgrade(parsed) + data[exc.args[0] :]
            parsed.parser = httptools.HttpRequestParser(parsed)
            # As uvicorn has it: requests behind one that closes the connection are no error.
            parsed.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        else:
            return


def _head_without_upgrade(parsed: Parsed) -> bytes:
    line = b"%s %s HTTP/%s\r\n" % (
        parsed.parser.get_method(),
        parsed.url,
        parsed.parser.get_http_version().encode(),
    )
    return line + b"".join(b"%s: %s\r\n" % each for each in _kept(parsed.headers)) + b"\r\n"


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name == b"connection":
            options = (each for each in value.split(b",") if each.strip().lower() != b"upgrade")
            yield name, b",".join(options)
        elif name != b"upgrade":
            yield name, value
