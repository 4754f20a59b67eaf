"""Requests that wish for another protocol: the wish is ignored, and the body stays a body.

https://www.rfc-editor.org/rfc/rfc9110#section-7.8
"""

from __future__ import annotations

import pytest

from sse_push.http import paths
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.wire import Wire
from tests.integration.http.requests import BODY, NOT_HTTP, commands, outcome, post, request_of

WISH = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
"""What Java's HttpClient sends with a first request over HTTP, and ``curl --http2``."""

LAST = request_of("GET /healthz HTTP/1.1", "Host: test", "Connection: close")

PATHS = [value for name, value in vars(paths).items() if name.isupper()]


def pieces(request: bytes, cut: str) -> list[bytes]:
    """Return a request in the segments in which it arrives."""
    head, _, body = request.partition(b"\r\n\r\n")
    return {
        "at once": [request],
        "body later": [head + b"\r\n\r\n", body],
        "within the body": [request[:-5], request[-5:]],
        "byte by byte": [bytes([byte]) for byte in request],
    }[cut]


CUTS = ("at once", "body later", "within the body", "byte by byte")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", [*PATHS, "/other"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS", "DELETE"])
def test_a_body_behind_a_wish_to_upgrade_is_never_a_request(
    watched: Redis, target: Service, method: str, path: str, cut: str
) -> None:
    hidden = post(BODY)
    length = f"Content-Length: {len(hidden)}"
    head = (f"{method} {path} HTTP/1.1", "Host: test", *WISH, length)

    with commands(watched) as sent, Wire(target.port) as wire:
        for piece in pieces(request_of(*head, body=hidden), cut):
            wire.send(piece)
        first = wire.answer()
        assert first is not None
        if "close" not in first.headers.get("connection", ""):
            wire.send(LAST)
            last = wire.answer()
            assert last is not None
            assert (last.status, last.body) == (200, b'{"alive":true}')
        assert wire.is_closed(), "there is no third answer"

    assert [each for each in sent if "XADD" in each] == []


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("wish", [WISH, ("Connection: upgrade", "Upgrade: websocket")])
def test_a_notification_with_a_wish_to_upgrade_is_stored_once(
    watched: Redis, target: Service, wish: tuple[str, ...], cut: str
) -> None:
    key = f"Authorization: Bearer {KEY}"
    head = ("POST /notify HTTP/1.1", "Host: test", key, *wish, f"Content-Length: {len(BODY)}")

    with commands(watched) as sent, Wire(target.port) as wire:
        for piece in pieces(request_of(*head, body=BODY), cut):
            wire.send(piece)
        answer = wire.answer()

    assert answer is not None
    assert answer.status == 200
    assert len([each for each in sent if "XADD" in each]) == 1


def test_requests_behind_one_without_a_body_are_answered_each(target: Service) -> None:
    wishing = request_of("GET /healthz HTTP/1.1", "Host: test", *WISH)

    with Wire(target.port, wishing * 60 + LAST) as wire:
        answers = [wire.answer() for _ in range(61)]

    assert [answer.status for answer in answers if answer is not None] == [200] * 61


def test_a_tunnel_is_refused(watched: Redis, target: Service) -> None:
    with commands(watched) as sent, Wire(target.port) as wire:
        wire.send(request_of("CONNECT /notify HTTP/1.1", "Host: test") + post(BODY))
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed()

    assert [each for each in sent if "XADD" in each] == []
