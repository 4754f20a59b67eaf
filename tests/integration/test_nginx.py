"""The service behind nginx as shipped: streams, outages, doors, logs, and numbers that agree."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sse_push import server
from sse_push.event_stream.wire import encode_goodbye
from sse_push.notification import EntryId
from sse_push.settings import Settings
from tests.harness.nginx import SHIPPED, SITE, Nginx, Recorder, copy_shipped, make_certificate
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, Stream, open_stream
from tests.harness.waiting import SECOND, program, until

pytestmark = pytest.mark.nginx

OUTSIDER = "127.0.0.2"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    folder = tmp_path_factory.mktemp("service") / "nginx"
    with Nginx.start(folder, f"127.0.0.1:{service.port}") as started:
        yield started


@pytest.fixture(scope="module")
def nowhere() -> Generator[str]:
    """The address of a service that is down: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def deserted(nowhere: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    with Nginx.start(tmp_path_factory.mktemp("deserted") / "nginx", nowhere) as started:
        yield started


@asynccontextmanager
async def publishing(url: str) -> AsyncGenerator[Publisher]:
    publisher = Publisher(url)
    try:
        yield publisher
    finally:
        await publisher.close()


@pytest.fixture
async def backend(nginx: Nginx) -> AsyncGenerator[Publisher]:
    """A backend that asks nginx, not the service."""
    async with publishing(nginx.internal_url) as publisher:
        yield publisher


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder for a socket: nginx's workers run under an account of their own."""
    with tempfile.TemporaryDirectory(prefix="sse_push-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# -- the files


@pytest.mark.parametrize("main_file", ["nginx.conf", "nginx-tls.conf"])
def test_the_folder_passes_as_it_stands(tmp_path: Path, main_file: str) -> None:
    """With TLS: once there is a certificate."""
    copy_shipped(tmp_path / "nginx")
    if main_file == "nginx-tls.conf":
        make_certificate(tmp_path / "nginx")

    done = subprocess.run(
        [program("nginx"), "-t", "-p", "nginx/", "-c", main_file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
    # From nginx 1.25.1 on there is a directive for HTTP/2, which older ones do not know.
    warnings = [line for line in done.stderr.splitlines() if "[warn]" in line]
    assert [line for line in warnings if '"listen ... http2" directive' not in line] == []


# -- streams


async def test_the_first_bytes_come_at_once(nginx: Nginx, merchant: str) -> None:
    measured_ms = [await first_event_ms(nginx.port, f"{merchant}-{n}") for n in range(20)]

    sys.stdout.write(
        f"\nfirst event of a stream through nginx: median {statistics.median(measured_ms):.1f} ms,"
        f" worst of {len(measured_ms)} {max(measured_ms):.1f} ms\n"
    )
    assert statistics.median(measured_ms) < 100 * SECOND


async def test_what_comes_is_what_the_service_wrote(
    nginx: Nginx, service: Service, backend: Publisher, merchant: str
) -> None:
    await backend.notify(merchant)
    async with (
        open_stream(nginx.url, merchant) as stream,
        open_stream(service.url, merchant) as direct,
    ):
        await stream.next("refresh")
        await direct.next("refresh")
        before, before_direct = len(stream.body), len(direct.body)

        accepted = await backend.notify(merchant, topic="seats", data={"text": "线\n"}, by="tab-1")
        await stream.next("refresh", 2)
        await direct.next("refresh", 2)

    block = (
        f"id: {accepted}\n"
        "event: refresh\n"
        f'data: {{"merchant_id":"{merchant}","topic":"seats","data":{{"text":"线\\n"}},'
        '"by":"tab-1"}\n'
        "\n"
    ).encode()
    assert stream.body[before:].startswith(block)
    assert direct.body[before_direct:].startswith(block)
    assert stream.status == 200
    assert stream.headers["content-type"] == direct.headers["content-type"]
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"


async def test_events_come_one_by_one_to_a_client_that_takes_gzip(
    nginx: Nginx, backend: Publisher, merchant: str
) -> None:
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    async with open_stream(nginx.url, merchant, headers=headers) as stream:
        await stream.next("refresh")

        for count in range(2, 7):
            accepted = await backend.notify(merchant)
            assert (await stream.next("refresh", count, 1 * SECOND)).id == accepted

    assert "content-encoding" not in stream.headers


async def test_heartbeats_pass(nginx: Nginx, merchant: str) -> None:
    async with open_stream(nginx.url, merchant) as stream:
        await stream.next("heartbeat", 2)


async def test_a_client_resumes(nginx: Nginx, backend: Publisher, merchant: str) -> None:
    seen = await backend.notify(merchant)
    newest = await backend.notify(merchant, topic="seats")

    async with (
        open_stream(nginx.url, merchant, newest) as nothing_missed,
        open_stream(nginx.url, merchant, seen) as one_missed,
    ):
        await nothing_missed.next("heartbeat")
        await one_missed.next("heartbeat")

    assert nothing_missed.refreshes == []
    assert nothing_missed.of("ready")[0].id == newest
    assert [(event.id, json.loads(event.data)) for event in one_missed.refreshes] == [
        (newest, {"merchant_id": merchant, "topic": "seats", "reason": "missed"})
    ]


@pytest.mark.parametrize("query", ["", "merchant_id=a/b", "merchant_id=1&merchant_id=2"])
async def test_a_400_passes_as_it_is(nginx: Nginx, service: Service, query: str) -> None:
    async with nginx.client() as client:
        answer = await client.get(f"/events?{query}", headers={"Accept": "text/event-stream"})
        direct = await client.get(f"{service.url}/events?{query}")

    assert answer.status_code == 400
    assert answer.content == direct.content
    assert answer.json()["error"] == "malformed"


async def test_a_stream_is_only_read(nginx: Nginx) -> None:
    async with nginx.client() as client:
        answer = await client.post("/events?merchant_id=42")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.json()["error"] == "method_not_allowed"


# -- outages


async def test_while_the_service_is_down_an_event_stream_is_answered_softly(
    deserted: Nginx,
) -> None:
    async with deserted.client() as client:
        answers = [
            await client.get("/events?merchant_id=42", headers={"Accept": "text/event-stream"})
            for _ in range(40)
        ]

    retries_ms = []
    for answer in answers:
        found = re.match(rb"retry: ([0-9]+)\n", answer.content)
        assert found is not None, answer.content
        retries_ms.append(int(found[1]))
        assert answer.content == (
            b"retry: %d\n"
            b"event: goodbye\n"
            b'data: {"reason":"upstream_unavailable"}\n'
            b"\n" % retries_ms[-1]
        )
        assert answer.content == encode_goodbye("upstream_unavailable", retries_ms[-1])
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-sse-push-soft-answer"] == "1"
    assert 5000 <= min(retries_ms) < max(retries_ms) <= 30_000
    assert len(set(retries_ms)) > 5


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("*/*", 200),
        ("text/html, text/event-stream;q=0.9", 200),
        (None, 200),
        ("application/json", 503),
        ("text/html", 503),
    ],
)
async def test_who_takes_no_event_stream_is_told_503(
    deserted: Nginx, accept: str | None, status: int
) -> None:
    async with deserted.client() as client:
        del client.headers["Accept"]
        headers = {} if accept is None else {"Accept": accept}
        answer = await client.get("/events?merchant_id=42", headers=headers)

    assert answer.status_code == status
    if status == 503:
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "error": "unavailable",
            "detail": "the push service does not answer",
        }


async def test_while_the_service_is_down_a_notification_has_an_unknown_outcome(
    deserted: Nginx,
) -> None:
    async with deserted.client(internal=True) as client:
        answer = await client.post("/notify", json={"merchant_id": "42"}, headers=BEARER)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "error": "unavailable",
        "detail": "the push service does not answer",
        "outcome": "unknown",
    }


async def test_a_killed_service_cuts_its_streams_and_the_next_one_takes_them_back(
    redis: Redis, tmp_path: Path, open_folder: Path, merchant: str
) -> None:
    uds = open_folder / "sse-push.sock"
    async with AsyncExitStack() as stack:
        service = Service.start(tmp_path, redis.url, uds=uds)
        stack.callback(service.stop)
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", f"unix:{uds}"))
        backend = await stack.enter_async_context(publishing(nginx.internal_url))
        await until(lambda: nginx.healthz() == 200, "the service", 20 * SECOND)
        seen = await backend.notify(merchant)
        stream = await stack.enter_async_context(open_stream(nginx.url, merchant))
        await stream.next("refresh")

        service.process.kill()
        await until(lambda: has_ended(stream), "the end of the response")
        service.process.wait()
        async with nginx.client() as client:
            soft = await client.get(f"/events?merchant_id={merchant}")
        unknown = await backend.post(json={"merchant_id": merchant})
        uds.unlink()
        stack.callback(Service.start(tmp_path, redis.url, uds=uds).stop)
        await until(lambda: nginx.healthz() == 200, "the service", 20 * SECOND)
        newest = await backend.notify(merchant)
        async with open_stream(nginx.url, merchant, seen) as back:
            missed = await back.next("refresh")

    assert not stream.is_complete
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert unknown.status_code == 503
    assert missed.id == newest


async def test_a_service_that_stops_says_goodbye_and_completes_the_response(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    async with AsyncExitStack() as stack:
        service = Service.start(tmp_path, redis.url, drain_s=0.5)
        stack.callback(service.stop)
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream))
        stream = await stack.enter_async_context(open_stream(nginx.url, merchant))
        await stream.next("refresh")

        status = await asyncio.to_thread(service.stop)
        await stream.wait_complete()

    assert status == 0
    assert stream.events[-1].type == "goodbye"
    assert json.loads(stream.events[-1].data) == {"reason": "server_stopping"}
    assert nginx.error_log == ""


async def test_a_reload_keeps_streams_open_and_they_hear_what_comes_after(
    service: Service, tmp_path: Path, merchant: str
) -> None:
    with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{service.port}") as nginx:
        async with (
            publishing(nginx.internal_url) as backend,
            open_stream(nginx.url, merchant) as stream,
        ):
            await stream.next("refresh")
            assert nginx.healthz(OUTSIDER) == 403
            site = nginx.folder / SITE
            site.write_text(site.read_text().replace("deny all;", f"allow {OUTSIDER}; deny all;"))

            nginx.reload()
            await until(lambda: nginx.healthz(OUTSIDER) == 200, "only new workers to accept")
            accepted = [await backend.notify(merchant)]
            await stream.next("refresh", 2)
            nginx.reload()
            accepted.append(await backend.notify(merchant))
            await stream.next("refresh", 3)

            assert [event.id for event in stream.refreshes[1:]] == accepted
            assert not has_ended(stream)


# -- what nginx asks, and what it makes of an answer


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncGenerator[tuple[Recorder, Nginx]]:
    recorder = Recorder()
    async with await asyncio.start_server(recorder.accept, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with Nginx.start(tmp_path / "nginx", f"127.0.0.1:{port}") as nginx:
            yield recorder, nginx
    async with asyncio.timeout(5 * SECOND):
        await asyncio.gather(*recorder.connections)


async def test_the_service_is_asked_for_one_path_and_told_who_asks(
    recorder: tuple[Recorder, Nginx],
) -> None:
    service, nginx = recorder
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


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_outage_that_the_service_tells_itself_is_answered_softly(
    recorder: tuple[Recorder, Nginx], status: int
) -> None:
    service, nginx = recorder
    service.answer = b"HTTP/1.1 %d Oops\r\nContent-Length: 4\r\n\r\noops" % status
    async with nginx.client() as client:
        soft = await client.get("/events", headers={"Accept": "text/event-stream"})
        told = await client.get("/events", headers={"Accept": "application/json"})

    assert soft.status_code == 200
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert told.status_code == 503


@pytest.mark.parametrize("status", [400, 401, 403, 405, 406])
async def test_what_will_not_get_better_passes_as_it_is(
    recorder: tuple[Recorder, Nginx], status: int
) -> None:
    service, nginx = recorder
    service.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    async with nginx.client() as client:
        answer = await client.get("/events", headers={"Accept": "text/event-stream"})

    assert (answer.status_code, answer.content) == (status, b"no")


async def test_a_notification_that_was_sent_is_not_sent_again(
    recorder: tuple[Recorder, Nginx],
) -> None:
    service, nginx = recorder
    async with nginx.client(internal=True) as client:
        accepted = await client.post("/notify", content=b"{}")
        service.answer = b""
        unanswered = await client.post("/notify", content=b"{}")

    assert accepted.status_code == 200
    assert unanswered.status_code == 503
    assert unanswered.json()["outcome"] == "unknown"
    assert len(service.requests) == 2


# -- doors


async def test_a_notification_from_this_machine_passes(
    nginx: Nginx, backend: Publisher, merchant: str
) -> None:
    assert EntryId.parse(await backend.notify(merchant))
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
async def test_what_is_not_for_the_world_is_not_on_the_public_server(
    recorder: tuple[Recorder, Nginx], path: str, source: str
) -> None:
    service, nginx = recorder
    method, path, headers = forged(path)
    async with nginx.client(source) as client:
        for spelled in (path, f"/{path}", f"/events/..{path}", f"/%{ord(path[1]):x}{path[2:]}"):
            answer = await client.request(method, spelled, json={}, headers=headers)

            assert answer.status_code == 404, spelled
            assert answer.json() == {"error": "not_found", "detail": "no such path"}
    assert service.requests == []


@pytest.mark.parametrize("path", INTERNAL)
async def test_the_internal_server_refuses_another_address(
    recorder: tuple[Recorder, Nginx], path: str
) -> None:
    service, nginx = recorder
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


async def test_a_stream_is_open_to_an_outsider(nginx: Nginx, merchant: str) -> None:
    async with (
        nginx.client(OUTSIDER) as client,
        client.stream("GET", f"/events?merchant_id={merchant}") as answer,
    ):
        assert answer.status_code == 200
        async with asyncio.timeout(5 * SECOND):
            assert (await anext(answer.aiter_raw())).startswith(b"retry: ")


async def test_another_path_is_not_there(nginx: Nginx) -> None:
    async with nginx.client() as client:
        for path in ("/", "/seats", "/events/", "/notify/x", "/sse_push_error"):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert answer.json() == {"error": "not_found", "detail": "no such path"}


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
        f"/events?{query}&merchant_id=another",
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


# -- the promise


async def test_every_browser_ends_with_the_newest_id(
    workers: Service, tmp_path: Path, merchant: str
) -> None:
    browsers = [f"{merchant}-{number % 25}" for number in range(100)]
    newest: defaultdict[str, EntryId] = defaultdict(lambda: EntryId(0, 0))

    async def notify(backend: Publisher) -> None:
        chosen = random.choice(browsers)
        accepted = await backend.notify(chosen, topic=random.choice(["seats", "orders"]))
        newest[chosen] = max(newest[chosen], EntryId.parse(accepted))

    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{workers.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream))
        backend = await stack.enter_async_context(publishing(nginx.internal_url))
        opening = (stack.enter_async_context(open_stream(nginx.url, name)) for name in browsers)
        streams = dict(enumerate(await asyncio.gather(*opening)))

        def are_current() -> bool:
            return all(
                streams[number].parser.last_event_id == str(newest[name])
                for number, name in enumerate(browsers)
                if name in newest
            )

        for _ in range(30):
            await asyncio.gather(*(notify(backend) for _ in range(10)))
        began = time.perf_counter()
        await until(are_current, "the newest ID everywhere")
        took_ms = (time.perf_counter() - began) * 1000

        assert not any(has_ended(stream) for stream in streams.values())

    processes = set()
    for number, stream in streams.items():
        ids = [EntryId.parse(event.id) for event in stream.refreshes if event.id]
        told = {json.loads(event.data)["merchant_id"] for event in stream.refreshes}
        assert ids == sorted(set(ids))
        assert told == {browsers[number]}
        (ready,) = stream.of("ready")
        processes.add(json.loads(ready.data)["connection_id"].partition("-")[0])
    sys.stdout.write(
        f"\n100 browsers on {len(processes)} workers were current {took_ms:.0f} ms after the last"
        f" of 300 answers\n"
    )
    assert nginx.error_log == ""


# -- numbers that must agree


def default(name: str) -> float:
    value: float = Settings.model_fields[name].default
    return value


def seconds(directive: str, text: str) -> float:
    return float(only_value(rf"{directive} +([0-9]+)s;", text))


def mebibytes(directive: str, text: str) -> float:
    return float(only_value(rf"{directive} +([0-9]+)m;", text)) * 1024 * 1024


def only_value(pattern: str, text: str) -> str:
    found = re.findall(rf"^ *{pattern}", text, re.MULTILINE)
    assert len(found) == 1, f"expected {pattern} once, got {found}"
    value: str = found[0]
    return value


def block(opening: str, text: str) -> str:
    """Return what stands in a block, without the blocks inside it."""
    _, found, rest = text.partition(f"{opening} {{\n")
    assert found, opening
    depth, kept = 1, ""
    for line in rest.split("\n"):
        code = "" if line.lstrip().startswith("#") else line
        opens, closes = code.rstrip().endswith("{"), code.strip() == "}"
        if depth == 1 and not opens and not closes:
            kept += f"{code}\n"
        depth += opens - closes
        if depth == 0:
            return kept
    raise AssertionError(opening)


def shipped(name: str) -> str:
    return (SHIPPED / name).read_text()


PROCESS = shipped("snippets/process.conf")
STREAM = shipped("snippets/event-stream.conf")
NOTIFY = shipped("snippets/notify.conf")
SHARED = shipped("conf.d/sse-push.conf")


def test_heartbeats_come_well_before_nginx_ends_a_silent_stream() -> None:
    assert default("heartbeat_s") * 2 < seconds("proxy_read_timeout", STREAM)


def test_the_service_answers_a_notification_before_nginx_gives_up() -> None:
    assert "_timeout " not in block("location = /notify", SHARED) + NOTIFY
    inherited = shipped("snippets/server.conf")

    assert default("notify_timeout_s") < seconds("proxy_read_timeout", inherited)
    assert default("notify_timeout_s") < seconds("proxy_send_timeout", inherited)


def test_the_service_is_first_to_end_a_stalled_stream() -> None:
    assert default("send_timeout_s") < seconds("send_timeout", STREAM)


def test_no_stream_outlives_a_worker_after_a_reload() -> None:
    longest = default("max_connection_age_s") * 1.2 + seconds("send_timeout", STREAM)
    assert longest < seconds("worker_shutdown_timeout", PROCESS)


def test_a_body_has_one_limit() -> None:
    assert default("body_limit_bytes") == mebibytes("client_max_body_size", NOTIFY)
    assert default("body_limit_bytes") == mebibytes("client_body_buffer_size", NOTIFY)


def test_nginx_is_first_to_close_an_idle_connection() -> None:
    assert seconds("keepalive_timeout", block("upstream sse_push", SHARED)) < server._KEEP_ALIVE_S


def test_soft_answers_ask_for_the_patience_that_the_service_asks_for() -> None:
    values = block("split_clients $request_id $sse_push_soft_retry_ms", SHARED)
    retries_ms = [int(found) for found in re.findall(r"([0-9]+);", values)]

    assert retries_ms[0] == default("soft_retry_min_ms")
    assert retries_ms[-1] <= default("soft_retry_max_ms")
    steps = {later - earlier for earlier, later in itertools.pairwise(retries_ms)}
    assert steps == {default("retry_ms")}


def test_nginx_asks_where_the_service_listens_by_default() -> None:
    host, port = (Settings.model_fields[name].default for name in ("host", "port"))
    assert f"server {host}:{port} " in block("upstream sse_push", SHARED)


def test_a_worker_may_open_more_files_than_connections() -> None:
    connections = int(only_value("worker_connections +([0-9]+);", PROCESS))
    assert connections < int(only_value("worker_rlimit_nofile +([0-9]+);", PROCESS))


def test_the_sum_of_connections_is_what_a_worker_may_have() -> None:
    connections = int(only_value("worker_connections +([0-9]+);", PROCESS))
    streams = int(only_value("limit_conn sse_push_worker +([0-9]+);", STREAM))
    said = PROCESS.partition("An event stream takes two")[2].replace("#", "")
    terms = re.search(
        r"2 \* (\d+).*?\+\s+(\d+).*?\+\s+(\d+).*?\+\s+(\d+).*?=\s+(\d+)", said, re.DOTALL
    )
    assert terms is not None
    each, *others, total = map(int, terms.groups())

    assert (each, total) == (streams, connections)
    assert 2 * each + sum(others) == total
    assert others[:2] == [
        int(only_value("keepalive +([0-9]+);", block(f"upstream {name}", SHARED)))
        for name in ("sse_push", "sse_push_backend")
    ]


def test_one_browser_stays_below_the_limit_of_its_address() -> None:
    """Its streams are those of one HTTP/2 connection: past that limit it gets no answer at all."""
    tls = shipped("snippets/tls.conf")
    of_a_browser = only_value("http2_max_concurrent_streams +([0-9]+);", tls)
    of_an_address = only_value("limit_conn sse_push_address +([0-9]+);", STREAM)

    assert int(of_a_browser) < int(of_an_address)


def test_the_main_files_differ_in_their_public_server_only() -> None:
    def directives(name: str) -> list[str]:
        lines = [line.strip() for line in shipped(name).splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    plain, tls = directives("nginx.conf"), directives("nginx-tls.conf")

    assert [line for line in plain if line not in tls] == ["listen 8080 sndbuf=32k backlog=4096;"]
    assert [line for line in tls if line not in plain] == [
        "listen 8443 ssl http2 sndbuf=32k backlog=4096;",
        "include snippets/tls.conf;",
    ]


# -- tools


def has_ended(stream: Stream) -> bool:
    return stream._task is not None and stream._task.done()


async def first_event_ms(port: int, merchant_id: str) -> float:
    """Return the time from connecting to the end of the first event."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET /events?merchant_id={merchant_id} HTTP/1.1\r\nHost: test\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        async with asyncio.timeout(5 * SECOND):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"event: ready\n")
            await reader.readuntil(b"\n\n")
    finally:
        writer.transport.abort()
    return (time.perf_counter() - began) * 1000
