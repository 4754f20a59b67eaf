"""The examination of a server."""

from __future__ import annotations

import re

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.stream import Finding, examine
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND
from tests.integration.stream.servers import Server, proxied, without_announcements

APPENDONLY_OFF = Finding(
    "warning",
    "appendonly is off: when Redis crashes, notifications since its last snapshot are lost, "
    "and every connected browser refetches",
)


async def test_a_server_is_examined_for_its_version_and_its_announcements(server: Server) -> None:
    info = server.cli("INFO", "server")
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.partition(f"{name}_version:")[2].split()[0]

    found, announces, evicts, persists = await examine(server.url, timeout_s=SECOND)

    assert found == Finding("ok", f"{name} {version}")
    assert announces.level == "ok"
    assert announces.text.startswith("a change is announced, ")
    assert evicts == Finding("ok", "nothing is evicted (maxmemory-policy noeviction)")
    assert persists == APPENDONLY_OFF
    assert server.clients("check") == []


async def test_eviction_causes_a_warning_and_persistence_none(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    mortal.cli("CONFIG", "SET", "appendonly", "yes")

    _, announces, evicts, persists = await examine(mortal.url, timeout_s=SECOND)

    assert announces.level == "ok"
    assert evicts == Finding(
        "warning",
        "maxmemory-policy is allkeys-lru: whole streams may vanish, and their browsers refetch; "
        "expected noeviction",
    )
    assert persists == Finding(
        "ok", "the append-only file is on: a crash of Redis loses no notification"
    )


async def test_a_policy_without_a_limit_evicts_nothing(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "allkeys-lru")

    _, _, evicts, _ = await examine(mortal.url, timeout_s=SECOND)

    assert evicts == Finding("ok", "nothing is evicted (maxmemory-policy allkeys-lru)")


async def test_a_server_without_announcements_fails_the_examination(own_redis: Server) -> None:
    async with proxied(own_redis.url, without_announcements) as url:
        _, announces, _, _ = await examine(url, timeout_s=0.2 * SECOND)

    assert announces == Finding(
        "failure",
        f"a change was not announced within {0.2 * SECOND:g} s: is this a proxy, or does the user "
        "lack rights? CLIENT TRACKING must reach the server itself",
    )


async def test_an_announcement_of_another_key_is_no_proof(own_redis: Server) -> None:
    def another(data: bytes) -> bytes:
        return re.sub(rb"(?<=\r\n)sse_push:probe:check-", b"sse_push:probe:other-", data)

    async with proxied(own_redis.url, another) as url:
        _, announces, _, _ = await examine(url, timeout_s=0.2 * SECOND)

    assert announces.level == "failure"


async def test_a_server_that_is_too_old_fails_the_examination(own_redis: Server) -> None:
    def older(data: bytes) -> bytes:
        return re.sub(rb"(?<=redis_version:)[0-9]", b"5", data)

    async with proxied(own_redis.url, older) as url:
        found, announces, _, _ = await examine(url, timeout_s=SECOND)

    assert found.level == "failure"
    assert re.fullmatch(r"redis 5\.[0-9.]+ is too old: expected 6\.2 or newer", found.text)
    assert announces.level == "ok"


async def test_a_server_that_does_not_answer_cannot_be_examined(mortal: Redis) -> None:
    with (
        frozen(mortal.process.pid),
        pytest.raises(StreamUnavailable, match="expected a Redis that answers, got: "),
    ):
        await examine(mortal.url, timeout_s=0.2 * SECOND)
    mortal.kill()
    with pytest.raises(StreamUnavailable, match=r"got: Error 111 connecting to 127\.0\.0\.1"):
        await examine(mortal.url, timeout_s=0.2 * SECOND)
