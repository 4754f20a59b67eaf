"""A cluster that is followed in this process, with a listener that notes what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, EventId
from sse_push.stream import BellChoice, Login, Store, Terms
from sse_push.stream.cluster import Cluster
from sse_push.stream.cluster_append import ClusterAppender
from tests.harness.keys import KEYS
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import stopped


class InCluster:
    """What follows a cluster and adds to it, and what was heard."""

    def __init__(
        self,
        url: str,
        bell: BellChoice = "auto",
        sweep_s: float = 1000,
        deaf_limit_s: float = 60 * SECOND,
        wait_replicas: int = 0,
        probe_deadline_s: float = 2 * SECOND,
    ) -> None:
        self.armed_at: dict[str, EventId | None] = {}
        self.changes: list[tuple[Change, str]] = []
        self.revoked: list[Revocation] = []
        self.dropped: list[float] = []
        terms = Terms(
            keys=KEYS,
            bell=bell,
            wait_replicas=wait_replicas,
            data_limit_bytes=8192,
            notify_timeout_s=2 * SECOND,
            stream_max_entries=100,
            stream_ttl_s=1000,
            revocation_lifetime_s=1000,
            max_planted=0,
            probe_interval_s=0.2 * SECOND,
            probe_deadline_s=probe_deadline_s,
            deaf_limit_s=deaf_limit_s,
            sweep_s=sweep_s,
        )
        cluster, appender = Store.at(url, Login(), self, terms)
        assert isinstance(cluster, Cluster)
        assert isinstance(appender, ClusterAppender)
        self.cluster, self.appender = cluster, appender

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        assert merchant_id not in self.armed_at, "a merchant is armed once"
        self.armed_at[merchant_id] = newest

    def publish(self, change: Change, history: str) -> None:
        self.changes.append((change, history))

    def revoke(self, revocation: Revocation, _at: float) -> None:
        self.revoked.append(revocation)

    def revoke_all(self, until: float) -> None:
        self.dropped.append(until)

    def of(self, merchant_id: str) -> list[Change]:
        """Return what was heard of a merchant."""
        return [change for change, _ in self.changes if change.merchant_id == merchant_id]

    async def until_heard(self, event_id: EventId, merchant_id: str) -> None:
        """Wait until a notification has been heard."""
        await until(
            lambda: any(each.newest == event_id.entry_id for each in self.of(merchant_id)),
            f"{event_id} of {merchant_id}, after {self.of(merchant_id)}",
        )

    async def until_resync(self, merchant_id: str, count: int = 1) -> None:
        """Wait until the merchant was resynchronized so many times."""
        await until(
            lambda: sum(each.is_resync for each in self.of(merchant_id)) >= count,
            f"resync {count} of {merchant_id}",
        )

    async def until_armed(self, *merchants: str) -> None:
        """Watch merchants, and wait until each has been read."""
        for merchant_id in merchants:
            self.cluster.watch(merchant_id)
        await until(lambda: set(merchants) <= set(self.armed_at), "the first reads")


@asynccontextmanager
async def in_cluster(
    url: str,
    bell: BellChoice = "auto",
    sweep_s: float = 1000,
    wait_replicas: int = 0,
    probe_deadline_s: float = 2 * SECOND,
) -> AsyncGenerator[InCluster]:
    """Follow a cluster while the context lasts, from the first proof on."""
    followed = InCluster(
        url, bell, sweep_s, wait_replicas=wait_replicas, probe_deadline_s=probe_deadline_s
    )
    task = asyncio.create_task(followed.cluster.run())
    try:
        await until(
            lambda: task.done() or followed.cluster.age_s < SECOND, "the first proof", 10 * SECOND
        )
        yield followed
        assert not task.done(), "the cluster is followed for ever"
    finally:
        await stopped(task)
