"""Ask the nodes of a cluster which of them has which slots.

Knows whom to ask, and how long to wait. Does not know which of several answers is right
(``slots``), nor what follows from a change (``cluster``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial

from sse_push.stream.address import Place
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisError
from sse_push.stream.opening import connect
from sse_push.stream.seeds import Seeds
from sse_push.stream.slots import Node, SlotMap, merged, parse_nodes

ANSWER_LIMIT_S = 1.0
"""How long a node may take; all are asked at once."""

QUESTION: Command = ("CLUSTER", "NODES")

_PLACES = 64
"""So many places are asked at most if no primary answers that is known."""

Ask = Callable[[Command], Awaitable[object]]
"""Sends a command on a connection that is open, and returns the reply."""

_Question = Callable[[], Awaitable[list[Node]]]
"""Asks one node, and returns what it says."""


class NobodyAnswers(RedisError):
    """No node says which slots there are."""


class Survey:
    """Ask all primaries, each on the connection that is there; if one is silent, all other nodes.

    One primary's answer is not enough: one that was cut off from the others still has its slots, as
    far as it knows.
    """

    def __init__(self, seeds: Seeds) -> None:
        self._seeds = seeds
        self._places: tuple[Place, ...] = ()
        """Where nodes were, replicas included, when one was last asked."""

    async def ask(self, primaries: Mapping[Place, Ask]) -> SlotMap:
        """Return what the nodes say together.

        Raises:
            NobodyAnswers: no node does.
        """
        asked = {place: partial(self._on_open, place, ask) for place, ask in primaries.items()}
        views, failures = await _gather(asked)
        if len(views) < len(asked) or not asked:
            # Whoever answers may be the one that was cut off from all others.
            places = dict.fromkeys((*self._seeds.places, *self._places))
            unasked = [place for place in places if place not in asked]
            others = {place: partial(self._on_new, place) for place in unasked[:_PLACES]}
            more, further = await _gather(others)
            views, failures = [*views, *more], "; ".join(filter(None, (failures, further)))
        if not views:
            raise NobodyAnswers(f"expected a node that tells the slots, got none: {failures}")
        self._places = tuple(dict.fromkeys(node.place for view in views for node in view))
        return merged(views)

    async def _on_open(self, place: Place, ask: Ask) -> list[Node]:
        reply = await ask(QUESTION)
        if isinstance(reply, RedisError):
            return await self._on_new(place)  # the connection is lost, which says nothing
        return self._parsed(place, reply)

    async def _on_new(self, place: Place) -> list[Node]:
        with closing(await connect(self._seeds.at(place), QUESTION)) as connection:
            return self._parsed(place, await connection.read())

    def _parsed(self, place: Place, reply: object) -> list[Node]:
        nodes = parse_nodes(reply, place, by_name=self._seeds.has_tls)
        if not nodes:
            raise RedisError(f"{place}: expected the nodes of a cluster, got {str(reply)[:200]}")
        return nodes


class News:
    """How often the nodes were asked, and which of these times they have answered last."""

    def __init__(self) -> None:
        self._asked = self._answered = 0
        self._next = asyncio.Event()
        """Set, and replaced, when they have answered."""

    def asks(self) -> None:
        """Note that the nodes are asked now."""
        self._asked += 1

    def arrive(self) -> None:
        """Note that they have answered what they were asked last."""
        self._answered = self._asked
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Wait until the nodes have answered what they are asked from now on.

        An answer that is on its way may be older than what made somebody doubt.
        """
        asked = self._asked
        while self._answered <= asked:
            await self._next.wait()


async def _gather(
    asked: Mapping[Place, _Question],
) -> tuple[list[list[Node]], str]:
    """Return the answers, and why there are no others.

    A question begins within its task: one that has not begun when the survey is withdrawn would be
    a coroutine that nobody awaits.
    """
    results = await asyncio.gather(*map(_in_time, asked.values()), return_exceptions=True)
    views: list[list[Node]] = []
    failures: list[str] = []
    for place, result in zip(asked, results, strict=True):
        if isinstance(result, list):
            views.append(result)
        elif isinstance(result, RedisError | OSError):  # TimeoutError is an OSError
            failures.append(str(result) or f"{place}: no answer within {ANSWER_LIMIT_S:g} s")
        else:
            raise result
    return views, "; ".join(failures)


async def _in_time(question: _Question) -> list[Node]:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        return await question()
