"""nginx as shipped, against those who mean harm: TLS, limits, identity, requests, headers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from sse_push.event_stream.wire import encode_goodbye
from sse_push.settings import Settings
from tests.harness.nginx import (
    SHIPPED,
    SITE,
    Nginx,
    Recorder,
    copy_shipped,
    make_certificate,
    replace_once,
    replacing,
)
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, free_port, until, wait_for

pytestmark = pytest.mark.nginx

OUTSIDER = "127.0.0.2"
STREAM = {"Accept": "text/event-stream"}
OPEN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\n:\n\n\r\n"
)
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
HSTS = "max-age=31536000"


@asynccontextmanager
async def recording() -> AsyncGenerator[tuple[Recorder, str]]:
    """Run a server that notes what it is asked; with its address."""
    recorder = Recorder()
    async with await asyncio.start_server(recorder.accept, "127.0.0.1", 0) as listening:
        yield recorder, f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(5 * SECOND):  # nginx has gone, and its connections with it
        await asyncio.gather(*recorder.connections)


@pytest.fixture
async def service() -> AsyncGenerator[tuple[Recorder, str]]:
    """What stands behind nginx here, unless a test says ``real``."""
    async with recording() as recorded:
        yield recorded


@pytest.fixture
async def plain(
    service: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Nginx]]:
    with Nginx.start(tmp_path / "nginx", service[1]) as nginx:
        yield service[0], nginx


@pytest.fixture
async def tls(
    service: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Nginx]]:
    with Nginx.start(tmp_path / "nginx", service[1], tls=True) as nginx:
        yield service[0], nginx


@pytest.fixture(scope="module")
def real(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """The service itself, with the default heartbeat divided by 25."""
    with serving(
        tmp_path_factory.mktemp("service"),
        redis.url,
        heartbeat_s=Settings.model_fields["heartbeat_s"].default / 25,
        drain_s=1,
    ) as started:
        yield started


@asynccontextmanager
async def publishing(nginx: Nginx) -> AsyncGenerator[Publisher]:
    publisher = Publisher(nginx.internal_url)
    try:
        yield publisher
    finally:
        await publisher.close()


async def ask(
    port: int, request: bytes, trust: ssl.SSLContext | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes, read until nginx closes; return status, headers and what follows them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    try:
        writer.write(request)
        async with asyncio.timeout(5 * SECOND):
            got = await reader.read()
    finally:
        writer.transport.abort()
    head, _, body = got.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in pairs}
    assert len(headers) == len(pairs), f"expected each header once, got {lines}"
    return int(first.split()[1]), headers, body


def fields(request: str) -> dict[str, str]:
    """Return the headers of a request as it came; each may be there once."""
    lines = request.rstrip().split("\r\n")[1:]
    named = [line.partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in named}
    assert len(headers) == len(named), f"expected each header once, got {lines}"
    return headers


# -- the certificate


def test_a_certificate_is_for_the_names_that_were_asked_for_and_its_key_is_nobody_elses(
    tmp_path: Path,
) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", "push.shop.test", "*.shop.test", "192.0.2.7", "::1")

    assert "DNS:push.shop.test,DNS:*.shop.test,IP:192.0.2.7,IP:::1" in done.stdout
    key = tmp_path / "nginx/tls/key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in key.parent.iterdir()) == ["certificate.pem", "key.pem"]


def test_a_certificate_that_is_there_is_kept(tmp_path: Path) -> None:
    copy_shipped(tmp_path / "nginx")
    make_certificate(tmp_path / "nginx")
    first = (tmp_path / "nginx/tls/key.pem").read_bytes()

    again = make_certificate(tmp_path / "nginx", "localhost")

    assert again.returncode == 2
    assert "is there already: remove it first" in again.stderr
    assert (tmp_path / "nginx/tls/key.pem").read_bytes() == first


@pytest.mark.parametrize("name", ["", "-out", "a,DNS:b", "a b", "a/b", "a\nb", "é"])
def test_what_is_no_name_gets_no_certificate(tmp_path: Path, name: str) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", name)

    assert done.returncode == 2
    assert f"expected a name or an address, got '{name}'" in done.stderr
    assert not (tmp_path / "nginx/tls").exists()


def test_what_openssl_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", "300.1.1.1")

    assert done.returncode == 2
    assert "openssl made no certificate for IP:300.1.1.1" in done.stderr
    assert list((tmp_path / "nginx/tls").iterdir()) == []


# -- TLS and HTTP/2


async def test_many_streams_share_one_connection_over_http2(
    real: Service, tmp_path: Path, merchant: str
) -> None:
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{real.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        backend = await stack.enter_async_context(publishing(nginx))
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


async def read_to(reader: AsyncIterator[str], text: str) -> str:
    """Read until this text has come; heartbeats may come before."""
    got = ""
    async with asyncio.timeout(5 * SECOND):
        while text not in got:
            got += await anext(reader)
    return got


async def test_the_service_is_told_the_same_over_tls(tls: tuple[Recorder, Nginx]) -> None:
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
            session = shake_hands(trust, nginx.port, session, resumed)
            assert session is not None
            assert not session.has_ticket

    assert resumed == [False, True, True, True, True, True], "whichever worker it meets"


def shake_hands(
    trust: ssl.SSLContext, port: int, session: ssl.SSLSession | None, resumed: list[bool | None]
) -> ssl.SSLSession | None:
    with (
        socket.create_connection(("127.0.0.1", port), 5 * SECOND) as sock,
        trust.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as wrapped,
    ):
        resumed.append(wrapped.session_reused)
        return wrapped.session


async def test_plain_http_on_the_port_of_tls_is_told_so(tls: tuple[Recorder, Nginx]) -> None:
    service, nginx = tls
    status, headers, body = await ask(nginx.port, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")

    assert status == 400
    assert json.loads(body)["error"] == "malformed"
    assert "location" not in headers
    assert service.requests == []


def test_a_stream_is_never_redirected() -> None:
    """Chromium would come back to the new address, Firefox to the old one."""
    texts = [path.read_text() for path in SHIPPED.rglob("*.conf")]
    directives = "\n".join(re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE) for text in texts)

    assert re.findall(r"return 30\d|rewrite .* (?:redirect|permanent)", directives) == []


# -- silence and reloads, over TLS as without


SHORT = {"proxy_read_timeout 75s": "proxy_read_timeout 3s"}
"""75 s divided by 25, as the heartbeat of ``real`` is."""


@pytest.mark.parametrize("http2", [False, True])
async def test_a_stream_that_is_silent_but_for_heartbeats_stays_open(
    real: Service, tmp_path: Path, merchant: str, *, http2: bool
) -> None:
    """For longer than twice the time after which nginx ends a silent one."""
    shorter = SHORT | {"keepalive_timeout 75s": "keepalive_timeout 3s"}
    upstream = f"127.0.0.1:{real.port}"
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, tls=True, adapt=replacing(shorter))
        )
        client = await stack.enter_async_context(nginx.client(http2=http2))
        began = asyncio.get_running_loop().time()
        answer = await stack.enter_async_context(
            client.stream("GET", f"/events?merchant_id={merchant}", headers=STREAM)
        )
        reader = answer.aiter_text()
        await read_to(reader, "event: refresh")
        got = ""
        while got.count("event: heartbeat") < 12:
            got += await read_to(reader, "event: heartbeat")
        lived_s = asyncio.get_running_loop().time() - began

    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert lived_s > 2 * 3
    assert "goodbye" not in got


async def test_a_service_that_says_nothing_is_given_up(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = service
    recorder.answer = OPEN
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(SHORT)) as nginx:
        async with open_stream(nginx.url) as stream:
            await until(lambda: stream._task is not None and stream._task.done(), "its end")

    assert not stream.is_complete


async def test_a_reload_under_tls_keeps_streams_and_new_ones_meet_new_workers(
    real: Service, tmp_path: Path, merchant: str
) -> None:
    """A browser with two tabs would otherwise hold an old worker until its streams are cut."""
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{real.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        backend = await stack.enter_async_context(publishing(nginx))
        over_1 = await stack.enter_async_context(
            open_stream(nginx.url, merchant, trust=nginx.trust())
        )
        over_2 = await stack.enter_async_context(Http2.connect(nginx))
        number = over_2.ask("GET", f"/events?merchant_id={merchant}")
        await over_1.next("refresh")
        await over_2.body_to(number, b"event: refresh")
        for path in (nginx.folder / "tls").iterdir():
            path.unlink()
        make_certificate(nginx.folder)  # a renewal

        nginx.reload()
        await until(lambda: over_2.is_leaving, "GOAWAY")
        accepted = await backend.notify(merchant)
        fresh = await stack.enter_async_context(
            open_stream(nginx.url, merchant, trust=nginx.trust())
        )
        newest = await backend.notify(merchant)

        assert [(await over_1.next("refresh", count)).id for count in (2, 3)] == [accepted, newest]
        await over_2.body_to(number, f"id: {newest}\n".encode())
        await until(lambda: newest in [event.id for event in fresh.refreshes], "the newest ID")
        assert not over_1.is_complete
        assert number not in over_2.ended

    assert nginx.error_log == ""


_GOAWAY = 7


class Http2:
    """An HTTP/2 connection that sends what it is told, valid or not, and notes what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.reader = reader
        self.writer = writer
        self.statuses: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.limits: dict[int, int] = {}
        self.is_leaving = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, nginx: Nginx) -> AsyncGenerator[Http2]:
        trust = nginx.trust()
        trust.set_alpn_protocols(["h2"])
        http2 = cls(*await asyncio.open_connection("127.0.0.1", nginx.port, ssl=trust))
        http2.connection.initiate_connection()
        http2.flush()
        pumping = asyncio.create_task(http2.pump())
        try:
            await until(lambda: bool(http2.limits), "the settings")
            yield http2
        finally:
            http2.writer.transport.abort()
            await pumping

    def ask(self, method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> int:
        number = self.connection.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "shop.test:8443"),
            (":path", path),
        ]
        self.connection.send_headers(number, [*pseudo, *headers], end_stream=not body)
        if body:
            self.connection.send_data(number, body, end_stream=True)
        self.flush()
        return number

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def pump(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                head = await self.reader.readexactly(9)
                frame = head + await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                if frame[3] == _GOAWAY:
                    self.is_leaving = True  # the library would take no more of open streams
                    continue
                for event in self.connection.receive_data(frame):
                    self.take(event)
                self.flush()

    def take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self.limits |= {
                    int(code): changed.new_value for code, changed in event.changed_settings.items()
                }
            case h2.events.ResponseReceived():
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            case h2.events.DataReceived():
                got = self.bodies.get(event.stream_id, b"")
                self.bodies[event.stream_id] = got + event.data
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self.ended.add(event.stream_id)
            case _:
                pass

    async def body_to(self, number: int, text: bytes) -> None:
        await until(lambda: text in self.bodies.get(number, b""), f"{text!r} of {self.bodies}")


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


# -- limits


EVENTS = (
    b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: x\r\nAccept: %s\r\nConnection: close\r\n\r\n"
)


@pytest.mark.parametrize(
    "limit", ["limit_conn sse_push_address 200", "limit_conn sse_push_worker 8000"]
)
async def test_a_stream_too_many_is_answered_softly_until_one_has_ended(
    service: tuple[Recorder, str], tmp_path: Path, limit: str
) -> None:
    recorder, upstream = service
    recorder.answer = OPEN
    smaller = {limit: re.sub(r"\d+$", "2", limit), "worker_processes auto": "worker_processes 1"}
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller))
        )
        await stack.enter_async_context(open_stream(nginx.url))
        async with open_stream(nginx.url):
            status, headers, body = await ask(nginx.port, EVENTS % b"text/event-stream")
            told, told_headers, told_body = await ask(nginx.port, EVENTS % b"application/json")
            other = await status_of_stream(nginx, OUTSIDER)
        ended = 2 if other == "open" else 1
        await until(lambda: nginx.access_log.count('"PASSED"') == ended, "the second's end")
        after = await stack.enter_async_context(open_stream(nginx.url))

    retry_ms = re.match(rb"retry: (\d+)\n", body)
    assert retry_ms is not None
    assert body == encode_goodbye("too_many_connections", int(retry_ms[1]))
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert headers["x-sse-push-soft-answer"] == "1"
    assert (told, told_headers["retry-after"]) == (503, "5")
    assert json.loads(told_body) == {
        "error": "unavailable",
        "detail": "expected fewer open connections",
    }
    assert other == ("soft" if "worker" in limit else "open")
    assert (after.status, after.headers["transfer-encoding"]) == (200, "chunked")
    assert '"limit_conn":"REJECTED"' in nginx.access_log
    assert nginx.error_log == ""


async def status_of_stream(nginx: Nginx, source: str) -> str:
    async with nginx.client(source) as client, client.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        return "soft" if "x-sse-push-soft-answer" in answer.headers else "open"


async def test_a_full_worker_answers_instead_of_dropping_connections(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    """The shipped sum, made small: 2 * 24 for streams, and 16 for short requests."""
    recorder, upstream = service
    recorder.answer = OPEN
    smaller = {
        "worker_processes auto": "worker_processes 1",
        "worker_connections 16384": "worker_connections 64",
        "limit_conn sse_push_worker 8000": "limit_conn sse_push_worker 24",
    }
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller))
        )
        streams = [await stack.enter_async_context(open_stream(nginx.url)) for _ in range(24)]
        more = [await ask(nginx.port, EVENTS % b"text/event-stream") for _ in range(40)]
        lives = (await ask(nginx.internal_port, line("GET /elsewhere")))[0]

    assert {stream.headers["transfer-encoding"] for stream in streams} == {"chunked"}
    assert all(b"too_many_connections" in body for _, _, body in more)
    assert nginx.error_log == ""
    assert lives == 404


def test_a_worker_may_open_the_files_that_it_is_said_to(real: Service, tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = re.search(
        r"\nworker_rlimit_nofile (\d+);", (SHIPPED / "snippets/process.conf").read_text()
    )
    assert said is not None

    with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{real.port}") as nginx:
        pid = nginx.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        wait_for(lambda: children.read_text() != "", "workers")
        limits = [
            Path(f"/proc/{child}/limits").read_text() for child in children.read_text().split()
        ]

    allowed = {match[1] for text in limits if (match := re.search(r"open files +(\d+)", text))}
    assert allowed == {said[1] if os.geteuid() == 0 or most >= int(said[1]) else str(most)}


async def test_every_stream_of_an_http2_connection_counts(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = service
    recorder.answer = OPEN
    smaller = {"limit_conn sse_push_address 200": "limit_conn sse_push_address 2"}
    with Nginx.start(tmp_path / "nginx", upstream, tls=True, adapt=replacing(smaller)) as nginx:
        async with Http2.connect(nginx) as http2:
            numbers = [http2.ask("GET", "/events", ("accept", "text/event-stream")) for _ in "123"]
            await until(lambda: len(http2.statuses) == 3, "three answers")
            await http2.body_to(numbers[2], b"too_many_connections")

    assert set(http2.statuses.values()) == {200}
    assert http2.ended == {numbers[2]}


async def test_an_ipv6_network_is_one_address_for_a_limit(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    """The addresses come from a balancer, which nginx is told to believe, as nginx.conf says."""
    recorder, upstream = service
    recorder.answer = OPEN
    smaller = {
        "limit_conn sse_push_address 200": "limit_conn sse_push_address 1",
        "server_tokens off;": "server_tokens off; set_real_ip_from 127.0.0.1;"
        " real_ip_header X-Forwarded-For; real_ip_recursive on;",
    }
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller)) as nginx:
        first = {"X-Forwarded-For": "192.0.2.1, 2001:db8:a:b:1::1"}
        async with open_stream(nginx.url, headers=first), nginx.client() as client:
            answers = {}
            for address in ("2001:db8:a:b:ffff::2", "2001:db8:a:c::1", "192.0.2.1"):
                forwarded = {"X-Forwarded-For": f"2001:db8:a:b:1::1, {address}"}
                async with client.stream("GET", "/events", headers=forwarded) as answer:
                    answers[address] = "x-sse-push-soft-answer" in answer.headers

    assert answers == {"2001:db8:a:b:ffff::2": True, "2001:db8:a:c::1": False, "192.0.2.1": False}
    assert [fields(request)["x-forwarded-for"] for request in recorder.requests] == [
        "2001:db8:a:b:1::1",
        "2001:db8:a:c::1",
        "192.0.2.1",
    ]


async def test_a_backend_that_runs_wild_is_told_to_wait(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = service
    smaller = {"rate=2000r/s": "rate=1r/m", "burst=4000": "burst=2", "deny all;": ""}
    with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(smaller)) as nginx:
        async with nginx.client(internal=True) as client:
            answers = [await client.post("/notify", json={}) for _ in range(4)]
            revoked = await client.post("/revoke", json={})
            ready = await client.get("/readyz")
        async with nginx.client(OUTSIDER, internal=True) as client:
            other = await client.post("/notify", json={})

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].headers["content-type"] == "application/json"
    assert answers[3].json() == {
        "error": "rate_limited",
        "detail": "expected fewer requests per second",
    }
    assert [revoked.status_code, ready.status_code, other.status_code] == [429, 200, 200]
    assert len(recorder.requests) == 5
    refused = [line for line in nginx.access_log.splitlines() if '"limit_req":"REJECTED"' in line]
    assert [json.loads(line)["path"] for line in refused] == ["/notify", "/revoke"]


SLOW = {
    "half a header": b"GET /events HTTP/1.1\r\nHost: x\r\nX-Half: ",
    "half a body": b"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "half a chunk": b"POST /notify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
}


@pytest.mark.parametrize("shape", SLOW)
async def test_who_is_slow_on_purpose_holds_nothing_of_the_service_and_is_let_go(
    service: tuple[Recorder, str], tmp_path: Path, shape: str
) -> None:
    """The shipped 10 s divided by 25; a hundred at once."""
    recorder, upstream = service
    shorter = {
        f"client_{part}_timeout 10s": f"client_{part}_timeout 400ms" for part in ("header", "body")
    }
    async with AsyncExitStack() as stack:
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, replacing(shorter)))
        port = nginx.internal_port if b"/notify" in SLOW[shape] else nginx.port
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in slow:
            stack.callback(writer.transport.abort)
            writer.write(SLOW[shape])
        async with open_stream(nginx.url, headers={"Connection": "close"}) as quick:
            assert quick.status == 200
        async with asyncio.timeout(5 * SECOND):
            ends = (reader.read() for reader, _ in slow)
            got = await asyncio.gather(*ends, return_exceptions=True)

    answers = [each for each in got if not isinstance(each, ConnectionResetError)]
    assert set(answers) <= {b""}, "cut off without an answer"
    assert len(recorder.requests) == 1, "the quick one"


# -- who it is


SPOOFED = (
    b"X-Merchant-Id: 7\r\nx-merchant-ID: 8\r\nX_Merchant_Id: 9\r\nX-Forwarded-For: 127.0.0.1\r\n"
    b"X-Forwarded-For: 192.0.2.9\r\nX_Forwarded_For: 192.0.2.9\r\nForwarded: for=192.0.2.9\r\n"
    b"X-Forwarded-Proto: https\r\n"
)


@pytest.mark.parametrize(
    "request_line", ["GET /events", "POST /notify", "GET /readyz", "POST /revoke", "GET /metrics"]
)
async def test_what_a_client_says_about_itself_does_not_reach_the_service(
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
    service: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Recorder, Nginx]]:
    """The service, the merchant's backend, and nginx that asks it."""
    async with recording() as (backend, address):
        with Nginx.start(tmp_path / "nginx", service[1], auth_backend=address) as nginx:
            yield service[0], backend, nginx


def yes(*lines: str) -> bytes:
    headers = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok".encode()


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


async def test_a_backend_that_names_nobody_lets_nobody_in_by_a_header_of_their_own(
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
async def test_a_no_of_the_backend_is_final(
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
async def test_a_no_of_the_service_is_told_from_one_of_the_backend(
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
async def test_a_backend_that_cannot_say_lets_browsers_come_back(
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
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    hanging = {"proxy_read_timeout 5s": "proxy_read_timeout 200ms"}
    with socket.socket() as backend:
        backend.bind(("127.0.0.1", 0))
        backend.listen()
        address = f"127.0.0.1:{backend.getsockname()[1]}"
        with Nginx.start(
            tmp_path / "nginx", service[1], auth_backend=address, adapt=replacing(hanging)
        ) as nginx:
            status, headers, _ = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert (status, headers["x-sse-push-soft-answer"]) == (200, "1")


async def test_a_backend_that_is_down_is_not_told_to_the_browser_nor_its_token_to_a_log(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        with Nginx.start(tmp_path / "nginx", service[1], auth_backend=nowhere) as nginx:
            status, headers, _ = await ask(
                nginx.port,
                b"GET /events?token=s3cr3t HTTP/1.1\r\nHost: x\r\nCookie: s=s3cr3t\r\n"
                b"Connection: close\r\n\r\n",
            )
            await until(lambda: "/events" in nginx.access_log, "a line")

    assert (status, headers["x-sse-push-soft-answer"]) == (200, "1")
    assert "s3cr3t" not in nginx.access_log
    assert nginx.error_log == ""


async def test_who_is_one_too_many_costs_the_backend_nothing(
    service: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder, upstream = service
    recorder.answer = OPEN
    smaller = {"limit_conn sse_push_address 200": "limit_conn sse_push_address 1"}
    async with recording() as (backend, address):
        backend.answer = yes("X-Merchant-Id: 42")
        with Nginx.start(
            tmp_path / "nginx", upstream, auth_backend=address, adapt=replacing(smaller)
        ) as nginx:
            async with open_stream(nginx.url):
                _, _, body = await ask(nginx.port, EVENTS % b"text/event-stream")

    assert b"too_many_connections" in body
    assert len(backend.requests) == 1


async def test_the_question_is_nobody_elses_to_ask(
    asking: tuple[Recorder, Recorder, Nginx],
) -> None:
    _, backend, nginx = asking
    async with nginx.client() as client:
        answers = [await client.get(path) for path in ("/sse_push_may_listen", "/may-listen")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert backend.requests == []


# -- requests that are two, or none


SECOND_REQUEST = b"GET /events?merchant_id=second HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
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
async def test_what_http2_can_hold_and_http1_cannot_is_no_second_request(
    tls: tuple[Recorder, Nginx], headers: list[tuple[str, str]], body: bytes
) -> None:
    service, nginx = tls
    async with Http2.connect(nginx) as http2:
        number = http2.ask("GET", "/events?merchant_id=first", *headers, body=body)
        await until(lambda: number in http2.ended or http2.is_leaving, "its end")

    assert http2.statuses.get(number, 400) in (400, 413)
    assert service.requests == []


# -- errors and headers


def line(text: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"{text} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    ).encode()


ERRORS = {
    400: ("malformed", line("GET /%zz")),
    403: ("forbidden", line("POST /notify")),
    404: ("not_found", line("GET /elsewhere")),
    405: ("method_not_allowed", line("TRACE /events")),
    413: ("too_large", line("POST /notify", "Content-Length: 1048577") + b"x" * 1_048_577),
    414: ("too_large", line(f"GET /{'x' * 9000}")),
    431: ("too_large", line("GET /", f"X: {'x' * 9000}")),
    501: ("unsupported", line("POST /", "Transfer-Encoding: gzip")),
    505: ("unsupported", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("status", ERRORS)
async def test_an_error_of_nginx_has_the_form_of_the_services_own(
    service: tuple[Recorder, str], tmp_path: Path, status: int
) -> None:
    code, request = ERRORS[status]
    closed = {"allow 127.0.0.1;": ""} if status == 403 else {}
    with Nginx.start(tmp_path / "nginx", service[1], adapt=replacing(closed)) as nginx:
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
    assert service[0].requests == []
    method = request.split(b" ")[0].decode()
    is_parsed = status not in (414, 505)
    assert json.loads(nginx.access_log)["method"] in ([method] if is_parsed else [method, "-"])


async def test_a_service_that_is_down_is_told_to_monitoring_in_the_same_form(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{taken.getsockname()[1]}") as nginx:
            async with nginx.client(internal=True) as client:
                answer = await client.get("/readyz")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json() == {"error": "unavailable", "detail": "the push service does not answer"}


async def test_what_the_service_says_of_its_own_readiness_passes(
    plain: tuple[Recorder, Nginx],
) -> None:
    service, nginx = plain
    said = b'{"ready":false}'
    service.answer = b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    async with nginx.client(internal=True) as client:
        answer = await client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, said)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_every_answer_has_the_security_headers_once(
    service: tuple[Recorder, str], tmp_path: Path, *, is_tls: bool
) -> None:
    recorder, upstream = service
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


async def test_a_page_of_another_origin_that_is_named_may_read_a_soft_answer(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        upstream = f"127.0.0.1:{taken.getsockname()[1]}"
        example = '#"https://shop.example" $http_origin;'
        assert example in (SHIPPED / SITE).read_text(), "the line whose # is taken away"
        opening = "map $http_origin $sse_push_origin {"
        named = {opening: f"{opening}\n{example[1:]}"}
        with Nginx.start(tmp_path / "nginx", upstream, adapt=replacing(named)) as nginx:
            answers = [
                await ask(nginx.port, line("GET /events", f"Origin: {origin}"))
                for origin in ("https://shop.example", "https://shop.example.evil.test", "null")
            ]

    allowed = [headers.get("access-control-allow-origin") for _, headers, _ in answers]
    credentials = [headers.get("access-control-allow-credentials") for _, headers, _ in answers]
    assert allowed == ["https://shop.example", None, None]
    assert credentials == ["true", None, None]
    assert {headers["vary"] for _, headers, _ in answers} == {"Origin"}


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
async def test_in_a_site_of_ones_own_it_is_the_same(
    service: tuple[Recorder, str], tmp_path: Path, *, is_asked: bool
) -> None:
    """As conf.d/sse-push.conf says: three lines in an nginx.conf that is there already."""
    recorder, upstream = service
    events = "events-auth-request.conf" if is_asked else "events.conf"
    request = line("GET /events", "Accept: */*")[:-2] + SPOOFED + b"\r\n"
    port = free_port()
    async with recording() as (backend, address):
        backend.answer = yes("X-Merchant-Id: 42")

        def adapt(folder: Path) -> None:
            main_file = folder / "nginx.conf"
            main_file.write_text(OWN_SITE.replace("events.conf", events).replace("8080", str(port)))
            replace_once(folder, "127.0.0.1:9000", address)

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


def test_the_recommended_upstream_is_the_default_one_on_a_unix_socket() -> None:
    shared = (SHIPPED / SITE).read_text()
    default = re.search(r"\n( *)server 127\.0\.0\.1:8000 (.*);\n", shared)
    assert default is not None

    assert f"\n{default[1]}#server unix:/run/sse-push/sse-push.sock {default[2]};\n" in shared
