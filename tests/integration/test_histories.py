"""An ID names the history that it belongs to: what Redis has lost is told to who was away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from sse_push.notification import Change, Notification
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, Stream, open_stream, publishing
from tests.harness.waiting import SECOND, until, wait_for
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, follow, proxied, restart


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis that is meant to break."""
    server = Redis.start(tmp_path_factory.mktemp("frail"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hardened(frail: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service on ``frail``."""
    with serving(
        tmp_path_factory.mktemp("hardened"),
        frail.url,
        heartbeat_s=1,
        probe_interval_s=0.1 * SECOND,
        probe_deadline_s=2 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture
async def backend(hardened: Service) -> AsyncGenerator[Publisher]:
    wait_for(hardened.is_ready, "the service to be ready again")
    async with publishing(hardened.url) as publisher:
        yield publisher


def reasons(stream: Stream) -> list[str | None]:
    return [json.loads(event.data).get("reason") for event in stream.refreshes]


async def visit(service: Service, merchant: str, last_event_id: str | None) -> Stream:
    """Connect until a heartbeat has come after what was owed."""
    async with open_stream(service.url, merchant, last_event_id) as stream:
        await stream.next("heartbeat")
    return stream


async def test_a_change_that_redis_has_lost_is_told_to_a_browser_that_was_away(
    frail: Redis, hardened: Service, backend: Publisher, merchant: str
) -> None:
    known = await backend.notify(merchant)
    frail.cli("SAVE")
    await backend.notify(merchant)  # accepted, and lost
    frail.kill()
    restart(frail)
    await until(hardened.is_ready, "the service to be ready again")

    back = await visit(hardened, merchant, known)
    again = await visit(hardened, merchant, back.events[-1].id)

    # A probe that is late finds the change of server once more: a resync more, not one less.
    assert reasons(back)[0] == "missed"
    assert "missed" not in reasons(again)


async def test_an_id_of_notify_and_one_of_an_event_are_the_same(
    hardened: Service, backend: Publisher, merchant: str
) -> None:
    async with open_stream(hardened.url, merchant) as stream:
        await stream.next("refresh")
        accepted = await backend.notify(merchant)
        told = await stream.next("refresh", 2)
    async with open_stream(
        hardened.url, query=f"merchant_id={merchant}&last_event_id={accepted}"
    ) as stream:
        ready = await stream.next("ready")
        await stream.next("heartbeat")

    assert told.id == ready.id == accepted
    assert stream.refreshes == []


@pytest.mark.parametrize("history", ["", ".00000000"], ids=["none", "another"])
@pytest.mark.parametrize("is_newest", [True, False])
async def test_an_id_of_another_history_is_unknown_and_the_next_one_is_right(
    hardened: Service, backend: Publisher, merchant: str, history: str, *, is_newest: bool
) -> None:
    known = await backend.notify(merchant)
    newest = known if is_newest else await backend.notify(merchant)
    name = known.partition(".")[2]

    back = await visit(hardened, merchant, known.removesuffix(f".{name}") + history)
    again = await visit(hardened, merchant, back.events[-1].id)

    assert reasons(back) == ["missed"]
    assert back.refreshes[0].id == newest
    assert reasons(again) == []


async def test_a_browser_that_stays_learns_the_new_history(
    frail: Redis, hardened: Service, backend: Publisher, merchant: str
) -> None:
    before = await backend.notify(merchant)
    async with open_stream(hardened.url, merchant, before) as stream:
        await stream.next("ready")
        frail.cli("SAVE")
        frail.kill()
        restart(frail)
        told = await stream.next("refresh")
        wait_for(hardened.is_ready, "the service to be ready again")
        after = await backend.notify(merchant)
        await until(lambda: stream.parser.last_event_id == after, "a refresh")
    back = await visit(hardened, merchant, after)

    # A probe that is late finds the change of server once more: a resync more, not one less.
    assert reasons(stream)[0] == "resync"
    assert "missed" not in reasons(stream)
    entry_id, _, history = told.id.partition(".")
    assert entry_id == before.partition(".")[0]
    assert history != before.partition(".")[2]
    assert after.partition(".")[2] == history
    assert "missed" not in reasons(back)


async def test_a_server_that_was_a_replica_meanwhile_has_another_history(
    frail: Redis, hardened: Service, backend: Publisher, tmp_path: Path, merchant: str
) -> None:
    """Two failovers, there and back: the run is still the same, and has lost what it had alone."""
    known = await backend.notify(merchant)
    other = Redis.start(tmp_path)
    try:
        follow(other, frail)
        other.cli("REPLICAOF", "NO", "ONE")
        await backend.notify(merchant)  # accepted, and lost
        follow(frail, other)
        frail.cli("REPLICAOF", "NO", "ONE")
    finally:
        other.stop()

    async with open_stream(hardened.url, merchant, known) as back:
        await back.next("refresh")
    again = await visit(hardened, merchant, back.events[-1].id)

    assert reasons(back)[0] in ("missed", "resync")  # a probe finds the server changed
    assert reasons(again) == []


def without_run_id(data: bytes) -> bytes:
    return data.replace(b"run_id:", b"xun_id:")


async def test_a_server_that_does_not_tell_its_run_counts_as_another_one_each_time(
    redis: Redis, merchant: str
) -> None:
    server = Server(redis.url)
    newest = server.add(merchant)
    async with proxied(redis.url, without_run_id) as url, following(url) as followed:
        await followed.watch(merchant)
        server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
        changes = await followed.next()
        stored = await followed.appender.append(Notification(merchant))

    assert changes[0] == Change(merchant, newest, is_resync=True)
    assert followed.histories[0] == stored.history == ""
