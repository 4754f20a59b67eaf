"""The examination of a server."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.runtime.finding import Finding
from sse_push.stream import examine
from sse_push.stream.contract import REVOCATIONS_KEY
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, free_port, until
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, proxied, without_announcements

APPENDONLY_OFF = Finding(
    "warning",
    "persistence",
    "appendonly is off: when Redis crashes, notifications since its last snapshot are lost, "
    "and every connected browser refetches",
)


async def test_a_server_is_examined_for_its_version_and_its_announcements(server: Server) -> None:
    info = server.cli("INFO", "server")
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.partition(f"{name}_version:")[2].split()[0]

    found, announces, evicts, persists, _ = await examine(server.url, timeout_s=SECOND)

    assert found == Finding("ok", "version", f"{name} {version}")
    assert announces.level == "ok"
    assert announces.text.startswith("a change is announced and read, ")
    assert evicts == Finding("ok", "eviction", "nothing is evicted (maxmemory-policy noeviction)")
    assert persists == APPENDONLY_OFF
    assert server.clients("check") == []


async def test_eviction_causes_a_warning_and_persistence_none(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    mortal.cli("CONFIG", "SET", "appendonly", "yes")

    _, announces, evicts, persists, _ = await examine(mortal.url, timeout_s=SECOND)

    assert announces.level == "ok"
    assert evicts == Finding(
        "warning",
        "eviction",
        "maxmemory-policy is allkeys-lru: whole streams may vanish, and their browsers refetch; "
        "expected noeviction",
    )
    assert persists == Finding(
        "ok", "persistence", "the append-only file is on: a crash of Redis loses no notification"
    )


async def test_a_policy_without_a_limit_evicts_nothing(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "allkeys-lru")

    _, _, evicts, *_ = await examine(mortal.url, timeout_s=SECOND)

    assert evicts == Finding("ok", "eviction", "nothing is evicted (maxmemory-policy allkeys-lru)")


async def test_a_server_without_announcements_fails_the_examination(own_redis: Server) -> None:
    async with proxied(own_redis.url, without_announcements) as url:
        _, announces, *_ = await examine(url, timeout_s=0.2 * SECOND)

    assert announces == Finding(
        "failure",
        "delivery",
        f"a change was not announced within {0.2 * SECOND:g} s: is this a proxy? CLIENT TRACKING "
        "must reach the server itself",
    )


async def test_an_announcement_of_another_key_is_no_proof(own_redis: Server) -> None:
    def another(data: bytes) -> bytes:
        return re.sub(rb"(?<=\r\n)sse_push:{~check}", b"sse_push:{~other}", data)

    async with proxied(own_redis.url, another) as url:
        _, announces, *_ = await examine(url, timeout_s=0.2 * SECOND)

    assert announces.level == "failure"


async def test_a_server_that_is_too_old_fails_the_examination(own_redis: Server) -> None:
    def older(data: bytes) -> bytes:
        return re.sub(rb"(?<=redis_version:)[0-9]", b"5", data)

    async with proxied(own_redis.url, older) as url:
        found, announces, *_ = await examine(url, timeout_s=SECOND)

    assert found.level == "failure"
    assert re.fullmatch(r"redis 5\.[0-9.]+ is too old: expected 6\.2 or newer", found.text)
    assert announces.level == "ok"


@pytest.mark.parametrize("right", ["xrange", "xrevrange", "xadd", "expire", "client|tracking"])
async def test_a_right_that_is_missing_is_named(mortal: Redis, right: str) -> None:
    mortal.cli("ACL", "SETUSER", "default", f"-{right}")

    _, delivers, *_ = await examine(mortal.url, timeout_s=SECOND)

    assert delivers.level == "failure"
    assert delivers.text.startswith("expected that Redis does what the service asks, got: NOPERM ")
    assert f"'{right}'" in delivers.text


@pytest.mark.parametrize("right", ["eval", "xlen", "ttl"])
async def test_a_right_that_is_missing_for_planted_entries_causes_a_warning(
    mortal: Redis, right: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", f"-{right}")

    _, delivers, plants, *_ = await examine(mortal.url, timeout_s=SECOND)

    assert delivers.level == "ok"
    assert plants.level == "warning"
    assert plants.text.startswith("expected that Redis runs a script, and tells how long")
    assert f"'{right}'" in plants.text or right == "xlen"


async def test_a_user_without_the_right_to_info_cannot_be_served(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-info")

    (found,) = await examine(mortal.url, timeout_s=SECOND)

    assert found.level == "failure"
    assert found.text.startswith("expected an answer to INFO, got NOPERM ")


async def test_a_key_that_may_not_be_read_is_noticed(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "resetkeys", "~sse_push:{*")

    _, delivers, *_ = await examine(mortal.url, timeout_s=SECOND)

    assert delivers.level == "failure"
    assert "NOPERM" in delivers.text


async def test_a_replica_is_named(mortal: Redis, own_redis: Server) -> None:
    mortal.cli("REPLICAOF", *own_redis.url.removeprefix("redis://").split("/")[0].split(":"))

    _, delivers, *_ = await examine(mortal.url, timeout_s=SECOND)

    assert delivers == Finding(
        "failure",
        "replica",
        "this is a replica of 127.0.0.1, which takes no entries: expected the primary",
    )


async def test_a_node_of_a_cluster_is_named_and_never_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The usual port of its bus, 10 000 higher, may be taken by an outgoing connection.
    bus = ("--cluster-port", str(free_port()))
    node = Redis.start(tmp_path, "--cluster-enabled", "yes", *bus)
    try:
        node.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")  # all that there are
        _, delivers, *_ = await examine(node.url, timeout_s=SECOND)
        async with following(node.url) as followed:
            await until(lambda: "node of a cluster" in caplog.text, "the cause")
            age_s = followed.follower.age_s
    finally:
        node.kill()

    assert delivers.level == "failure"
    assert delivers.text.startswith("this is a node of a cluster, ")
    assert age_s == math.inf
    assert caplog.text.count("expected a single server, got a node of a cluster") == 1


async def test_a_password_that_is_wrong_is_named(mortal: Redis) -> None:
    url = mortal.url.replace("redis://", "redis://:wrong@")
    mortal.cli("CONFIG", "SET", "requirepass", "right")
    try:
        with pytest.raises(StreamUnavailable, match="expected a password that Redis accepts, got"):
            await examine(url, timeout_s=SECOND)
        with pytest.raises(StreamUnavailable, match="expected a password that Redis accepts, got"):
            await examine(mortal.url, timeout_s=SECOND)
    finally:
        mortal.kill()


async def test_an_address_that_leads_to_two_servers_is_noticed(
    own_redis: Server,
) -> None:
    """The entry is announced, but is not there for the read."""

    def change(data: bytes) -> bytes:
        return re.sub(rb"(\$15\r\n)1(?=\d{12}-\d\r\n\*2)", rb"\g<1>0", data)

    async with proxied(own_redis.url, change) as url:
        _, delivers, *_ = await examine(url, timeout_s=SECOND)

    assert delivers.level == "failure"
    assert "does the address lead to several servers?" in delivers.text


async def test_a_server_that_does_not_answer_cannot_be_examined(mortal: Redis) -> None:
    with (
        frozen(mortal.process.pid),
        pytest.raises(StreamUnavailable, match="expected a Redis that answers, got: "),
    ):
        await examine(mortal.url, timeout_s=0.2 * SECOND)
    mortal.kill()
    with pytest.raises(StreamUnavailable, match=r"got: Error 111 connecting to 127\.0\.0\.1"):
        await examine(mortal.url, timeout_s=0.2 * SECOND)


@pytest.mark.parametrize(
    ("field", "output", "level", "text"),
    [
        ("512mb", "0", "warning", "proto-max-bulk-len is 536870912 bytes: "),
        ("8mb", "0", "ok", "a field of an entry has 8388608 bytes at most"),
        ("8mb", "1mb", "ok", "a field of an entry has 8388608 bytes at most"),
        ("8mb", "100kb", "warning", "client-output-buffer-limit normal is 102400 bytes: "),
    ],
)
async def test_entries_without_a_bound_or_replies_with_a_low_one_cause_a_warning(
    mortal: Redis, field: str, output: str, level: str, text: str
) -> None:
    mortal.cli("CONFIG", "SET", "proto-max-bulk-len", field)
    mortal.cli("CONFIG", "SET", "client-output-buffer-limit", f"normal {output} 0 0")

    *_, sizes = await examine(mortal.url, timeout_s=SECOND)

    assert sizes.level == level
    assert sizes.text.startswith(text)


async def test_a_user_without_the_right_to_the_configuration_is_told_what_is_expected(
    mortal: Redis,
) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-config")

    *_, sizes = await examine(mortal.url, timeout_s=SECOND)

    assert sizes == Finding(
        "ok", "sizes", "proto-max-bulk-len can't be read by this user: expected 8mb or less"
    )


async def test_a_revocation_that_is_too_large_fails_the_examination(clear: Server) -> None:
    script = "redis.call('XADD', KEYS[1], '*', 'jti', string.rep('x', 3000000))"
    clear.cli("EVAL", script, "1", REVOCATIONS_KEY)
    try:
        with pytest.raises(StreamUnavailable, match="expected a reply of at most 1048576 bytes"):
            await examine(clear.url, timeout_s=SECOND)
    finally:
        clear.cli("DEL", REVOCATIONS_KEY)
