"""TLS and HTTP/2: many streams on one connection, ciphers, sessions."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from tests.harness.http2 import Http2
from tests.harness.nginx import (
    SHIPPED,
    Nginx,
    Recorder,
    ask,
    fields,
    line,
)
from tests.harness.service import Service
from tests.harness.stream import publishing, read_to
from tests.harness.waiting import SECOND, until

pytestmark = pytest.mark.nginx


STREAM = {"Accept": "text/event-stream"}


async def test_many_streams_share_one_connection_over_http2(
    real: Service, tmp_path: Path, merchant: str
) -> None:
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{real.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        backend = await stack.enter_async_context(publishing(nginx.internal_url))
        client = await stack.enter_async_context(nginx.client(http2=True))
        await client.get("/elsewhere")  # or all of them would open a connection at once
        streams = [
            await stack.enter_async_context(
                client.stream("GET", f"/events?merchant_id={merchant}", headers=STREAM)
            )
            for _ in range(40)
        ]
        readers = [stream.aiter_text() for stream in streams]
        for reader in readers:
            await read_to(reader, "event: refresh")

        accepted = await backend.notify(merchant, topic="seats")

        for reader in readers:
            await read_to(reader, f"id: {accepted}\n")
        short = await client.get("/elsewhere")
        connections = {
            stream.extensions["network_stream"].get_extra_info("client_addr") for stream in streams
        }

    assert {stream.http_version for stream in streams} == {"HTTP/2"}
    assert {stream.status_code for stream in streams} == {200}
    assert len(connections) == 1
    assert short.status_code == 404


async def test_a_connection_has_room_for_the_tabs_of_one_browser(
    tls: tuple[Recorder, Nginx],
) -> None:
    _, nginx = tls
    said = (SHIPPED / "snippets/tls.conf").read_text()
    terms = re.search(r"(\d+) \(tabs.*?\+ +(\d+) .*?= +(\d+)", said)
    assert terms is not None
    tabs, short, total = map(int, terms.groups())

    async with Http2.connect(nginx) as http2:
        limit = http2.limits[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]

    assert limit == total == tabs + short


async def test_the_service_gets_the_same_request_over_tls(tls: tuple[Recorder, Nginx]) -> None:
    service, nginx = tls
    old = b"GET //events?merchant_id=a%2Fb HTTP/1.1\r\nHost: shop.test:8443\r\n"
    await ask(nginx.port, old + b"Connection: close\r\n\r\n", nginx.trust())
    async with Http2.connect(nginx) as http2:
        number = http2.ask("GET", "//events?merchant_id=a%2Fb")
        await until(lambda: number in http2.ended, "the answer")

    for request in service.requests:
        assert request.startswith("GET /events?merchant_id=a%2Fb HTTP/1.1\r\n")
    assert [fields(request) for request in service.requests] == 2 * [
        {"host": "shop.test:8443", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https"}
    ]


async def test_a_weak_cipher_is_refused(tls: tuple[Recorder, Nginx]) -> None:
    _, nginx = tls
    agreed: dict[str, str | None] = {}
    for name in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"):
        trust = nginx.trust()
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        trust.set_ciphers(name)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", nginx.port, ssl=trust)
        except ssl.SSLError:
            agreed[name] = None
        else:
            agreed[name] = writer.get_extra_info("cipher")[0]
            writer.transport.abort()

    assert list(agreed.values()) == ["ECDHE-ECDSA-AES128-GCM-SHA256", None]


def test_a_browser_that_comes_back_resumes_its_session_without_a_ticket(
    real: Service, tmp_path: Path
) -> None:
    with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{real.port}", tls=True) as nginx:
        trust = nginx.trust()
        trust.maximum_version = ssl.TLSVersion.TLSv1_2  # tells it at once; 1.3 only with data
        session: ssl.SSLSession | None = None
        resumed: list[bool | None] = []
        for _ in range(6):
            session = visit(trust, nginx.port, session, resumed)
            assert session is not None
            assert not session.has_ticket

    assert resumed == [False, True, True, True, True, True], "whichever worker it meets"


def visit(
    trust: ssl.SSLContext, port: int, session: ssl.SSLSession | None, resumed: list[bool | None]
) -> ssl.SSLSession | None:
    """Ask for a page, and return the session to come back with.

    The answer shows that the session is kept: a worker writes the last bytes of a handshake, and
    puts the session where all workers find it only after that.
    """
    with (
        socket.create_connection(("127.0.0.1", port), 5 * SECOND) as sock,
        trust.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as wrapped,
    ):
        resumed.append(wrapped.session_reused)
        wrapped.sendall(line("GET /elsewhere"))
        assert wrapped.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
        return wrapped.session


async def test_plain_http_on_the_port_of_tls_gets_400(tls: tuple[Recorder, Nginx]) -> None:
    service, nginx = tls
    status, headers, body = await ask(nginx.port, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")

    assert status == 400
    assert json.loads(body)["error"] == "malformed"
    assert "location" not in headers
    assert service.requests == []
