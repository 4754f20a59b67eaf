"""The examination of a server."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from sse_push.runtime.finding import Finding
from sse_push.stream import Keys, examine
from tests.harness.keys import KEYS, REVOCATIONS_KEY
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.waiting import SECOND, free_port, until
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, follow, proxied, without_announcements

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

    found, announces, evicts, persists, _ = await examine(server.url, KEYS, timeout_s=SECOND)

    assert found == Finding("ok", "version", f"{name} {version}")
    assert announces.level == "ok"
    assert announces.text.startswith("a change is announced and read, ")
    assert evicts == Finding("ok", "eviction", "nothing is evicted (maxmemory-policy noeviction)")
    assert persists == APPENDONLY_OFF
    assert server.clients("check") == []


async def test_eviction_causes_a_warning_and_persistence_none(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    mortal.cli("CONFIG", "SET", "appendonly", "yes")

    _, announces, evicts, persists, _ = await examine(mortal.url, KEYS, timeout_s=SECOND)

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

    _, _, evicts, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert evicts == Finding("ok", "eviction", "nothing is evicted (maxmemory-policy allkeys-lru)")


async def test_a_server_without_announcements_fails_the_examination(own_redis: Server) -> None:
    async with proxied(own_redis.url, without_announcements) as url:
        _, announces, *_ = await examine(url, KEYS, timeout_s=0.2 * SECOND)

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
        _, announces, *_ = await examine(url, KEYS, timeout_s=0.2 * SECOND)

    assert announces.level == "failure"


def older(data: bytes) -> bytes:
    return re.sub(rb"(?<=redis_version:)[0-9]", b"5", data)


async def test_a_server_that_is_too_old_fails_the_examination(own_redis: Server) -> None:
    async with proxied(own_redis.url, older) as url:
        found, announces, *_ = await examine(url, KEYS, timeout_s=SECOND)

    assert found.level == "failure"
    assert re.fullmatch(r"redis 5\.[0-9.]+ is too old: expected 6\.2 or newer", found.text)
    assert announces.level == "ok"


@pytest.mark.parametrize(
    ("right", "command"), [("xrange", "xrange"), ("xadd", "xadd"), ("client|setname",) * 2]
)
async def test_a_right_that_is_missing_is_named_with_its_cure(
    mortal: Redis, right: str, command: str
) -> None:
    mortal.cli("ACL", "SETUSER", "push", "on", ">pass word", "~*", "&*", "+@all", f"-{right}")
    url = mortal.url.replace("redis://", "redis://push:pass%20word@")

    _, refused, *_ = await examine(url, KEYS, timeout_s=SECOND)

    assert refused == Finding(
        "failure",
        "rights",
        f"the user push of Redis lacks +{command} (which the service needs): "
        f"ACL SETUSER push +{command}",
    )


async def test_all_rights_that_are_missing_are_named_together(mortal: Redis) -> None:
    rights = ("-xrevrange", "-client|setname", "-expire", "-time")
    mortal.cli("ACL", "SETUSER", "default", *rights)

    _, needed, *others = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert needed.text.startswith("the user default of Redis lacks +client|setname +xrevrange (")
    assert [other.text.split(" (")[0] for other in others if other.name == "rights"] == [
        "the user default of Redis lacks +time",
        "the user default of Redis lacks +expire",
    ]


@pytest.mark.parametrize("right", ["time", "expire"])
async def test_a_right_without_which_the_service_works_causes_a_warning(
    mortal: Redis, right: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", f"-{right}")

    findings = {each.name: each for each in await examine(mortal.url, KEYS, timeout_s=SECOND)}

    assert findings["delivery"].level == "ok"
    assert findings["rights"].level == "warning"
    assert findings["rights"].text.startswith(f"the user default of Redis lacks +{right} (")


@pytest.mark.parametrize("right", ["eval", "xlen", "ttl"])
async def test_a_right_that_is_missing_for_planted_entries_causes_a_warning(
    mortal: Redis, right: str
) -> None:
    mortal.cli("ACL", "SETUSER", "default", f"-{right}")

    _, delivers, plants, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert delivers.level == "ok"
    assert plants.level == "warning"
    assert plants.text.startswith("expected that Redis runs a script, and tells how long")
    assert f"'{right}'" in plants.text or right == "xlen"


async def test_a_user_without_the_right_to_info_is_examined_all_the_same(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-info")

    refused, delivery, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert refused.text.startswith("the user default of Redis lacks +info (")
    assert delivery.level == "ok"


@pytest.mark.parametrize("keys", [KEYS, Keys("shop")])
async def test_a_key_that_may_not_be_read_is_noticed(mortal: Redis, keys: Keys) -> None:
    mortal.cli("ACL", "SETUSER", "default", "resetkeys", f"~{keys.prefix}:{{*")

    _, delivers, *_ = await examine(mortal.url, keys, timeout_s=SECOND)

    assert delivers.level == "failure"
    assert delivers.text.endswith(f"ACL SETUSER default ~{keys.pattern}")


async def test_a_service_with_another_prefix_needs_no_right_to_other_keys(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "resetkeys", "~shop:*")

    findings = await examine(mortal.url, Keys("shop"), timeout_s=SECOND)

    assert {each.level for each in findings if each.name in ("delivery", "rights")} == {"ok"}


async def test_a_replica_is_named(mortal: Redis, own_redis: Server) -> None:
    mortal.cli("REPLICAOF", *own_redis.url.removeprefix("redis://").split("/")[0].split(":"))

    _, delivers, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)

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
        _, delivers, *_ = await examine(node.url, KEYS, timeout_s=SECOND)
        async with following(node.url) as followed:
            await until(lambda: "node of a cluster" in caplog.text, "the cause")
            age_s = followed.follower.age_s
    finally:
        node.kill()

    assert delivers.level == "failure"
    assert delivers.text.startswith("this is a node of a cluster, ")
    assert age_s == math.inf
    assert caplog.text.count("expected a single server, got a node of a cluster") == 1


async def test_a_password_that_is_missing_and_one_that_is_wrong_are_told_apart(
    mortal: Redis,
) -> None:
    mortal.cli("CONFIG", "SET", "requirepass", "right")
    names = []
    for user in ("", ":wrong@", "nobody:hunter2@"):
        url = mortal.url.replace("redis://", f"redis://{user}")
        (finding,) = await examine(url, KEYS, timeout_s=SECOND)
        assert finding.text.startswith(f"127.0.0.1:{mortal.port}: expected ")
        assert "hunter2" not in finding.text
        names.append(finding.name)

    assert names == ["password_missing", "password_wrong", "password_wrong"]


async def test_an_address_that_leads_to_two_servers_is_noticed(
    own_redis: Server,
) -> None:
    """The entry is announced, but is not there for the read."""

    def change(data: bytes) -> bytes:
        return re.sub(rb"(\$15\r\n)1(?=\d{12}-\d\r\n\*2)", rb"\g<1>0", data)

    async with proxied(own_redis.url, change) as url:
        _, delivers, *_ = await examine(url, KEYS, timeout_s=SECOND)

    assert delivers.level == "failure"
    assert "does the address lead to several servers?" in delivers.text


async def cause_of(url: str, timeout_s: float = SECOND) -> Finding:
    (finding,) = await examine(url, KEYS, timeout_s=timeout_s)
    assert finding.level == "failure"
    return finding


async def test_a_server_that_cannot_be_reached_is_told_from_one_that_hangs(
    mortal: Redis, tmp_path: Path
) -> None:
    with frozen(mortal.process.pid):
        hangs = await cause_of(mortal.url, 0.2 * SECOND)
    no_tls = await cause_of(mortal.url.replace("redis:", "rediss:"), 0.2 * SECOND)
    no_database = await cause_of(f"redis://127.0.0.1:{mortal.port}/99")
    mortal.kill()
    away = await cause_of(mortal.url)
    unknown = await cause_of("redis://no-such-host.invalid")
    no_socket = await cause_of(f"unix://{tmp_path}/redis.sock")

    assert [each.name for each in (hangs, no_tls, no_database, away, unknown, no_socket)] == [
        *("no_answer", "no_answer", "database", "refused", "host_unknown", "socket_missing"),
    ]
    assert away.text.startswith(f"127.0.0.1:{mortal.port}: nothing listens there: is Redis started")
    assert no_socket.text.startswith(
        f"{tmp_path}/redis.sock: expected the unixsocket of redis.conf"
    )


async def test_what_is_no_redis_is_noticed(service: Service) -> None:
    assert (await cause_of(f"redis://127.0.0.1:{service.port}")).name in ("closed", "not_redis")


async def test_a_server_that_does_not_know_hello_is_asked_for_its_version(tmp_path: Path) -> None:
    """The server is a new one without HELLO; its version is what it says, or an older one."""
    old = Redis.start(tmp_path, "--rename-command", "HELLO", "")
    try:
        renamed = await cause_of(old.url)
        async with proxied(old.url, older) as url:
            too_old = await cause_of(url)
        old.cli("ACL", "SETUSER", "default", "-info")
        unknown = await cause_of(old.url)
        old.cli("CONFIG", "SET", "requirepass", "right")
        closed = await cause_of(old.url)
        wrong = await cause_of(old.url.replace("redis://", "redis://:wrong@"))
    finally:
        old.kill()

    assert renamed.name == unknown.name == "hello"
    assert re.match(r"redis [0-9.]+ does not know HELLO 3 \(RESP3\), with which", renamed.text)
    assert unknown.text.startswith("this server does not know HELLO 3")
    assert too_old.name == "version"
    assert re.fullmatch(r"redis 5\.[0-9.]+ is too old: expected 6\.2 or newer", too_old.text)
    assert (closed.name, wrong.name) == ("password_missing", "password_wrong")


async def test_a_server_that_takes_no_entries_is_named_by_its_reason(mortal: Redis) -> None:
    mortal.cli("CONFIG", "SET", "maxmemory", "1")
    _, full, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)
    mortal.cli("CONFIG", "SET", "maxmemory", "0")
    mortal.cli("SET", REVOCATIONS_KEY, "x")
    _, wrong, *_ = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert (full.level, full.name) == ("failure", "memory_full")
    assert full.text.startswith("its memory is full, so it takes no notifications: raise maxmemory")
    assert (wrong.level, wrong.name) == ("failure", "wrong_type")


async def test_a_server_without_tracking_is_named(tmp_path: Path) -> None:
    server = Redis.start(tmp_path, "--rename-command", "CLIENT", "")
    try:
        _, tracking, *_ = await examine(server.url, KEYS, timeout_s=SECOND, bell="tracking")
    finally:
        server.kill()

    assert tracking.name == "tracking"
    assert tracking.text.startswith("without CLIENT TRACKING no change is announced: expected the")


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

    *_, sizes = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert sizes.level == level
    assert sizes.text.startswith(text)


async def test_a_user_without_the_right_to_the_configuration_is_told_what_is_expected(
    mortal: Redis,
) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-config")

    *_, sizes = await examine(mortal.url, KEYS, timeout_s=SECOND)

    assert sizes == Finding(
        "ok", "sizes", "proto-max-bulk-len can't be read by this user: expected 8mb or less"
    )


async def test_a_revocation_that_is_too_large_fails_the_examination(clear: Server) -> None:
    script = "redis.call('XADD', KEYS[1], '*', 'jti', string.rep('x', 3000000))"
    clear.cli("EVAL", script, "1", REVOCATIONS_KEY)
    try:
        found = await cause_of(clear.url)
        assert found.name == "reply_too_large"
        assert "got: expected a reply of at most 1048576 bytes" in found.text
    finally:
        clear.cli("DEL", REVOCATIONS_KEY)


async def test_a_server_with_fewer_replicas_than_are_waited_for_fails_the_examination(
    mortal: Redis, tmp_path: Path
) -> None:
    async def found(url: str, wanted: int) -> list[Finding]:
        findings = await examine(url, KEYS, timeout_s=SECOND, wait_replicas=wanted)
        return [each for each in findings if each.name in ("wait_replicas", "rights")]

    assert await found(mortal.url, 0) == []
    (none,) = await found(mortal.url, 1)
    (tmp_path / "replica").mkdir()
    replica = Redis.start(tmp_path / "replica")
    try:
        mortal.cli("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        follow(replica, mortal)
        is_online = "state=online"
        await until(lambda: is_online in mortal.cli("INFO", "replication"), "a replica")
        (one,) = await found(mortal.url, 1)
        (too_few,) = await found(mortal.url, 2)
    finally:
        replica.kill()
    words = ["on", ">pw", "~*", "&*", "+@all"]
    mortal.cli("ACL", "SETUSER", "impatient", *words, "-wait")
    (lacking,) = await found(mortal.url.replace("redis://", "redis://impatient:pw@"), 1)
    mortal.cli("ACL", "SETUSER", "blind", *words, "-info")
    (blind,) = await found(mortal.url.replace("redis://", "redis://blind:pw@"), 1)

    text = (
        "expected {} or more, as wait_replicas asks for; every notification would be answered 503 "
        "(unknown)"
    )
    assert none == Finding(
        "failure", "wait_replicas", f"0 replica(s) are connected: {text.format(1)}"
    )
    assert one == Finding("ok", "wait_replicas", "1 replica(s) are connected")
    assert too_few == Finding(
        "failure", "wait_replicas", f"1 replica(s) are connected: {text.format(2)}"
    )
    assert (lacking.level, lacking.name) == ("failure", "rights")
    assert "lacks +wait " in lacking.text
    assert "lacks +info" in blind.text
