"""Who may ask what: the internal server, forged headers, the backend that is asked, logs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sse_push.notification import EventId
from tests.harness.nginx import (
    EVENTS,
    OPEN,
    OUTSIDER,
    SPOOFED,
    Nginx,
    Recorder,
    ask,
    fields,
    recording,
    replacing,
    yes,
)
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, until

pytestmark = pytest.mark.nginx


# -- the public and the internal server


BEARER = {"Authorization": f"Bearer {KEY}"}


async def test_a_notification_from_this_machine_passes(
    nginx: Nginx, backend: Publisher, merchant: str
) -> None:
    assert EventId.parse(await backend.notify(merchant))
    async with nginx.client(internal=True) as client:
        refused = await client.post("/notify", json={"merchant_id": merchant})
        too_large = await client.post("/notify", content=b" " * (1024 * 1024 + 1), headers=BEARER)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert too_large.status_code == 413
    assert too_large.json() == {
        "error": "too_large",
        "detail": "expected a body of at most 1 MiB",
    }


INTERNAL = ["/notify", "/revoke", "/healthz", "/readyz", "/metrics"]


def forged(path: str) -> tuple[str, str, dict[str, str]]:
    """Return a request that says it comes from here, and has the key."""
    method = "POST" if path in ("/notify", "/revoke") else "GET"
    headers = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", **BEARER}
    return method, path, headers | {"Forwarded": "for=127.0.0.1", "Host": "127.0.0.1:8081"}


@pytest.mark.parametrize("path", INTERNAL)
@pytest.mark.parametrize("source", ["127.0.0.1", OUTSIDER])
async def test_internal_paths_are_not_on_the_public_server(
    plain: tuple[Recorder, Nginx], path: str, source: str
) -> None:
    service, nginx = plain
    method, path, headers = forged(path)
    async with nginx.client(source) as client:
        for spelled in (path, f"/{path}", f"/events/..{path}", f"/%{ord(path[1]):x}{path[2:]}"):
            answer = await client.request(method, spelled, json={}, headers=headers)

            assert answer.status_code == 404, spelled
            assert answer.json() == {"error": "not_found", "detail": "no such path"}
    assert service.requests == []


@pytest.mark.parametrize("path", INTERNAL)
async def test_the_internal_server_refuses_another_address(
    plain: tuple[Recorder, Nginx], path: str
) -> None:
    service, nginx = plain
    method, path, headers = forged(path)
    async with nginx.client(OUTSIDER, internal=True) as client:
        refused = await client.request(method, path, json={}, headers=headers)
    async with nginx.client(internal=True) as client:
        allowed = await client.request(method, path, json={}, headers=headers)

    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/json"
    assert refused.json() == {
        "error": "forbidden",
        "detail": "expected a client that may ask this",
    }
    assert allowed.status_code == 200
    assert [request.split(" HTTP/")[0] for request in service.requests] == [f"{method} {path}"]


async def test_the_internal_server_listens_on_this_machine_only(nginx: Nginx) -> None:
    shown = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = {line.split()[1] for line in shown if line.split()[3] == "0A"}

    assert f"0100007F:{nginx.internal_port:04X}" in listening
    assert f"00000000:{nginx.internal_port:04X}" not in listening


async def test_streams_are_not_on_the_internal_server(nginx: Nginx) -> None:
    async with nginx.client(internal=True) as client:
        answer = await client.get("/events?merchant_id=42")

    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


async def test_any_other_path_is_not_found(nginx: Nginx) -> None:
    async with nginx.client() as client:
        for path in ("/", "/seats", "/events/", "/notify/x", "/sse_push_error"):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.json() == {"error": "not_found", "detail": "no such path"}


# -- what a client claims


async def test_the_service_gets_one_path_and_the_address_of_the_client(
    plain: tuple[Recorder, Nginx],
) -> None:
    service, nginx = plain
    for spelled in ("/events", "//events", "/x/../events", "/%65vents"):
        reader, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
        writer.write(
            f"GET {spelled}?merchant_id=a%2Fb HTTP/1.1\r\n"
            "Host: shop.test:8080\r\n"
            "Last-Event-ID: 1-1\r\n"
            "X-Forwarded-For: 192.0.2.1\r\n"
            "X-Forwarded-Proto: https\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        async with asyncio.timeout(5 * SECOND):
            await reader.read()
            writer.close()
            await writer.wait_closed()

    assert len(service.requests) == 4
    for request in service.requests:
        line, *headers = request.rstrip().split("\r\n")
        assert line == "GET /events?merchant_id=a%2Fb HTTP/1.1"
        assert sorted(headers) == [
            "Host: shop.test:8080",
            "Last-Event-ID: 1-1",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Proto: http",
        ]


@pytest.mark.parametrize(
    "request_line", ["GET /events", "POST /notify", "GET /readyz", "POST /revoke", "GET /metrics"]
)
async def test_headers_in_which_a_client_claims_an_identity_do_not_reach_the_service(
    plain: tuple[Recorder, Nginx], request_line: str
) -> None:
    service, nginx = plain
    port = nginx.port if "events" in request_line else nginx.internal_port
    status, _, _ = await ask(
        port,
        f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode() + SPOOFED + b"\r\n",
    )

    assert status == 200
    (request,) = service.requests
    assert fields(request) == {
        "host": "x",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
    }


# -- the backend is asked


@pytest.fixture
async def asking(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Recorder, Nginx]]:
    """The service, the merchant's backend, and nginx that asks it."""
    async with recording() as (backend, address):
        with Nginx.start(tmp_path / "nginx", recorded[1], auth_backend=address) as nginx:
            yield recorded[0], backend, nginx


@pytest.mark.parametrize("merchants", ["42", "42,43, roxy:1"])
async def test_a_stream_is_for_the_merchants_that_the_backend_names(
    asking: tuple[Recorder, Recorder, Nginx], merchants: str
) -> None:
    service, backend, nginx = asking
    backend.answer = yes(f"X-Merchant-Id: {merchants}")

    status, _, body = await ask(
        nginx.port,
        b"GET //events?merchant_id=a%2Fb&token=t HTTP/1.1\r\nHost: shop.test\r\n"
        b"Cookie: session=s1\r\nAuthorization: Bearer b1\r\nAccept: text/event-stream\r\n"
        b"Last-Event-ID: 1-1\r\nX-Original-URI: /other\r\nContent-Length: 2\r\n"
        b"Connection: close\r\n" + SPOOFED + b"\r\nhi",
    )

    assert (status, body) == (200, b"{}")
    (question,) = backend.requests
    assert question.startswith("GET /may-listen HTTP/1.1\r\n")
    assert fields(question) == {
        "host": "shop.test",
        "cookie": "session=s1",
        "authorization": "Bearer b1",
        "last-event-id": "1-1",
        "accept": "*/*",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-original-uri": "//events?merchant_id=a%2Fb&token=t",
    }
    (request,) = service.requests
    assert request.startswith("GET /events?merchant_id=a%2Fb&token=t HTTP/1.1\r\n")
    assert fields(request) == {
        "host": "shop.test",
        "cookie": "session=s1",
        "authorization": "Bearer b1",
        "last-event-id": "1-1",
        "accept": "text/event-stream",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-merchant-id": merchants,
        "x-original-uri": "/other",  # means nothing to the service
    }


async def test_a_client_cannot_name_its_merchant_if_the_backend_names_none(
    asking: tuple[Recorder, Recorder, Nginx],
) -> None:
    service, backend, nginx = asking
    backend.answer = yes()
    head = b"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    await ask(nginx.port, head + SPOOFED + b"\r\n")

    (request,) = service.requests
    assert "x-merchant-id" not in fields(request)
    assert "x-merchant-id" not in fields(backend.requests[0])


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (401, "unauthorized", "expected a session of the backend"),
        (403, "forbidden", "expected a client that may ask this"),
    ],
)
async def test_a_refusal_of_the_backend_is_final(
    asking: tuple[Recorder, Recorder, Nginx], status: int, code: str, detail: str
) -> None:
    service, backend, nginx = asking
    backend.answer = (
        b"HTTP/1.1 %d No\r\nX-Merchant-Id: 42\r\nWWW-Authenticate: Session\r\n"
        b"Content-Length: 2\r\n\r\nno" % status
    )

    got, headers, body = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert got == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"error": code, "detail": detail}
    assert headers.get("www-authenticate") == ("Session" if status == 401 else None)
    assert service.requests == []


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (403, "forbidden")])
async def test_a_refusal_of_the_service_differs_from_one_of_the_backend(
    asking: tuple[Recorder, Recorder, Nginx], status: int, code: str
) -> None:
    service, backend, nginx = asking
    backend.answer = yes("X-Merchant-Id: 42")
    service.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status

    got, _, body = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert got == status
    assert json.loads(body)["error"] == code
    assert "a merchant that the backend named" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Login\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
    ],
)
async def test_a_backend_without_a_decision_lets_browsers_come_back(
    asking: tuple[Recorder, Recorder, Nginx], answer: bytes
) -> None:
    service, backend, nginx = asking
    backend.answer = answer

    status, headers, body = await ask(nginx.port, EVENTS % b"text/event-stream")
    told, told_headers, told_body = await ask(nginx.port, EVENTS % b"application/json")

    assert (status, headers["x-sse-push-soft-answer"]) == (200, "1")
    assert b'event: goodbye\ndata: {"reason":"upstream_unavailable"}\n\n' in body
    assert (told, told_headers["retry-after"]) == (503, "5")
    assert json.loads(told_body)["error"] == "unavailable"
    assert service.requests == []


async def test_a_backend_that_hangs_is_given_up(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    hanging = {"proxy_read_timeout 5s": f"proxy_read_timeout {200 * SECOND:.0f}ms"}
    with socket.socket() as backend:
        backend.bind(("127.0.0.1", 0))
        backend.listen()
        address = f"127.0.0.1:{backend.getsockname()[1]}"
        with Nginx.start(
            tmp_path / "nginx", recorded[1], auth_backend=address, adapt=replacing(hanging)
        ) as nginx:
            status, headers, _ = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert (status, headers["x-sse-push-soft-answer"]) == (200, "1")


async def test_a_backend_that_is_down_gives_a_soft_answer_and_no_token_in_a_log(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        with Nginx.start(tmp_path / "nginx", recorded[1], auth_backend=nowhere) as nginx:
            status, headers, _ = await ask(
                nginx.port,
                b"GET /events?token=s3cr3t HTTP/1.1\r\nHost: x\r\nCookie: s=s3cr3t\r\n"
                b"Connection: close\r\n\r\n",
            )
            await until(lambda: "/events" in nginx.access_log, "a line")

    assert (status, headers["x-sse-push-soft-answer"]) == (200, "1")
    assert "s3cr3t" not in nginx.access_log
    assert nginx.error_log == ""


@pytest.mark.parametrize(
    ("smaller", "reason"),
    [
        ({"sse_push_address 200": "sse_push_address 1"}, b"too_many_connections"),
        ({"rate=50r/s": "rate=1r/m", "burst=1000 nodelay": "nodelay"}, b"rate_limited"),
    ],
)
async def test_the_backend_is_not_asked_about_a_connection_beyond_a_limit(
    recorded: tuple[Recorder, str], tmp_path: Path, smaller: dict[str, str], reason: bytes
) -> None:
    recorder, upstream = recorded
    recorder.answer = OPEN
    smaller = {**smaller, "worker_processes auto": "worker_processes 1"}
    async with recording() as (backend, address):
        backend.answer = yes("X-Merchant-Id: 42")
        with Nginx.start(
            tmp_path / "nginx", upstream, auth_backend=address, adapt=replacing(smaller)
        ) as nginx:
            async with open_stream(nginx.url):
                _, _, body = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert reason in body
    assert len(backend.requests) == 1


async def test_the_location_that_asks_the_backend_is_not_on_the_public_server(
    asking: tuple[Recorder, Recorder, Nginx],
) -> None:
    _, backend, nginx = asking
    async with nginx.client() as client:
        answers = [await client.get(path) for path in ("/sse_push_may_listen", "/may-listen")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert backend.requests == []


# -- logs


async def test_no_secret_reaches_a_log(
    service: Service, nowhere: str, tmp_path: Path, merchant: str
) -> None:
    secret = "s3cr3t-of-the-browser"
    headers = {
        "Accept": "text/event-stream",
        "Authorization": f"Bearer {secret}",
        "Cookie": f"token={secret}",
        "Referer": f"http://shop.test/?token={secret}",
        "User-Agent": secret,
    }
    query = f"merchant_id={merchant}&token={secret}"
    targets = [
        f"/events?{query}&merchantId=another",
        f"/events?{query}{'x' * 9000}",
        f"/elsewhere?{query}",
        f"/events%0d%0a{secret}?{query}",
    ]

    with (
        Nginx.start(tmp_path / "up", f"127.0.0.1:{service.port}") as up,
        Nginx.start(tmp_path / "down", nowhere) as down,
    ):
        async with open_stream(up.url, query=query, headers={"Cookie": f"token={secret}"}):
            pass
        async with up.client() as client:
            for target in targets:
                await client.get(target, headers=headers)
            await client.get(f"{down.url}/events?{query}", headers=headers)
        await until(lambda: up.access_log.count("\n") == 5, "five lines")
        await until(lambda: down.access_log.count("\n") == 1, "one line")

    lines = [json.loads(line) for line in up.access_log.splitlines()]
    assert sorted((line["path"], line["status"]) for line in lines) == [
        ("-", "414"),
        ("/elsewhere", "404"),
        ("/events", "200"),
        ("/events", "400"),
        ("/events", "404"),
    ]
    outage = json.loads(down.access_log)
    assert (outage["path"], outage["status"], outage["upstream_status"]) == (
        "/events",
        "200",
        "502",
    )
    assert secret not in up.access_log + down.access_log
    assert up.error_log + down.error_log == ""
