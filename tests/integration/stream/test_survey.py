"""Whom a survey asks, and what it says if nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sse_push.stream.address import Place
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import Unsuited, connect, open_connection
from sse_push.stream.seeds import Seeds
from sse_push.stream.slots import Node
from sse_push.stream.survey import QUESTION, Ask, NobodyAnswers, Survey
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


async def test_a_primary_that_was_cut_off_is_not_believed_alone() -> None:
    """The others have been replaced; their successors are known from before as replicas."""
    cut_off, successor = Place("127.0.0.1", 2), Place("127.0.0.1", 3)
    survey = Asked(
        {
            cut_off: _view("a", cut_off, epoch=1, slots="0-16383"),
            successor: _view("b", successor, epoch=2, slots="0-16383"),
        }
    )
    survey._places = (successor,)

    found = await survey.ask({cut_off: survey.answered(cut_off), NOWHERE: lost})

    assert set(found.owners) == {"b"}


def _view(node_id: str, place: Place, *, epoch: int, slots: str) -> bytes:
    return f"{node_id} {place}@1 master - 0 0 {epoch} connected {slots}\n".encode()


class Asked(Survey):
    """A survey of nodes that say this."""

    def __init__(self, said: dict[Place, bytes]) -> None:
        super().__init__(Seeds((NOWHERE,), Seeds.parse("redis+cluster://x").likeness))
        self.said = said

    def answered(self, place: Place) -> Ask:
        async def ask(_command: Command) -> object:
            return self.said[place]

        return ask

    async def _on_new(self, place: Place) -> list[Node]:
        if place not in self.said:
            raise RedisConnectionError("nobody is there")
        return self._parsed(place, self.said[place])


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


async def test_a_survey_that_is_withdrawn_at_once_leaves_nothing() -> None:
    """Its questions have not begun yet: a coroutine that nobody awaits is a warning, and red."""
    survey = Survey(Seeds.parse("redis+cluster://127.0.0.1:1"))
    asking = asyncio.create_task(survey.ask({NOWHERE: lost}))
    await asyncio.sleep(0)
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_single_server_is_no_node_whoever_has_named_it(redis: Redis) -> None:
    address = Seeds.parse("redis+cluster://x").at(Place("127.0.0.1", redis.port))

    with pytest.raises(Unsuited, match="expected a node of a cluster, got a single server"):
        await open_connection(address, "test", tracks=False)
