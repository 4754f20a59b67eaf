"""The snippets of ``docs/proxies.md``, each run by the proxy that it is for."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from sse_push.doctor import Address, Examination, Fault, Target
from sse_push.event_stream.wire import encode_goodbye
from sse_push.settings import Settings
from tests.harness.documents import Example
from tests.harness.nginx import OPEN, ask, fields
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, STOP_S, accepts, free_port, program, until, wait_for

DOCUMENT = "sse_push/docs/proxies.md"

HELD_S = 0.15
"""How long the quickest of several events takes at most: HAProxy would hold each for 0.2 s."""

MODULES = Path("/usr/lib/apache2/modules")
APACHE = """
{modules}
ServerName test
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog /dev/stderr
User nobody
Group nogroup
StartServers 1
AddOutputFilterByType DEFLATE text/event-stream
"""
"""What the package of a system has in files of its own; and a site that compresses all."""


@dataclass(frozen=True)
class Kind:
    """One proxy: the language of its snippet, and how it is run with a file."""

    language: str
    program: str
    arguments: Callable[[Path, int], list[str]]
    is_soft: bool = True
    """Its snippet gives the soft answer when the service is down; otherwise 503."""


KINDS = {
    "HAProxy": Kind("haproxy", "haproxy", lambda file, _port: ["-db", "-f", str(file)]),
    "Caddy": Kind(
        "caddyfile",
        "caddy",
        lambda file, _port: ["run", "--adapter", "caddyfile", "--config", str(file)],
    ),
    "Apache": Kind(
        "apache", "apache2", lambda file, _port: ["-DFOREGROUND", "-f", str(file)], is_soft=False
    ),
    "Varnish": Kind(
        "vcl",
        "varnishd",
        lambda file, port: [
            *("-F", "-j", "none", "-n", str(file.parent / "work")),
            *("-a", f"127.0.0.1:{port}", "-f", str(file)),
        ],
    ),
    "lighttpd": Kind(
        "lighttpd", "lighttpd", lambda file, _port: ["-D", "-f", str(file)], is_soft=False
    ),
}


class Relay(ThreadingTCPServer):
    """What a proxy takes for the service: it passes all on, and keeps the heads of requests."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, service: Service) -> None:
        self.service = service
        self.heads: list[str] = []
        self.is_flooding = False
        self.has_flooded = False
        self.flooded_bytes = 0
        self.open: dict[socket.socket, str] = {}
        """The connections of now, each with the head of its last request."""
        self.is_closed = False
        super().__init__(("127.0.0.1", port), Passing)
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @contextmanager
    def flooding(self) -> Generator[None]:
        """Answer with events without a pause, in the place of the service."""
        self.cut()  # connections that the proxy keeps lead to the service
        self.is_flooding, self.has_flooded, self.flooded_bytes = True, False, 0
        try:
            yield
        finally:
            self.is_flooding = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy that resets a connection is no error here."""

    def close(self) -> None:
        self.is_closed = True
        self.shutdown()
        self.server_close()
        self.cut()

    def cut(self) -> None:
        for each in list(self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Passing(BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        (self.flood if self.server.is_flooding else self.serve)(self.request)

    def serve(self, here: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.server.service.port)) as there:
            back = Thread(target=pass_on, args=(there, here), daemon=True)
            back.start()
            self.server.open[here] = ""
            pass_on(here, there, self.keep)
            back.join()
        del self.server.open[here]

    def keep(self, data: bytes) -> None:
        head = data.decode("latin-1").partition("\r\n\r\n")[0]
        self.server.open[self.request] = head
        self.server.heads += [] if " /readyz " in head else [head]

    def flood(self, proxy: socket.socket) -> None:
        """Send events without a pause, until the proxy takes no more for a while."""
        if b" /readyz " in proxy.recv(65_536):
            proxy.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            return
        proxy.sendall(OPEN)
        proxy.settimeout(0.2 * SECOND)
        with suppress(OSError):
            while self.server.flooded_bytes < FLOOD_BYTES:
                self.server.flooded_bytes += proxy.send(EVENT)
        self.server.has_flooded = True


def pass_on(
    source: socket.socket, sink: socket.socket, keep: Callable[[bytes], None] = lambda _data: None
) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            keep(data)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


EVENT = b"%x\r\n:%s\n\r\n" % (65_002, b"x" * 65_000)
FLOOD_BYTES = 96 * 1024 * 1024
TAKEN_BYTES = 48 * 1024 * 1024
"""At most so much of a flood lies in the proxy and in the kernel; measured: 8 to 20 MB."""

QUESTION = b"GET /events HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nConnection: close\r\n\r\n"
"""The service answers 400, since no merchant is named."""


@dataclass
class Proxy:
    """A proxy that runs, and the relay behind it."""

    kind: Kind
    port: int
    relay: Relay

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_for(self, *statuses: int) -> tuple[dict[str, str], bytes]:
        """Ask until the status is one of these; return headers and body."""
        async with asyncio.timeout(10 * SECOND):
            while True:
                with suppress(IndexError):  # closed without an answer
                    status, headers, body = await ask(self.port, QUESTION)
                    if status in statuses:
                        return headers, body
                await asyncio.sleep(0.05)


@pytest.fixture
async def proxy(running: Proxy) -> AsyncGenerator[Proxy]:
    """A proxy that knows that the service is there."""
    await running.wait_for(400)
    yield running
    if running.relay.is_closed:
        running.relay = Relay(running.relay.server_address[1], running.relay.service)


@pytest.fixture(scope="module", params=KINDS)
def running(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Proxy]:
    kind = KINDS[request.param]
    path, folder = program(kind.program), tmp_path_factory.mktemp(kind.language)
    port, upstream = free_port(), free_port()
    snippet = Example(DOCUMENT, kind.language).code
    assert snippet.count("8000") == 1
    text = snippet.replace("8080", str(port)).replace("8000", str(upstream))
    if kind.language == "apache":
        names = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "env", "filter")
        lines = [
            f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in (*names, "deflate")
        ]
        text = APACHE.format(modules="\n".join(lines), folder=folder) + text
    (folder / "file").write_text(text)
    relay = Relay(upstream, service)
    homes = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [path, *kind.arguments(folder / "file", port)],
            env={**os.environ, **homes},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: accepts(("127.0.0.1", port)) or process.poll() is not None, request.param)
        assert process.poll() is None, (folder / "log").read_text()
        made = Proxy(kind, port, relay)
        yield made
        made.relay.close()
    finally:
        process.terminate()
        process.wait(STOP_S)


SPOOFED = {
    "X-Merchant-Id": "7",
    "X-Forwarded-For": "192.0.2.9",
    "Forwarded": "for=192.0.2.9",
    "Accept-Encoding": "gzip, br",
}


async def test_an_event_passes_at_once_and_the_service_knows_who_listens(
    proxy: Proxy, publisher: Publisher, merchant: str
) -> None:
    ids = [await publisher.notify(merchant) for _ in range(2)]
    took_s = []
    async with open_stream(
        proxy.url, merchant, ids[0], headers=SPOOFED, source="127.0.0.3"
    ) as stream:
        await stream.next("refresh")
        for number in range(2, 7):
            began_at = time.monotonic()
            ids.append(await publisher.notify(merchant))
            await stream.next("refresh", number)
            took_s.append(time.monotonic() - began_at)

    assert [event.id for event in stream.refreshes] == ids[1:]
    assert min(took_s) < HELD_S, took_s
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert {"content-encoding", "content-length"} & set(stream.headers) == set()
    told = fields(proxy.relay.heads[-1])
    assert told["last-event-id"] == ids[0]
    assert told["x-forwarded-for"] == "127.0.0.3"
    assert told["host"] == "localhost"
    assert {"x-merchant-id", "forwarded"} & set(told) == set()


async def test_the_end_of_a_client_reaches_the_service(
    proxy: Proxy, publisher: Publisher, merchant: str
) -> None:
    """With one of the next events, if not before."""

    def listens() -> bool:
        return any(f"={merchant} " in head for head in [*proxy.relay.open.values()])

    async with open_stream(proxy.url, merchant) as stream:
        await stream.next("ready")
        assert listens()

    async with asyncio.timeout(5 * SECOND):
        while listens():
            await publisher.notify(merchant)


async def test_a_browser_that_sleeps_is_not_read_ahead_of(proxy: Proxy) -> None:
    relay = proxy.relay
    with relay.flooding(), socket.create_connection(("127.0.0.1", proxy.port)) as asleep:
        asleep.sendall(QUESTION)
        await until(lambda: relay.has_flooded, "the end of the flood")

    assert 0 < relay.flooded_bytes < TAKEN_BYTES


async def test_doctor_finds_nothing_wrong(proxy: Proxy) -> None:
    address = Address.parse(proxy.relay.service.url)
    target = Target.of(
        proxy.url,
        merchant_id="42",
        key=KEY,
        notify_address=address,
        timeout_s=10.0 * SECOND,
        wait_s=0.0,
    )

    results = await Examination(target, lambda _text: None).run()

    found = [each for each in results if each.fault not in (None, Fault.LATE)]  # see HELD_S
    assert [each.finding.text for each in found] == []


HIDDEN = [
    *("/notify", "/revoke", "/healthz", "/readyz", "/metrics", "/openapi.json", "/"),
    *("/metrics%0a", "//metrics", "/%6detrics", "/metrics?/events", "/metrics%3f/events"),
    *("/events%0a", "/events%00", "/events/", "/events;x", "/events%3f", "/eventsx"),
    *("/events/../metrics", "/events/%2e%2e/metrics", "/events%2f..%2fmetrics"),
    *("/events/..;/metrics", "/events/..%5cmetrics"),
]


async def test_no_path_but_one_reaches_the_service(proxy: Proxy) -> None:
    heads = len(proxy.relay.heads)
    for path in HIDDEN:
        request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        status, _, _ = await ask(proxy.port, request.encode())
        assert status in (400, 403, 404), path

    assert proxy.relay.heads[heads:] == []


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "GET"])
async def test_a_second_request_in_a_connection_reaches_no_other_path(
    proxy: Proxy, method: str
) -> None:
    """Also where the proxy is a mere pipe from the first request on. The GET names no merchant."""
    first = f"{method} /events HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
    second = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write((first + second).encode())
    async with asyncio.timeout(5 * SECOND):
        got = await reader.read()
    writer.transport.abort()

    assert got.startswith(b"HTTP/1.1 ")
    assert b"sse_push_" not in got


async def test_a_service_that_is_down_is_an_answer(proxy: Proxy) -> None:
    """The soft one, where the proxy can give it; until it has noticed, it may give none at all."""
    proxy.relay.close()

    headers, body = await proxy.wait_for(200 if proxy.kind.is_soft else 503)

    if proxy.kind.is_soft:
        retry_ms = re.match(rb"retry: (\d+)\n", body)
        assert retry_ms is not None, body
        assert body == encode_goodbye("upstream_unavailable", int(retry_ms[1]))
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", KINDS)
def test_a_proxy_waits_longer_than_two_heartbeats(name: str) -> None:
    code = Example(DOCUMENT, KINDS[name].language).code
    waits = re.findall(r"(?:timeout (?:client|server) |\btimeout=|read-timeout\" => )(\d+)", code)

    assert len(waits) == {"HAProxy": 2, "Apache": 1, "lighttpd": 1}.get(name, 0)
    assert all(float(wait) > 2 * Settings.model_fields["heartbeat_s"].default for wait in waits)
