"""A wish to upgrade, and what the parser is told instead; by sockets: ``http/test_upgrades``."""

from __future__ import annotations

import httptools
import pytest

from sse_push.runtime.uvicorn.upgrades import feed


class Parsed:
    """Notes what a parser finds."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.body = b""

    def on_message_begin(self) -> None:
        self.url, self.headers, self.body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self.whole.append((self.parser.get_method(), self.url, self.headers, self.body))


@pytest.mark.parametrize(
    ("connection", "left"),
    [(b"Upgrade", b""), (b"UPGRADE, HTTP2-Settings", b" HTTP2-Settings"), (b"a,upgrade,b", b"a,b")],
)
def test_a_request_is_as_it_was_without_its_wish(connection: bytes, left: bytes) -> None:
    parsed = Parsed()

    feed(
        parsed,
        b"PUT /a?b=c HTTP/1.1\r\nHost: t\r\nUpgrade: x\r\nX-Any:  1, 2\r\nConnection: %b\r\n"
        b"Content-Length: 2\r\n\r\nokGET /next HTTP/1.1\r\n\r\n" % connection,
    )

    assert parsed.whole == [
        (
            b"PUT",
            b"/a?b=c",
            [
                (b"host", b"t"),
                (b"x-any", b"1, 2"),
                (b"connection", left.strip()),
                (b"content-length", b"2"),
            ],
            b"ok",
        ),
        (b"GET", b"/next", [], b""),
    ]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_version_is_kept(version: str) -> None:
    parsed = Parsed()

    feed(parsed, b"GET / HTTP/%b\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" % version.encode())

    assert parsed.parser.get_http_version() == version
    assert len(parsed.whole) == 1


def test_what_is_not_http_is_an_error_behind_a_wish_as_well() -> None:
    with pytest.raises(httptools.HttpParserError):
        feed(Parsed(), b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nnonsense\r\n")
