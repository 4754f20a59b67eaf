"""The service as processes: workers, the listening socket, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from sse_push.errors import ConfigError
from sse_push.notification import EventId
from sse_push.server import listening_socket, warn_of_trust
from sse_push.settings import Settings
from tests.harness import plain_http
from tests.harness.processes import command_of, workers_of
from tests.harness.programs import Running, run
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, Stream, open_stream, publishing
from tests.harness.waiting import SECOND, STOP_S, free_port, until, wait_for


@asynccontextmanager
async def open_streams(url: str, merchants: list[str]) -> AsyncGenerator[list[Stream]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_stream(url, merchant)) for merchant in merchants
        ]


def processes_of(streams: list[Stream]) -> set[str]:
    ready = [json.loads(stream.of("ready")[0].data) for stream in streams]
    return {data["connection_id"].partition("-")[0] for data in ready}


async def test_a_notification_accepted_by_one_worker_reaches_the_browsers_of_all(
    workers: Service, merchant: str
) -> None:
    publisher = Publisher(workers.url)
    async with open_streams(workers.url, [merchant] * 40) as streams:
        for stream in streams:
            await stream.next("refresh")
        accepted = await publisher.notify(merchant)
        for stream in streams:
            await stream.next("refresh", 2)
    await publisher.close()

    assert len(processes_of(streams)) == 2
    assert {stream.refreshes[1].id for stream in streams} == {accepted}


async def test_every_browser_gets_the_newest_id_of_its_merchant_and_no_other_merchant(
    redis: Redis, workers: Service, merchant: str
) -> None:
    """200 browsers of 50 merchants, two workers, 1 000 notifications at random."""
    merchants = [f"{merchant}-{number}" for number in range(50)]
    chance = random.Random(1)
    newest: dict[str, EventId] = {}
    publishers = [Publisher(workers.url) for _ in range(8)]
    before = {name: redis.connections(name) for name in ("append", "tail", "probe")}

    async with open_streams(workers.url, merchants * 4) as streams:

        async def publish(publisher: Publisher) -> None:
            for _ in range(125):
                chosen = chance.choice(merchants)
                accepted = EventId.parse(await publisher.notify(chosen, topic="seats"))
                newest[chosen] = max(newest.get(chosen, accepted), accepted)

        await asyncio.gather(*map(publish, publishers))
        after = {name: redis.connections(name) for name in before}
        for chosen, stream in zip(merchants * 4, streams, strict=True):
            if chosen in newest:
                await until(lambda: stream.parser.last_event_id == str(newest[chosen]), chosen)  # noqa: B023
    for publisher in publishers:
        await publisher.close()

    for chosen, stream in zip(merchants * 4, streams, strict=True):
        assert {json.loads(event.data)["merchant_id"] for event in stream.refreshes} == {chosen}
        ids = [EventId.parse(event.id) for event in stream.refreshes if event.id]
        assert ids == sorted(ids)
    assert len(processes_of(streams)) == 2
    # Each of the two workers has one tail; other connections are made when first needed.
    assert after["tail"] == before["tail"]
    assert after["append"] - before["append"] <= 2
    assert after["probe"] - before["probe"] <= 2


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that everybody may enter: that of pytest is for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(("given", "mode"), [({}, 0o666), ({"uds_mode": "0660"}, 0o660)])
def test_a_unix_socket_has_the_mode_of_the_setting(
    open_folder: Path, caplog: pytest.LogCaptureFixture, given: dict[str, str], mode: int
) -> None:
    path = open_folder / "push.sock"
    with listening_socket(Settings.load(uds=str(path), **given)):
        assert stat.S_IMODE(path.stat().st_mode) == mode

    is_for_all = mode == 0o666
    assert ("every user of this machine may connect" in caplog.text) == is_for_all


def test_a_unix_socket_for_all_is_refused_if_its_peers_name_merchants(open_folder: Path) -> None:
    path = open_folder / "push.sock"
    by_header = {"uds": str(path), "subscribe_auth": "header"}

    with pytest.raises(ConfigError, match="expected a folder that only the proxy may enter"):
        listening_socket(Settings.load(**by_header))
    assert not path.exists()

    listening_socket(Settings.load(**by_header, uds_mode="0660")).close()
    path.unlink()
    open_folder.chmod(0o700)
    listening_socket(Settings.load(**by_header)).close()


@pytest.mark.parametrize(("proxies", "count"), [("0.0.0.0/0", 1), ("10.0.0.0/8", 0), ("::/0", 1)])
def test_a_network_of_all_addresses_is_warned_of(
    caplog: pytest.LogCaptureFixture, proxies: str, count: int
) -> None:
    warn_of_trust(Settings.load(trusted_proxies=proxies))

    assert caplog.text.count("any client may claim any address") == count


def test_backends_that_need_no_key_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.load(swoole_compat="on", trusted_backends="10.1.0.0/16, 127.0.0.1")

    warn_of_trust(settings)

    expected = "backends may notify without a key trusted_backends=10.1.0.0/16,127.0.0.1/32"
    assert [record.getMessage() for record in caplog.records] == [expected]


@pytest.mark.parametrize(
    ("host", "listens", "keys", "count"),
    [
        ("0.0.0.0", True, "none", 1),
        ("127.0.0.1", True, "none", 0),
        ("127.0.0.1", False, "none", 1),
        ("0.0.0.0", True, KEY, 0),
        ("0.0.0.0", False, KEY, 0),
    ],
)
def test_a_service_that_needs_no_key_and_is_open_to_others_is_warned_of(
    caplog: pytest.LogCaptureFixture, host: str, listens: object, keys: str, count: int
) -> None:
    settings = Settings.load(host=host, notify_keys=keys, subscribe_auth="none")
    warn_of_trust(settings, listens=bool(listens))

    assert caplog.text.count("anyone who reaches this address may listen and notify") == count


def test_accepted_connections_inherit_the_options_of_the_listening_socket() -> None:
    settings = Settings(port=0, send_buffer_bytes=16_384, tcp_user_timeout_ms=12_345)
    with (
        listening_socket(settings) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = listening.accept()
        with accepted:
            size_bytes = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            timeout_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            unsent_bytes = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            nodelay = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert size_bytes == 2 * 16_384  # Linux doubles it, for its own bookkeeping
    assert timeout_ms == 12_345
    assert unsent_bytes == 16_384
    assert nodelay == 1


async def test_a_sleeping_reader_finds_few_events_waiting(redis: Redis, tmp_path: Path) -> None:
    # A busy machine needs longer for the notifications than a reader may sleep by default.
    patient = {"send_timeout_s": 300, "tcp_user_timeout_ms": 300_000}
    service = Service.start(tmp_path, redis.url, refresh_interval_ms=1, settings=patient)
    publisher = Publisher(service.url)
    try:
        async with open_stream(service.url, "sleeper") as stream:
            await stream.next("refresh")
            stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(1500):
                newest = await publisher.notify("sleeper", data="x" * 500)
            before = len(stream.refreshes)
            stream.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await until(lambda: stream.parser.last_event_id == newest, "the newest ID", 20 * SECOND)
            found = len(stream.refreshes) - before
    finally:
        await publisher.close()
        assert service.stop() == 0

    assert found < 750


async def test_a_unix_socket_serves_and_a_stale_one_is_replaced(
    redis: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "sse.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    service = Service.start(tmp_path, redis.url, uds=path)
    transport = httpx2.AsyncHTTPTransport(uds=str(path), retries=20)
    async with plain_http.AsyncClient(transport=transport, base_url="http://unix") as client:
        answer = await client.post(
            "/notify", json={"merchant_id": 42}, headers={"Authorization": f"Bearer {KEY}"}
        )
        async with client.stream("GET", "/events?merchant_id=42") as stream:
            first = await anext(stream.aiter_raw())

    assert answer.status_code == 200
    assert first.startswith(b"retry: ")
    assert service.stop() == 0
    assert not path.exists()


def test_a_unix_socket_that_is_served_is_not_taken_away(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "sse.sock"
    arguments = ["serve", "--uds", str(path), "--redis-url", redis.url]
    arguments += ["--subscribe-auth", "none", "--notify-keys", "none"]
    first = Running.start(tmp_path, *arguments)

    def accepts() -> bool:
        with socket.socket(socket.AF_UNIX) as trial:
            return trial.connect_ex(str(path)) == 0

    try:
        wait_for(accepts, "the first")
        second = run(*arguments)
        with plain_http.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
            alive = client.get("http://unix/healthz")
        status = first.press_ctrl_c()
    finally:
        first.kill()

    assert second.returncode == 2
    assert second.stderr.startswith(
        f"sse-push: expected to listen on {path}: Address already in use;"
    )
    assert alive.status_code == 200
    assert status == 0


def test_a_file_that_is_no_socket_is_not_replaced(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")

    done = run(
        *("serve", "--uds", str(path), "--redis-url", redis.url),
        *("--subscribe-auth", "none", "--notify-keys", "none"),
    )

    assert done.returncode == 2
    assert done.stderr.startswith(
        f"sse-push: expected to listen on {path}: Address already in use;"
    )
    assert path.read_text() == "mine"


def test_each_worker_logs_as_a_single_one_does(workers: Service) -> None:
    connected = [line for line in workers.log.splitlines() if "tail connected" in line]

    assert len(connected) >= 2
    for line in connected:
        assert re.match(
            r"time=[-0-9]{10}T[:.0-9]{12}Z level=info logger=sse_push\.stream\.follow "
            r'message="tail connected" merchants=\d+$',
            line,
        )


def test_an_address_in_use_is_reported_in_one_line(redis: Redis, service: Service) -> None:
    done = run(
        *("serve", "--port", str(service.port), "--redis-url", redis.url),
        *("--subscribe-auth", "none", "--notify-keys", "none"),
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("another port is SSE_PUSH_PORT (--port)")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_every_connection_with_a_goodbye_and_a_complete_response(
    tmp_path: Path, number: signal.Signals, workers: str
) -> None:
    redis = Redis.start(tmp_path)
    service = Service.start(tmp_path, redis.url, "--workers", workers, drain_s=SECOND)
    publisher = Publisher(service.url)
    try:
        async with open_streams(service.url, [f"m{each % 5}" for each in range(150)]) as streams:
            for stream in streams:
                await stream.next("refresh")

            service.process.send_signal(number)
            for stream in streams:
                await stream.wait_complete()
    finally:
        status = service.process.wait(STOP_S)
        await publisher.close()

    assert status == 0
    service.assert_no_errors()
    assert all(stream.events[-1].type == "goodbye" for stream in streams)
    assert {stream.events[-1].data for stream in streams} == {'{"reason":"server_stopping"}'}
    assert len({stream.parser.retry_s for stream in streams}) > 50
    wait_for(lambda: "sse_push" not in redis.cli("CLIENT", "LIST"), "no connection of ours")
    redis.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_all_processes_at_once_is_one_signal(
    redis: Redis, tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C goes to the whole group, systemd's SIGTERM to the whole cgroup."""
    service = Service.start(tmp_path, redis.url, "--workers", "2", drain_s=SECOND)
    async with open_streams(service.url, [f"m{each % 5}" for each in range(200)]) as streams:
        for stream in streams:
            await stream.next("refresh")

        for pid in (service.process.pid, *service.workers):
            os.kill(pid, number)
        await until(lambda: all(stream._task.done() for stream in streams), "their end")  # type: ignore[union-attr]
    status = service.process.wait(STOP_S)

    assert status == 0
    assert [stream.is_complete for stream in streams] == [True] * 200
    service.assert_no_errors()


@pytest.fixture
def full_pipe() -> Generator[int]:
    """The writer's end of a pipe that nobody reads, and that has no room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 1024)
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_log_that_nobody_reads_holds_nothing_up(
    redis: Redis, full_pipe: int, merchant: str, tmp_path: Path, workers: str
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "sse_push", "serve", "--port", str(port), "--redis-url"]
    command += [redis.url, "--subscribe-auth", "none", "--notify-keys", KEY, "--workers", workers]
    unread = tmp_path / "unread"
    unread.touch()
    service = Service(subprocess.Popen(command, stderr=full_pipe), unread, unread, port)
    try:
        service.wait_ready()
        async with open_stream(service.url, merchant) as stream, publishing(service.url) as backend:
            await stream.next("refresh")
            await backend.notify(merchant)
            await stream.next("refresh", 2)
        status = service.stop()
    finally:
        service.kill()

    assert status == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_signal_ends_the_service_at_once(
    redis: Redis, tmp_path: Path, workers: str
) -> None:
    service = Service.start(tmp_path, redis.url, "--workers", workers, drain_s=600)
    async with open_streams(service.url, ["busy"] * 400) as streams:
        for stream in streams:
            await stream.next("refresh")
        # No client reads any more, so that goodbyes alone would not end the service.
        for stream in streams:
            stream.writer.transport.pause_reading()  # type: ignore[attr-defined]

        service.process.terminate()
        await until(lambda: not service.is_ready(), "the drain")
        service.process.terminate()

        status = await asyncio.to_thread(service.process.wait, STOP_S)

    assert status == 0, service.log
    service.assert_no_errors()


async def test_a_worker_that_is_killed_is_replaced_and_its_browsers_miss_nothing(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    service = Service.start(tmp_path, redis.url, "--workers", "2", probe_interval_s=0.2)
    publisher = Publisher(service.url)
    victim, _ = service.workers
    async with open_streams(service.url, [merchant] * 20) as streams:
        for stream in streams:
            await stream.next("refresh")
        seen = await publisher.notify(merchant)
        for stream in streams:
            await stream.next("refresh", 2)

        os.kill(victim, signal.SIGKILL)
        await until(lambda: any(stream._task.done() for stream in streams), "a cut")  # type: ignore[union-attr]
        missed = await publisher.notify(merchant, topic="seats")

        async with open_stream(service.url, merchant, seen) as back:
            await back.next("refresh")
        alive = [stream for stream in streams if not stream._task.done()]  # type: ignore[union-attr]
        for stream in alive:
            await stream.next("refresh", 3)
    await publisher.close()
    wait_for(lambda: len(service.workers) == 2, "a new worker")
    wait_for(service.is_ready, "both workers ready")

    assert 0 < len(alive) < 20
    assert back.refreshes[0].id == missed
    assert victim not in service.workers
    assert service.stop() == 0


def test_workers_end_with_their_supervisor(redis: Redis, tmp_path: Path) -> None:
    service = Service.start(tmp_path, redis.url, "--workers", "2", drain_s=0)
    orphans = service.workers

    service.process.kill()
    service.process.wait(STOP_S)

    assert len(orphans) == 2
    wait_for(lambda: not any(map(command_of, orphans)), "the workers' end")


def test_workers_end_whose_supervisor_was_killed_while_they_started(
    redis: Redis, tmp_path: Path
) -> None:
    starting = Running.start(
        tmp_path,
        *("serve", "--workers", "2", "--port", str(free_port()), "--redis-url", redis.url),
        *("--subscribe-auth", "none", "--notify-keys", KEY),
    )
    workers: list[int] = []
    try:
        # A worker runs for some 0.4 s before it can ask who its parent is.
        wait_for(lambda: len(workers_of(starting.process.pid)) == 2, "two workers that start")
        workers = workers_of(starting.process.pid)
        starting.kill()

        wait_for(lambda: not any(map(command_of, workers)), "the workers' end")
    finally:
        for worker in filter(command_of, workers):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("count", [1, 2])
def test_a_rolling_restart_keeps_the_port_open(redis: Redis, tmp_path: Path, count: int) -> None:
    service = Service.start(tmp_path, redis.url, "--workers", str(count), drain_s=0.5)
    before = set(service.workers)

    service.process.send_signal(signal.SIGHUP)
    answers = []

    def is_replaced() -> bool:
        answers.append(plain_http.get(f"{service.url}/healthz").status_code)
        now = set(service.workers)
        return len(now) == count and not now & before

    try:
        wait_for(is_replaced, "new workers")
    finally:
        status = service.stop()

    assert status == 0
    assert set(answers) == {200}
    service.assert_no_errors()


def test_a_process_opens_as_many_files_as_the_system_allows(redis: Redis, tmp_path: Path) -> None:
    command = ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "-", sys.executable, "-m", "sse_push"]
    command += ["serve", "--uds", str(tmp_path / "s"), "--redis-url", redis.url]
    command += ["--subscribe-auth", "none", "--notify-keys", "none"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def soft() -> set[str]:
        files = [Path(f"/proc/{pid}/limits") for pid in workers_of(process.pid)]
        lines = [line for file in files for line in file.read_text().splitlines()]
        return {line.split()[3] for line in lines if line.startswith("Max open files")}

    try:
        wait_for(lambda: soft() not in (set(), {"256"}), "a higher limit")
    finally:
        process.terminate()
        assert process.wait(STOP_S) == 0
