"""A follower that runs, and a listener that notes what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sse_push.access.revocation import Revocation
from sse_push.notification import Change, Entry, EntryId, EventId, Notification
from sse_push.stream import Appender, BellChoice, Follower, Keys, Login, parse_address
from sse_push.stream.announcing import Announcing
from sse_push.stream.planting import Planting
from sse_push.stream.probe import ProbePace
from tests.harness.keys import KEYS
from tests.harness.waiting import SECOND, until
from tests.integration.stream.servers import Server

STREAM_TTL_S = 1000
MB = 1_000_000


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel a task and all that it began, until it ends; once is enough, says another test."""
    async with asyncio.timeout(5 * SECOND):
        while not task.done():
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            await asyncio.wait([task], timeout=0.2 * SECOND)


class Followed:
    """A follower, and its listener, which notes all that it receives."""

    def __init__(
        self,
        url: str,
        probe_deadline_s: float,
        max_planted: int = 0,
        reply_limit_bytes: int = MB,
        keys: Keys = KEYS,
        login: Login = Login(),  # noqa: B008 (it never changes)
        bell: BellChoice = "auto",
        sweep_s: float | None = None,
        wait_replicas: int = 0,
    ) -> None:
        self.newest: dict[str, EntryId | None] = {}
        self.changes: list[Change] = []
        self.histories: list[str] = []
        """Those of the changes."""
        self.revoked: list[tuple[Revocation, float]] = []
        self.dropped: list[float] = []
        address = parse_address(url, login)
        self.appender = Appender(
            address,
            keys,
            timeout_s=probe_deadline_s,
            stream_max_entries=100,
            stream_ttl_s=STREAM_TTL_S,
            revocation_lifetime_s=1000,
            bell=bell,
            wait_replicas=wait_replicas,
        )
        self.follower = Follower(
            Announcing(address, keys.bell, bell, reply_limit_bytes=reply_limit_bytes),
            self,
            self.appender,
            Planting(keys, max_planted=max_planted, stream_ttl_s=STREAM_TTL_S),
            keys,
            ProbePace(0.05 * SECOND, probe_deadline_s, 2 * probe_deadline_s),
            data_limit_bytes=8192,
            sweep_s=sweep_s,
        )

    async def run(self) -> None:
        """Run the appender, by which the probe adds its entries, and the follower."""
        appending = asyncio.create_task(self.appender.run())
        try:
            await self.follower.run()
        finally:
            appending.cancel()
            await asyncio.wait([appending])

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        self.newest[merchant_id] = None if newest is None else newest.entry_id

    def publish(self, change: Change, history: str) -> None:
        self.changes.append(change)
        self.histories.append(history)

    def revoke(self, revocation: Revocation, at: float) -> None:
        self.revoked.append((revocation, at))

    def revoke_all(self, until: float) -> None:
        self.dropped.append(until)

    @property
    def revoked_names(self) -> list[str]:
        return [revocation.merchant_id for revocation, _ in self.revoked]

    async def until_known(self, *names: str) -> None:
        """Wait until these merchants are revoked, and all revocations are known."""
        await until(
            lambda: set(names) <= set(self.revoked_names) and self.follower.knows_revocations,
            f"{names} in {self.revoked_names}",
        )

    async def watch(self, *merchants: str) -> None:
        for merchant in merchants:
            self.newest.pop(merchant, None)
            self.follower.watch(merchant)
        await until(lambda: self.newest.keys() >= set(merchants), "the streams to be armed")

    async def next(self, count: int = 1) -> list[Change]:
        await until(lambda: len(self.changes) >= count, f"{count} changes in {self.changes}")
        return self.changes

    async def until_newest(self, newest: EntryId) -> None:
        await until(
            lambda: any(change.newest == newest for change in self.changes),
            f"the newest ID in {self.changes}",
        )

    async def settle(self, server: Server, marker: str) -> None:
        """Wait for all changes made until now; the marker is a merchant of its own."""
        await self.until_newest(server.add(marker))
        self.changes[:] = [change for change in self.changes if change.merchant_id != marker]


@asynccontextmanager
async def following(
    url: str,
    probe_deadline_s: float = 5 * SECOND,
    *,
    max_planted: int = 0,
    reply_limit_bytes: int = MB,
    login: Login = Login(),  # noqa: B008 (it never changes)
    bell: BellChoice = "auto",
    sweep_s: float | None = None,
    wait_replicas: int = 0,
) -> AsyncGenerator[Followed]:
    followed = Followed(
        url,
        probe_deadline_s,
        max_planted,
        reply_limit_bytes,
        login=login,
        bell=bell,
        sweep_s=sweep_s,
        wait_replicas=wait_replicas,
    )
    task = asyncio.create_task(followed.run())
    try:
        yield followed
        assert not task.done(), "a follower runs for ever"
    finally:
        await stopped(task)


def stripped(entries: tuple[Entry, ...] | None) -> list[tuple[EntryId, Notification]]:
    """Return the entries without their fingerprints, which differ from process to process."""
    assert entries is not None
    return [(entry.id, entry.notification) for entry in entries]
