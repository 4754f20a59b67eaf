"""Whom a survey asks, and what it says if nobody answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sse_push.stream.address import Place
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import connect
from sse_push.stream.seeds import Seeds
from sse_push.stream.survey import QUESTION, NobodyAnswers, Survey
from tests.harness.cluster import Cluster, clustered
from tests.harness.processes import frozen
from tests.harness.redis import Redis

NOWHERE = Place("127.0.0.1", 1)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with clustered(tmp_path_factory.mktemp("cluster"), "redis", primaries=2) as cluster:
        yield cluster


def places_of(cluster: Cluster) -> list[Place]:
    return [Place(each.host, each.port) for each in cluster.nodes]


async def lost(_command: Command) -> object:
    return RedisConnectionError("the connection is lost")


async def test_any_seed_tells_of_all_nodes(servers: Cluster) -> None:
    seeds = Seeds.parse(f"redis+cluster://127.0.0.1:1,127.0.0.1:{servers.nodes[1].port}")

    found = await Survey(seeds).ask({})

    assert {node.place for node in found.nodes.values()} == set(places_of(servers))
    assert "" not in found.owners


async def test_primaries_are_asked_on_the_connections_that_are_there(servers: Cluster) -> None:
    one, two = places_of(servers)
    asked: list[Command] = []
    connection = await connect(Seeds.parse(servers.url).at(one))

    async def ask(command: Command) -> object:
        asked.append(command)
        await connection.send([command])
        return await connection.read()

    found = await Survey(Seeds((NOWHERE,), Seeds.parse(servers.url).likeness)).ask(
        {one: ask, two: lost}
    )
    connection.close()

    assert asked == [QUESTION]
    assert len(found.nodes) == 2


async def test_a_node_known_from_before_answers_when_the_seeds_are_gone(servers: Cluster) -> None:
    survey = Survey(Seeds(tuple(places_of(servers)), Seeds.parse(servers.url).likeness))
    await survey.ask({})
    survey._seeds = Seeds((NOWHERE,), survey._seeds.likeness)

    assert len((await survey.ask({NOWHERE: lost})).nodes) == 2


async def test_a_node_that_does_not_answer_is_not_waited_for_longer(servers: Cluster) -> None:
    with frozen(servers.nodes[0].process.pid):
        found = await Survey(Seeds.parse(servers.url)).ask({})

    assert len(found.nodes) == 2


async def test_a_server_that_is_no_node_is_named(redis: Redis) -> None:
    survey = Survey(
        Seeds((Place("127.0.0.1", redis.port),), Seeds.parse("redis+cluster://x").likeness)
    )

    with pytest.raises(NobodyAnswers, match="expected the nodes of a cluster, got ERR"):
        await survey.ask({})


async def test_a_fault_of_ours_is_not_taken_for_a_node_that_is_away() -> None:
    async def breaks(_command: Command) -> object:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Survey(Seeds.parse("redis+cluster://x")).ask({NOWHERE: breaks})
