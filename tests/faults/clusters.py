"""Worlds whose Redis is a cluster: three primaries, a replica of each, twice as many merchants."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.instances import Instances
from tests.faults.world import Fault, Scale, World
from tests.harness.cluster import Cluster, Node, slot_of
from tests.harness.keys import stream_key
from tests.harness.redis import GIVEN, Kind, Redis

_QUIET = 3
"""One merchant in so many is quiet in a world that has such merchants."""


class Clustered(World):
    """The service knows three addresses of the cluster; ``redis`` is one of its nodes."""

    cluster: Cluster
    kind: Kind = GIVEN or "redis"
    count = 3
    """How many primaries there are."""

    def __init__(self, fault: Fault, size: str, scale: Scale, folder: Path) -> None:
        super().__init__(fault, size, replace(scale, merchants=2 * scale.merchants), folder)

    @property
    def settings(self) -> dict[str, object]:
        """Without a sweep, whose reads would meet MOVED, and so find what has moved."""
        return {**super().settings, "sweep_s": 3600}

    def start_redis(self) -> Redis:
        """Start all nodes."""
        folder = self.folder / "cluster"
        folder.mkdir()
        self.cluster = self.start_cluster(folder)
        self.redis_url = self.cluster.url
        return self.cluster.nodes[0]

    def start_cluster(self, folder: Path) -> Cluster:
        """Start all nodes on this host."""
        return Cluster.start(folder, self.kind, primaries=self.count, replicas=1)

    def _kill_redis(self) -> None:
        self.cluster.kill()

    @property
    def primaries(self) -> Sequence[Node]:
        """The nodes that own slots."""
        return self.cluster.primaries()

    @property
    def servers(self) -> Sequence[Redis]:
        """Every node that runs."""
        return self.cluster.asked

    def home_of(self, merchant: str) -> Node:
        """Return the owner of a merchant's stream."""
        return self.cluster.owner_of(stream_key(merchant))

    @property
    def most_tasks(self) -> float:
        """As many again for each primary that was added."""
        return super().most_tasks * max(1.0, len(self.primaries) / self.count)

    def merchants_of(self, node: Node) -> list[str]:
        """Return the merchants whose streams a node owns."""
        slots = self.cluster.sees()[node.id].slots
        return [each for each in self.merchants if slot_of(stream_key(each)) in slots]

    async def move(
        self, slots: Collection[int], to: Node, *, gives_up: bool = False, lasts_s: float = 0.5
    ) -> None:
        """Move slots of one owner; for a while neither of the two has all of their keys."""
        cluster = self.cluster
        owner = await asyncio.to_thread(cluster.begin_move, slots, to)
        await self.lasts(lasts_s, least_s=0.1)
        if gives_up:
            await asyncio.to_thread(cluster.abort_move, slots, owner, to)
        else:
            await asyncio.to_thread(cluster.end_move, slots, owner, to)

    async def goes_on(self, merchants: Collection[str] | None = None) -> None:
        """End the fault, and go on; these merchants, or all, must not have noticed."""
        self.over()
        await self.lasts(3)
        self._all_stored(merchants)

    def _all_stored(self, merchants: Collection[str] | None) -> None:
        """Record each notification of these merchants that was answered, and not stored."""
        limit_s = float(str(self.settings["notify_timeout_s"]))
        asked = [
            each
            for each in self.backend.ledger.history
            if "took_s" in each and (merchants is None or each["merchant_id"] in merchants)
        ]
        late = [each for each in asked if each["outcome"] != "accepted"]
        left = [each for each in late if stood_still_s(each) < limit_s]
        if left:
            self.wrong(f"{len(left)} of {len(asked)} not stored, the first: {left[0]}")


def stood_still_s(asked: dict[str, Any]) -> float:
    """Return for how long the backend itself, and so the machine, stood still meanwhile."""
    stood_s: float = asked["answered_at"] - asked["asked_at"] - asked["took_s"]
    return stood_s


def slots_of(merchants: Collection[str]) -> set[int]:
    """Return the slots of merchants' streams."""
    return {slot_of(stream_key(each)) for each in merchants}


class ClusteredInstances(Instances, Clustered):
    """Two instances on one cluster."""


class WithQuietMerchants(ClusteredInstances):
    """A third of the merchants is never notified, but for what a fault does."""

    def equip(self) -> None:
        """Leave them out of the backend's round."""
        self.quiet = self.merchants[::_QUIET]
        loud = [each for each in self.merchants if each not in self.quiet]
        self.backend._merchants = itertools.cycle(loud)
