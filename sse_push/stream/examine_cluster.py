"""Examine a cluster: who has which slots, and each primary like a server of its own.

Knows which settings of a cluster break which promise. Does not know what is examined at a primary
(``examine_server``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import cast

from sse_push.runtime.finding import Finding
from sse_push.stream.bell import BellChoice
from sse_push.stream.connection import Connection
from sse_push.stream.delivery import MERCHANT, Trial, ask
from sse_push.stream.examine_server import examine_server
from sse_push.stream.failures import RedisError
from sse_push.stream.keys import Keys
from sse_push.stream.obstacles import of_connection
from sse_push.stream.opening import connect
from sse_push.stream.replies import ErrorReply
from sse_push.stream.seeds import Seeds
from sse_push.stream.slots import SLOTS, Node, SlotMap, slot_of
from sse_push.stream.survey import NobodyAnswers, Survey

_COVERAGE = "cluster-require-full-coverage"


async def examine_cluster(
    url: str, keys: Keys, *, timeout_s: float, bell: BellChoice, wait_replicas: int = 0
) -> list[Finding]:
    """Check which primaries there are, whether each delivers an entry, and what it may lose."""
    seeds = Seeds.parse(url)
    try:
        slots = await Survey(seeds).ask({})
    except NobodyAnswers as exc:
        return [of_connection(url, exc, keys)]
    nodes = sorted(slots.nodes.values(), key=lambda node: node.place)
    there = [node for node in nodes if not node.is_failed]
    found = await asyncio.gather(
        *(
            _examine_primary(
                url, seeds, _trial(keys, slots, node, wait_replicas), node, timeout_s, bell
            )
            for node in there
        )
    )
    return [*_topology(slots, nodes), *_together(there, found)]


def _topology(slots: SlotMap, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Yield who has how many slots, and whether anybody's merchants are refused."""
    counts = {node.id: sum(owner == node.id for owner in slots.owners) for node in nodes}
    listed = ", ".join(f"{node.place} ({counts[node.id]} slots)" for node in nodes)
    yield Finding("ok", "cluster", f"{len(nodes)} primaries: {listed}")
    for node in nodes:
        if node.is_failed:
            yield Finding(
                "warning",
                "primary_away",
                f"the cluster says that {node.place} has failed: notifications of its merchants "
                "are refused until it is back, or a replica is promoted",
            )
    uncovered = SLOTS - sum(counts.values())
    if uncovered:
        yield Finding(
            "warning",
            "slots_without_owner",
            f"{uncovered} of {SLOTS} slots have no primary: notifications of their merchants are "
            "refused; expected CLUSTER ADDSLOTS, or `redis-cli --cluster fix`",
        )


async def _examine_primary(
    url: str,
    seeds: Seeds,
    trial: Trial,
    node: Node,
    timeout_s: float,
    bell: BellChoice,
) -> list[Finding]:
    address = seeds.at(node.place)
    try:
        async with asyncio.timeout(3 * timeout_s):
            with closing(await connect(address)) as adding, closing(await connect(address)) as also:
                found = await examine_server(url, trial, adding, also, timeout_s, bell)
                return [*found, *await _coverage(adding)]
    except (RedisError, OSError, TimeoutError) as exc:
        return [of_connection(f"redis://{node.place}", exc, trial.keys)]


def _trial(keys: Keys, slots: SlotMap, node: Node, wait_replicas: int) -> Trial:
    return Trial(
        keys,
        _merchant_at(keys, slots, node),
        is_of_cluster=True,
        has_revocations=slots.owner_of(slot_of(keys.revocations)) == node.id,
        wait_replicas=wait_replicas,
    )


def _merchant_at(keys: Keys, slots: SlotMap, node: Node) -> str:
    """Return a merchant who can't exist, always the same, whose stream a primary has."""
    names = (f"{MERCHANT}{number}" for number in count())
    return next(each for each in names if slots.owner_of(slot_of(keys.stream(each))) == node.id)


async def _coverage(adding: Connection) -> list[Finding]:
    """Return whether one primary that is away would stop all others."""
    (reply,) = await ask(adding, [("CONFIG", "GET", _COVERAGE)])
    if isinstance(reply, ErrorReply):
        return []
    if cast("dict[bytes, bytes]", reply).get(_COVERAGE.encode()) != b"yes":
        return []
    return [
        Finding(
            "warning",
            "coverage",
            f"{_COVERAGE} is yes: one primary that is away stops all others; expected no",
        )
    ]


def _together(nodes: Sequence[Node], found: Sequence[list[Finding]]) -> Iterator[Finding]:
    """Yield what was found, once for all primaries where it is well, else with their places."""
    names = dict.fromkeys(each.name for findings in found for each in findings)
    for name in names:
        of_name = [
            (node, each)
            for node, findings in zip(nodes, found, strict=True)
            for each in findings
            if each.name == name
        ]
        if all(each.level == "ok" for _, each in of_name):
            yield _of_all(of_name)
            continue
        places: dict[Finding, list[str]] = {}
        for node, each in of_name:
            if each.level != "ok":
                places.setdefault(each, []).append(str(node.place))
        for each, at in places.items():
            where = "each primary" if len(at) == len(nodes) else ", ".join(at)
            yield Finding(each.level, each.name, f"{where}: {each.text}")


def _of_all(found: Sequence[tuple[Node, Finding]]) -> Finding:
    """Return what is well everywhere, in the words of one primary, or in those of each."""
    texts = dict.fromkeys(each.text for _, each in found)
    name = found[0][1].name
    if len(texts) == 1:
        return Finding("ok", name, f"each primary: {next(iter(texts))}")
    return Finding("ok", name, "; ".join(f"{node.place}: {each.text}" for node, each in found))
