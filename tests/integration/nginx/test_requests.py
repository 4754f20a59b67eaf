"""Malformed requests, requests in requests, errors in one form, security headers."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from tests.harness.http2 import Http2
from tests.harness.nginx import (
    CHUNKS,
    ERRORS,
    EVENTS,
    SPOOFED,
    Nginx,
    Recorder,
    ask,
    fields,
    line,
    recording,
    replace,
    replacing,
    yes,
)
from tests.harness.waiting import SECOND, free_port, until

pytestmark = pytest.mark.nginx


# -- requests that are two, or none


SECOND_REQUEST = b"GET /events?merchant_id=second HTTP/1.1\r\nHost: x\r\n\r\n"

MALFORMED = {
    "both lengths": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
    "both lengths, the other way": (
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        CHUNKS,
    ),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: 55\r\n", b""),
    "the same length twice": (b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
    "a list of lengths": (b"Content-Length: 2, 2\r\n", b"{}"),
    "a negative length": (b"Content-Length: -1\r\n", b""),
    "a length with a sign": (b"Content-Length: +2\r\n", b"{}"),
    "a hexadecimal length": (b"Content-Length: 0x2\r\n", b"{}"),
    "a length past 64 bits": (b"Content-Length: 99999999999999999999\r\n", b"{}"),
    "a folded header": (b"X: a\r\n Content-Length: 5\r\n", b""),
    "a folded encoding": (b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 2\r\n", b"{}"),
    "chunked is not last": (b"Transfer-Encoding: chunked, identity\r\n", CHUNKS),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked\r\n", CHUNKS),
    "two encodings": (
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        CHUNKS,
    ),
    "nearly chunked": (b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "chunked after a vertical tab": (b"Transfer-Encoding:\x0bchunked\r\n", CHUNKS),
    "a space before the colon": (b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "a bare CR": (b"X: a\rTransfer-Encoding: chunked\r\n", CHUNKS),
    "NUL": (b"X: a\x00b\r\n", b""),
    "no colon": (b"Content-Length\r\n", b""),
    "a chunk that is no number": (b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk below zero": (b"Transfer-Encoding: chunked\r\n", b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk past 64 bits": (
        b"Transfer-Encoding: chunked\r\n",
        b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    ),
    "a chunk without its end": (b"Transfer-Encoding: chunked\r\n", b"2\r\n{}0\r\n\r\n"),
    "two hosts": (b"Host: y\r\n", b""),
}


@pytest.mark.parametrize("shape", MALFORMED)
@pytest.mark.parametrize("door", ["POST /notify", "GET /events"])
async def test_a_malformed_request_is_refused_and_nothing_follows_it(
    plain: tuple[Recorder, Nginx], door: str, shape: str
) -> None:
    service, nginx = plain
    headers, rest = MALFORMED[shape]
    port = nginx.port if "events" in door else nginx.internal_port
    request = f"{door} HTTP/1.1\r\nHost: x\r\n".encode() + headers + b"\r\n" + rest

    status, answered, body = await ask(port, request + SECOND_REQUEST)

    assert status in (400, 501)
    assert answered["connection"] == "close"
    assert len(body) == int(answered["content-length"]), "one answer, and no second one"
    assert service.requests == []
    if shape.startswith("a chunk ") and door == "GET /events":
        return  # nginx gives its own page when a body that it only skips is malformed
    assert answered["content-type"] == "application/json"
    assert json.loads(body)["error"] in ("malformed", "unsupported")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: %d\r\n" % len(SECOND_REQUEST), SECOND_REQUEST),
        (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n"),
        (b"Content_Length: 0\r\nContent-Length: %d\r\n" % len(SECOND_REQUEST), SECOND_REQUEST),
    ],
)
async def test_a_request_in_a_body_stays_a_body(
    plain: tuple[Recorder, Nginx], headers: bytes, body: bytes
) -> None:
    service, nginx = plain
    if b"%" in body:
        body %= (len(SECOND_REQUEST), SECOND_REQUEST)
    request = (
        b"POST /notify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n" + body
    )
    status, _, _ = await ask(nginx.internal_port, request)

    assert status == 200
    (only,) = service.requests
    assert only.startswith("POST /notify ")
    assert fields(only)["content-length"] == str(len(SECOND_REQUEST))
    assert "transfer-encoding" not in fields(only)


async def test_a_body_of_a_get_does_not_reach_the_service(plain: tuple[Recorder, Nginx]) -> None:
    service, nginx = plain
    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(SECOND_REQUEST)
    request = b"GET /events HTTP/1.1\r\nHost: x\r\n" + length + SECOND_REQUEST
    status, _, _ = await ask(nginx.port, request)

    assert status == 200
    (only,) = service.requests
    assert "content-length" not in fields(only)
    assert "transfer-encoding" not in fields(only)


@pytest.mark.parametrize("length", [b"Content-Length: 1025", b"Transfer-Encoding: chunked"])
async def test_a_get_with_a_large_body_or_an_endless_one_is_refused(
    plain: tuple[Recorder, Nginx], length: bytes
) -> None:
    service, nginx = plain
    head = b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n" % length
    status, _, body = await ask(nginx.port, head + b"401\r\n" + b"x" * 1025 + b"\r\n0\r\n\r\n")

    assert status == (413 if b"Content" in length else 400)
    assert json.loads(body)["detail"] == "expected a request without a body"
    assert service.requests == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("transfer-encoding", "chunked")], SECOND_REQUEST),
        ([("content-length", "0")], SECOND_REQUEST),
        ([("content-length", "5"), ("content-length", "6")], b"hello"),
        ([("x", "a\r\nTransfer-Encoding: chunked")], SECOND_REQUEST),
        ([("x\r\nTransfer-Encoding", "chunked")], SECOND_REQUEST),
        ([("x: a\r\nx-merchant-id", "7")], b""),
        ([("x", "a\x00b")], b""),
        ([(":path", "/events?merchant_id=second")], b""),
    ],
)
async def test_a_header_that_only_http2_can_hold_makes_no_second_request(
    tls: tuple[Recorder, Nginx], headers: list[tuple[str, str]], body: bytes
) -> None:
    service, nginx = tls
    async with Http2.connect(nginx) as http2:
        number = http2.ask("GET", "/events?merchant_id=first", *headers, body=body)
        await until(lambda: number in http2.ended or http2.is_leaving, "its end")

    assert http2.statuses.get(number, 400) in (400, 413)
    assert service.requests == []


# -- errors and headers


SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

HSTS = "max-age=31536000"


@pytest.mark.parametrize("status", ERRORS)
async def test_an_error_of_nginx_has_the_form_of_the_services_own(
    recorded: tuple[Recorder, str], tmp_path: Path, status: int
) -> None:
    code, request = ERRORS[status]
    closed = {"allow 127.0.0.1;": ""} if status == 403 else {}
    with Nginx.start(tmp_path / "nginx", recorded[1], adapt=replacing(closed)) as nginx:
        port = nginx.internal_port if b"/notify" in request else nginx.port
        got, headers, body = await ask(port, request)
        await until(lambda: nginx.access_log.count("\n") == 1, "a line")

    assert got == status
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "nginx"
    assert sorted(json.loads(body)) == ["detail", "error"]
    assert json.loads(body)["error"] == code
    assert json.loads(body)["detail"].startswith(("expected ", "no such path"))
    assert recorded[0].requests == []
    method = request.split(b" ")[0].decode()
    is_parsed = status not in (414, 505)
    assert json.loads(nginx.access_log)["method"] in ([method] if is_parsed else [method, "-"])


@pytest.mark.parametrize("is_tls", [False, True])
async def test_every_answer_has_the_security_headers_once(
    recorded: tuple[Recorder, str], tmp_path: Path, *, is_tls: bool
) -> None:
    recorder, upstream = recorded
    named = [*SECURITY, "strict-transport-security"]
    own = "".join(f"{name}: of-the-service\r\n" for name in named)
    recorder.answer = f"HTTP/1.1 200 OK\r\n{own}Content-Length: 2\r\n\r\n{{}}".encode()
    with Nginx.start(tmp_path / "nginx", upstream, tls=is_tls) as nginx:
        trust = nginx.trust() if is_tls else None
        public = [
            EVENTS % b"text/event-stream",
            line("POST /events", "Content-Length: 0"),
            line("GET /events", "Content-Length: 2000") + b"x" * 2000,
            line("GET /events", "Transfer-Encoding: chunked") + CHUNKS,
            *(request for status, (_, request) in ERRORS.items() if status not in (403, 413)),
        ]
        answers = [await ask(nginx.port, request, trust) for request in public]
        internal = [line("POST /notify"), line("GET /healthz"), ERRORS[413][1], line("GET /x")]
        inside = [await ask(nginx.internal_port, request) for request in internal]
        recorder.answer = b""
        outage = [EVENTS % b"text/event-stream", EVENTS % b"application/json"]
        answers += [await ask(nginx.port, request, trust) for request in outage]
        outage_inside = [line("POST /notify"), line("GET /metrics")]
        inside += [await ask(nginx.internal_port, request) for request in outage_inside]

    assert [status for status, _, _ in answers] == [
        *(200, 405, 413, 400, 400, 404, 405, 414, 431, 501, 505),
        *(200, 503),
    ]
    assert [status for status, _, _ in inside] == [200, 200, 413, 404, 503, 503]
    for _, headers, body in answers + inside:
        assert {name: headers.get(name) for name in SECURITY} == SECURITY, body
    assert {headers.get("strict-transport-security") for _, headers, _ in answers} == {
        HSTS if is_tls else None
    }
    assert {headers.get("strict-transport-security") for _, headers, _ in inside} == {None}


# -- a request for somebody else


OWN = ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:8080", "127.0.0.1:8080"]
STRANGE = ["evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.2", "_"]


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_request_for_a_name_of_somebody_else_gets_no_answer(
    recorded: tuple[Recorder, str], tmp_path: Path, *, is_tls: bool
) -> None:
    """A page of evil.test may have that name lead here; only Host shows it."""
    recorder, upstream = recorded
    with Nginx.start(tmp_path / "nginx", upstream, tls=is_tls) as nginx:
        trust = nginx.trust() if is_tls else None
        doors = [(nginx.port, "/events", trust), (nginx.internal_port, "/metrics", None)]
        for port, path, trusted in doors:
            for host in OWN:
                assert (await ask(port, to(host, path), trusted))[0] == 200, host
            for host in STRANGE:
                assert await answer(port, to(host, path), trusted) == b"", host
            absolute = to("localhost", f"http://evil.test{path}")
            assert await answer(port, absolute, trusted) == b"", "a name in the request line counts"
        without_host = b"GET %s HTTP/1.0\r\n\r\n"
        assert await answer(nginx.port, without_host % b"/events", trust) == b""
        assert (await ask(nginx.internal_port, without_host % b"/readyz"))[0] == 200

    assert {fields(request).get("host") for request in recorder.requests} == {*OWN, None}


def to(host: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


async def answer(port: int, request: bytes, trust: ssl.SSLContext | None) -> bytes:
    """Return all that nginx sends before it closes or resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    try:
        writer.write(request)
        async with asyncio.timeout(5 * SECOND):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


SHAPES = ["{}%0a", "{}%00", "{}%20", "{}/", "{};x", "{}%3f", "{}.", "{}%E9", "/events{}", "{}{}"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_path_that_is_nearly_one_of_ours_reaches_no_service(
    plain: tuple[Recorder, Nginx], shape: str
) -> None:
    """A path is found by all of its characters, as in the service."""
    service, nginx = plain
    for path in ("/events", "/notify", "/revoke", "/healthz", "/readyz", "/metrics"):
        port = nginx.port if path == "/events" else nginx.internal_port
        assert (await ask(port, line(f"GET {shape.replace('{}', path)}")))[0] in (400, 404)

    assert service.requests == []


# -- a site of one's own


OWN_SITE = """
error_log stderr warn;
pid run.pid;
events { worker_connections 64; }
http {
    client_body_temp_path own; proxy_temp_path own; fastcgi_temp_path own;
    uwsgi_temp_path own; scgi_temp_path own;
    include conf.d/sse-push.conf;
    access_log /dev/stdout sse_push;
    server {
        listen 8080;
        proxy_set_header X-Of-The-Site 1;
        add_header X-Of-The-Site 1;
        include snippets/events.conf;
        include snippets/soft-answers.conf;
        location / { return 200 "the site"; }
    }
}
"""


@pytest.mark.parametrize("is_asked", [False, True])
async def test_an_nginx_conf_of_an_operator_gives_the_same_answers(
    recorded: tuple[Recorder, str], tmp_path: Path, *, is_asked: bool
) -> None:
    """As conf.d/sse-push.conf says: three lines in an nginx.conf that is there already."""
    recorder, upstream = recorded
    events = "events-auth-request.conf" if is_asked else "events.conf"
    request = line("GET /events", "Accept: */*")[:-2] + SPOOFED + b"\r\n"
    port = free_port()
    async with recording() as (backend, address):
        backend.answer = yes("X-Merchant-Id: 42")

        def adapt(folder: Path) -> None:
            main_file = folder / "nginx.conf"
            main_file.write_text(OWN_SITE.replace("events.conf", events).replace("8080", str(port)))
            replace(folder, "127.0.0.1:9000", address)

        with Nginx.start(tmp_path / "nginx", upstream, adapt, port) as nginx:
            served = await ask(nginx.port, request)
            recorder.answer = b""
            soft = await ask(nginx.port, request)
            backend.answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
            refused = await ask(nginx.port, request)
            _, _, site = await ask(nginx.port, line("GET /"))

    assert (served[0], soft[0], site) == (200, 200, b"the site")
    assert soft[1]["x-sse-push-soft-answer"] == "1"
    if is_asked:
        assert (refused[0], json.loads(refused[2])["error"]) == (403, "forbidden")
    for _, headers, _ in (served, soft, refused):
        assert {name: headers.get(name) for name in SECURITY} == SECURITY
    told = fields(recorder.requests[0])
    assert told.get("x-merchant-id") == ("42" if is_asked else None)
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert "x-of-the-site" not in told
