"""Redis goes away, and callers do: what /notify answers, and what is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sse_push.notification import EventId
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, until, wait_for
from tests.integration.http.stored import NAME, appends, entries, key_of

OTHER_KEY = "another-key-of-the-tests-9876fedc5432ba10"


# -- a Redis that goes away


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis that is meant to break."""
    server = Redis.start(tmp_path_factory.mktemp("frail"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hardened(frail: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service on ``frail``, with two keys, and times that tests can wait for."""
    with serving(
        tmp_path_factory.mktemp("hardened"),
        frail.url,
        "--notify-keys",
        f"{OTHER_KEY}, {KEY}",
        notify_timeout_s=SECOND,
        probe_interval_s=0.1 * SECOND,
        probe_deadline_s=2 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture
async def caller(hardened: Service) -> AsyncGenerator[Publisher]:
    wait_for(hardened.is_ready, "the service to be ready again")
    backend = Publisher(hardened.url)
    yield backend
    await backend.close()


@contextmanager
def killed(redis: Redis) -> Generator[None]:
    """Kill this Redis; at the end a new, empty one has its port."""
    redis.kill()
    try:
        yield
    finally:
        redis.process = Redis.start(redis.folder, port=redis.port).process


async def test_several_keys_are_valid_at_the_same_time(
    hardened: Service, caller: Publisher, merchant: str
) -> None:
    other = Publisher(hardened.url, OTHER_KEY)
    stranger = Publisher(hardened.url, OTHER_KEY + "x")
    try:
        answers = [
            await backend.post(json={"merchant_id": merchant})
            for backend in (caller, other, stranger)
        ]
    finally:
        await other.close()
        await stranger.close()

    assert [answer.status_code for answer in answers] == [200, 200, 401]


async def test_a_notification_without_redis_was_certainly_not_published(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    await caller.notify(merchant)
    with killed(frail):
        single = await caller.post(json={"merchant_id": merchant})
        several = await caller.post(json=[{"merchant_id": merchant}, {}])

    assert single.status_code == 503
    assert single.headers["retry-after"] == "2"
    assert single.json().keys() == {"error", "detail", "outcome"}
    assert single.json()["error"] == "unavailable"
    assert single.json()["detail"].startswith("expected a connection to Redis, got none")
    assert single.json()["outcome"] == "not_published"
    assert several.status_code == 503
    assert several.headers["retry-after"] == "2"
    assert several.json()["error"] == "unavailable"
    assert several.json()["detail"].startswith("1 of 2 not stored: ")
    assert several.json()["outcome"] == "not_published"
    assert several.json()["results"] == [
        single.json(),
        {"error": "malformed", "detail": f"merchant_id: expected {NAME}, or an integer; got none"},
    ]
    assert entries(frail, merchant) == 0
    assert (await caller.post(json={"merchant_id": merchant})).status_code == 200


async def test_a_refusal_does_not_disclose_where_redis_is(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    with killed(frail):
        answer = await caller.post(json={"merchant_id": merchant})

    assert str(frail.port) not in answer.text
    assert "127.0.0.1" not in answer.text


async def test_a_notification_to_a_hanging_redis_is_answered_in_time_with_its_outcome(
    frail: Redis, tmp_path: Path, merchant: str
) -> None:
    """Without a probe on its way as Redis freezes, behind which a notification would wait."""
    pace: dict[str, object] = {"probe_interval_s": 60, "probe_deadline_s": 60, "deaf_limit_s": 60}
    with serving(tmp_path, frail.url, notify_timeout_s=SECOND, drain_s=0, settings=pace) as quiet:
        caller = Publisher(quiet.url)
        await caller.notify(merchant)  # so that there is a connection to send by
        with frozen(frail.process.pid):
            sent = await caller.post(json={"merchant_id": merchant})
            waited = await caller.post(json={"merchant_id": merchant})
        await caller.close()

    for answer in (sent, waited):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.elapsed.total_seconds() < 2 * SECOND
    assert sent.json()["outcome"] == "unknown"
    assert waited.json()["outcome"] == "not_published"


async def test_readiness_is_red_while_redis_hangs_and_green_again_after(
    frail: Redis, hardened: Service, caller: Publisher
) -> None:
    with frozen(frail.process.pid):
        await until(lambda: not hardened.is_ready(), "not ready", 4 * SECOND)
        red = await caller.client.get("/readyz")
        alive = await caller.client.get("/healthz")

    await until(hardened.is_ready, "ready again")
    assert red.json()["ready"] is False
    assert red.json()["probe_age_s"] >= 2 * SECOND - 0.1
    assert alive.status_code == 200


async def test_a_key_of_a_wrong_type_fails_its_own_merchant_only(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    bad = f"{merchant}-bad"
    frail.cli("SET", key_of(bad), "a text")

    single = await caller.post(json={"merchant_id": bad})
    several = await caller.post(
        json=[{"merchant_id": merchant}, {"merchant_id": bad}, {"merchant_id": merchant}]
    )

    refused = {
        "error": "unavailable",
        "detail": "Redis refused the entry: WRONGTYPE Operation against a key holding the wrong"
        f" kind of value; DEL {key_of(bad)} in Redis ends that",
        "outcome": "not_published",
    }
    assert (single.status_code, single.json()) == (503, refused)
    assert several.status_code == 503
    first, second, third = several.json()["results"]
    assert second == refused
    assert EventId.parse(first["id"]) < EventId.parse(third["id"])
    assert several.json()["detail"] == f"1 of 3 not stored: {refused['detail']}"
    assert entries(frail, merchant) == 2


# -- callers that go away


async def begin_request(service: Service, *lines: str) -> asyncio.StreamWriter:
    """Send the beginning of a request, or all of it, without reading the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    return writer


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_callers_that_leave_leave_no_connection_behind(
    frail: Redis, hardened: Service, caller: Publisher, merchant: str
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{hardened.worker}/fd").iterdir()))

    body = json.dumps({"merchant_id": merchant})
    request = ["POST /notify HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}"]
    request += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
    await caller.notify(merchant)
    before = descriptors()

    with frozen(frail.process.pid):
        writers = [await begin_request(hardened, *request) for _ in range(50)]
        await until(lambda: descriptors() >= before + 50, "50 callers")
        for writer in writers:
            writer.transport.abort()
        await until(lambda: descriptors() <= before + 1, "no caller")
    await until(hardened.is_ready, "ready again")

    assert (await caller.post(json={"merchant_id": merchant})).status_code == 200


async def test_a_caller_that_leaves_in_the_middle_of_its_body_causes_no_error(
    frail: Redis, hardened: Service, caller: Publisher, merchant: str
) -> None:
    before = appends(frail)
    writer = await begin_request(
        hardened,
        "POST /notify HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {KEY}",
        "Content-Length: 1000",
        "",
        f'{{"merchant_id": "{merchant}", ',
    )
    await caller.client.get("/healthz")  # it has come that far
    writer.transport.abort()
    await caller.client.get("/healthz")

    answer = await caller.post(json={"merchant_id": merchant})

    assert answer.status_code == 200
    assert appends(frail) == before + 1
    hardened.assert_no_errors()
