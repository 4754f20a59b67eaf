"""What ``check`` says of a cluster, and of what is wrong there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sse_push.runtime.finding import Finding
from sse_push.stream import examine
from sse_push.stream.slots import slot_of
from tests.harness.cluster import Cluster, clustered
from tests.harness.keys import KEYS, stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, wait_for


@pytest.fixture(scope="module", params=["redis", "valkey"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with clustered(tmp_path_factory.mktemp("cluster"), request.param) as cluster:
        yield cluster


async def findings(url: str, wait_replicas: int = 0) -> dict[str, Finding]:
    found = await examine(url, KEYS, timeout_s=5 * SECOND, wait_replicas=wait_replicas)
    return {each.name: each for each in found}


async def test_a_cluster_that_is_well_is_told_primary_by_primary(servers: Cluster) -> None:
    found = await findings(servers.url)

    cluster = found["cluster"]
    assert cluster.level == "ok"
    assert cluster.text.startswith("3 primaries: 127.0.0.1:")
    assert cluster.text.count("(5461 slots)") == 2
    assert cluster.text.count("(5462 slots)") == 1
    assert found["delivery"].level == "ok"
    assert "a change is announced and read, " in found["delivery"].text
    assert found["version"].text.startswith("each primary: ")
    not_well = {each.name: each.text for each in found.values() if each.level != "ok"}
    assert set(not_well) == {"persistence", "sizes"}
    assert not_well["persistence"].startswith("each primary: appendonly is off")


async def test_replicas_that_are_waited_for_are_missed_at_each_primary(servers: Cluster) -> None:
    found = await findings(servers.url, 1)

    assert found["wait_replicas"].level == "failure"
    assert found["wait_replicas"].text.startswith("each primary: 0 replica(s) are connected")


async def test_what_is_wrong_at_one_primary_names_it(servers: Cluster) -> None:
    node = servers.nodes[1]
    node.do("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    node.do("CONFIG", "SET", "appendonly", "yes")
    try:
        found = await findings(servers.url)
    finally:
        node.do("CONFIG", "SET", "cluster-require-full-coverage", "no")
        node.do("CONFIG", "SET", "appendonly", "no")

    assert found["coverage"].level == "warning"
    assert found["coverage"].text.startswith(f"127.0.0.1:{node.port}: cluster-require-full")
    assert found["persistence"].level == "warning"
    assert f":{node.port}" not in found["persistence"].text


async def test_a_slot_without_an_owner_is_counted(servers: Cluster) -> None:
    slot = slot_of(stream_key("x"))
    owner = servers.owner_of(slot)
    servers.disown_slot(slot)
    found = await findings(servers.url)
    owner.do("CLUSTER", "ADDSLOTS", str(slot))
    servers.wait_whole()

    assert found["slots_without_owner"].text.startswith("1 of 16384 slots have no primary")


@pytest.mark.parametrize(
    ("rights", "name"),
    [
        (("+@all", "-cluster"), "cluster_right"),
        (("+@all", "-xadd"), "rights"),
    ],
)
async def test_a_user_without_a_right_is_named(
    servers: Cluster, rights: tuple[str, ...], name: str
) -> None:
    for node in servers.nodes:
        node.do("ACL", "SETUSER", "lacking", "reset", "on", ">secret", "~*", "&*", *rights)

    found = await findings(servers.url.replace("://", "://lacking:secret@"))

    assert found[name].level == "failure"


async def test_a_wrong_password_is_named(servers: Cluster) -> None:
    found = await findings(servers.url.replace("://", "://nobody:secret@"))

    assert list(found) == ["password_wrong"]


async def test_a_single_server_is_no_cluster(redis: Redis) -> None:
    found = await findings(f"redis+cluster://127.0.0.1:{redis.port}")

    assert list(found) == ["not_a_cluster"]


async def test_a_primary_that_has_failed_is_named_and_the_others_are_examined(
    servers: Cluster,
) -> None:
    node = servers.nodes[2]
    node.kill()
    node.is_away = True
    other = servers.nodes[0]
    wait_for(lambda: "fail" in other.sees()[node.id].flags, "the failure", 30 * SECOND)

    found = await findings(servers.url)

    servers.restart(node)
    node.is_away = False
    servers.wait_whole()
    assert found["primary_away"].level == "warning"
    assert f"127.0.0.1:{node.port} has failed" in found["primary_away"].text
    assert found["delivery"].level == "ok"


async def test_a_primary_that_does_not_answer_is_named(servers: Cluster) -> None:
    node = servers.nodes[1]
    with frozen(node.process.pid):
        found = await examine(servers.url, KEYS, timeout_s=0.3 * SECOND)
    servers.wait_whole()

    of_node = [each for each in found if each.text.startswith(f"127.0.0.1:{node.port}: ")]
    assert {each.level for each in of_node} == {"failure"}


async def test_settings_that_this_user_may_not_read_are_not_guessed(servers: Cluster) -> None:
    for node in servers.nodes:
        node.do(
            "ACL", "SETUSER", "modest", "reset", "on", ">secret", "~*", "&*", "+@all", "-config"
        )

    found = await findings(servers.url.replace("://", "://modest:secret@"))

    assert "coverage" not in found
    assert found["sizes"].level == "ok"
