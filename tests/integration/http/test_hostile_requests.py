"""Hostile requests: bytes that are not HTTP, or whose end is in doubt."""

from __future__ import annotations

import contextlib
import functools

import httpx2
import pytest

from tests.harness.processes import open_fds
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.waiting import SECOND, wait_for
from tests.harness.wire import Wire, well_formed
from tests.integration.http.requests import (
    BODY,
    CHUNKED,
    LENGTH,
    NOT_HTTP,
    asked,
    commands,
    listen,
    outcome,
    request_of,
)

# -- what is no HTTP: smuggling shapes, straight to the service


SMUGGLED: dict[str, tuple[list[str | bytes], bytes]] = {
    "both lengths": ([LENGTH, "Transfer-Encoding: chunked"], CHUNKED),
    "both lengths, turned": (["Transfer-Encoding: chunked", LENGTH], CHUNKED),
    "two lengths": ([LENGTH, "Content-Length: 1"], BODY),
    "the length twice": ([LENGTH, LENGTH], BODY),
    "a list of lengths": (["Content-Length: 26, 26"], BODY),
    "a negative length": (["Content-Length: -1"], BODY),
    "a length with plus": (["Content-Length: +26"], BODY),
    "a hexadecimal length": (["Content-Length: 0x1a"], BODY),
    "a length past 64 bits": (["Content-Length: 18446744073709551642"], BODY),
    "a length with a space": (["Content-Length: 2 6"], BODY),
    "an empty length": (["Content-Length:"], BODY),
    "a space before the colon": (["Content-Length : 26"], BODY),
    "obs-fold": (["X-Any: a", " b", LENGTH], BODY),
    "obs-fold of a tab": (["X-Any: a", "\tb", LENGTH], BODY),
    "a folded encoding": (["Transfer-Encoding:", " chunked"], CHUNKED),
    "chunked is not last": (["Transfer-Encoding: chunked, gzip"], CHUNKED),
    "chunked twice": (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], CHUNKED),
    "chunked in a list twice": (["Transfer-Encoding: chunked, chunked"], CHUNKED),
    "an unknown encoding": (["Transfer-Encoding: xchunked"], CHUNKED),
    "identity": (["Transfer-Encoding: identity"], BODY),
    "a space before that colon": (["Transfer-Encoding : chunked"], CHUNKED),
    "a bare LF": ([b"X-Any: a\nTransfer-Encoding: chunked"], CHUNKED),
    "a bare CR": ([b"X-Any: a\rTransfer-Encoding: chunked"], CHUNKED),
    "a NUL": ([b"X-Any: a\0b", LENGTH], BODY),
    "no colon": (["X-Any", LENGTH], BODY),
    "no name": ([": a", LENGTH], BODY),
    "a size that is none": (["Transfer-Encoding: chunked"], b"zz\r\n" + CHUNKED),
    "a negative size": (["Transfer-Encoding: chunked"], b"-1a" + CHUNKED[2:]),
    "a size with 0x": (["Transfer-Encoding: chunked"], b"0x" + CHUNKED),
    "a size past 64 bits": (["Transfer-Encoding: chunked"], b"1" + b"0" * 15 + CHUNKED),
    "a size too small": (["Transfer-Encoding: chunked"], b"19" + CHUNKED[2:]),
    "sizes that end with LF": (["Transfer-Encoding: chunked"], CHUNKED.replace(b"\r", b"")),
    "a trailer that frames": (
        ["Transfer-Encoding: chunked"],
        CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_whose_end_is_in_doubt_is_refused_and_its_connection_closed(
    watched: Redis, target: Service, name: str
) -> None:
    lines, body = SMUGGLED[name]
    head = ("POST /notify HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}")
    hidden = request_of("GET /healthz HTTP/1.1", "Host: test")

    with commands(watched) as sent, Wire(target.port) as wire:
        with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
            wire.send(request_of(*head, *lines, body=body) + hidden)
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed(), "what followed is not looked at"

    assert sent == []


NO_REQUESTS = {
    "nonsense": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method of nobody": b"REFRESH /events HTTP/1.1\r\nHost: test\r\n\r\n",
    "CONNECT": b"CONNECT evil.test:80 HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with NUL": b"GET /events\0 HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n",
    "a query of bytes": b"GET /events?merchant_id=\xff HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with a space": b"GET /eve nts HTTP/1.1\r\nHost: test\r\n\r\n",
    "a version of its own": b"GET /healthz HTTP/9.9\r\nHost: test\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_bytes_that_are_not_http_are_refused_and_the_connection_is_closed(
    target: Service, name: str
) -> None:
    with Wire(target.port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(NO_REQUESTS[name])
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed()


@pytest.mark.parametrize("is_in_path", [False, True], ids=["header", "path"])
def test_a_head_that_is_too_large_is_refused_and_the_connection_is_closed(
    target: Service, *, is_in_path: bool
) -> None:
    much = "1-" + "9" * 60_000
    query = f"merchant_id=42&last_event_id={much}" if is_in_path else "merchant_id=42"
    with Wire(target.port, listen(query, f"Last-Event-ID: {'' if is_in_path else much}")) as wire:
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == (431, "headers_too_large")
        assert wire.is_closed()


ODD = {
    "a host that is a path": ("GET /healthz HTTP/1.1", "Host: evil/notify?", 200),
    "a path that is an address": ("GET http://evil/healthz HTTP/1.1", "Host: test", 200),
    "another method": ("TRACE /events HTTP/1.1", "Host: test", 405),
    "a path twice": ("GET //events?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with dots": ("GET /x/../events?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with a slash": ("GET /events/?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "an escaped slash": ("GET /%2fevents?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with an escaped NUL": ("GET /events%00 HTTP/1.1", "Host: test", 404),
    "an escaped line feed": ("GET /metrics%0a HTTP/1.1", "Host: test", 404),
    "an escaped line feed behind /events": ("GET /events%0a HTTP/1.1", "Host: test", 404),
    "an escaped line feed behind /notify": ("POST /notify%0A HTTP/1.1", "Host: test", 404),
    "an escaped tab": ("GET /healthz%09 HTTP/1.1", "Host: test", 404),
    "an escaped letter with an accent": ("GET /h%C3%A9althz HTTP/1.1", "Host: test", 404),
    "an escaped query": ("GET /events%3Fmerchant_id=42 HTTP/1.1", "Host: test", 404),
    "a star": ("OPTIONS * HTTP/1.1", "Host: test", 404),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_answered_for_its_path(target: Service, name: str) -> None:
    request_line, host, status = ODD[name]

    assert asked(target, request_of(request_line, host)).status == status


FURTHER = {
    "a request": b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n",
    "another stream": b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: test\r\n\r\n",
    "half a request": b"POST /notify HTTP/1.1\r\nContent-Le",
    "no request": b"\0\r\n\r\n",
}


@pytest.mark.parametrize("is_later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("name", FURTHER)
def test_bytes_behind_the_request_for_a_stream_change_nothing(
    target: Service,
    publisher_of_target: httpx2.Client,
    merchant: str,
    name: str,
    *,
    is_later: bool,
) -> None:
    """The end of the connection once reached the next request only, and the worker died."""
    publisher_of_target.post("/notify", json={"merchant_id": merchant})
    before = open_fds(target.worker)
    request = listen(f"merchant_id={merchant}")
    with Wire(target.port, request) as quiet:
        assert quiet.answer() is not None
        quiet.events(merchant)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                first = request if is_later else request + FURTHER[name]
                wire = stack.enter_context(Wire(target.port, first))
                answer = wire.answer()
                if name == "no request" and not is_later:
                    # The parser has seen it before the application has seen the request.
                    assert answer is None or answer.status in {200, 400}
                    continue
                assert answer is not None
                assert answer.headers["connection"] == "close"
                wire.events(merchant)
                if is_later:
                    wire.send(FURTHER[name])
                publisher_of_target.post("/notify", json={"merchant_id": merchant})
                wire.events(merchant, count=2)
        # Sooner than by a heartbeat, the first thing that would be written to them.
        gone = functools.partial(has_at_most, target.worker, before + 1)
        wait_for(gone, "the end of all but one", 5 * SECOND)
        for _ in range(3):
            told = publisher_of_target.post("/notify", json={"merchant_id": merchant}).json()
            quiet.refresh(merchant, told["id"])


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/nowhere", "/openapi.json"])
def test_a_client_of_http_1_0_gets_any_other_answer_up_to_the_end_of_its_connection(
    target: Service, path: str
) -> None:
    request = request_of(
        f"GET {path} HTTP/1.0", "Connection: keep-alive", "Expect: 100-continue", "Upgrade: h2c"
    )
    with Wire(target.port, request + FURTHER["a request"]) as wire:
        answer = wire.answer()
        assert answer is not None
        assert answer.status in {200, 404}
        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers
        assert wire.is_closed(), "what followed is not looked at"


def has_at_most(pid: int, files: int) -> bool:
    return open_fds(pid) <= files


def test_a_client_of_http_1_0_that_sends_a_second_request_and_leaves_is_noticed(
    target: Service, publisher_of_target: httpx2.Client, merchant: str
) -> None:
    """A client of HTTP/1.0 gets its event stream in the portable way."""
    publisher_of_target.post("/notify", json={"merchant_id": merchant})
    before = open_fds(target.worker)
    request = f"GET /events?merchant_id={merchant} HTTP/1.0\r\n\r\n".encode()
    with Wire(target.port, request + FURTHER["a request"]) as wire:
        got = b""
        while b"event: refresh" not in got or not got.endswith(b"\n\n"):
            got += wire.socket.recv(1 << 16)
    head, _, body = got.partition(b"\r\n\r\n")

    assert head.count(b"connection:") == 1
    assert b"\r\nconnection: close" in head
    assert b"transfer-encoding" not in head
    assert b"\r\nx-sse-push-unchunked: 1" in head
    assert [event.type for event in well_formed(body, merchant)] == ["ready", "refresh"]
    gone = functools.partial(has_at_most, target.worker, before)
    wait_for(gone, "its end", 5 * SECOND)


def test_methods_that_are_allowed_are_named_in_one_order(target: Service) -> None:
    request = listen("", method="DELETE")

    assert asked(target, request).headers["allow"] == "GET, HEAD"
