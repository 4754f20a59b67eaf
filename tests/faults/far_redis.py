"""Worlds whose service reaches Redis through a proxy, which can be slow, or lead elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.faults.proxies import Proxy, proxy
from tests.faults.world import World
from tests.harness.redis import Redis


class FarRedis(World):
    """The proxy stands between the service and Redis; a fault tells it what to do."""

    way: Proxy

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Put it there before the service starts."""
        self.way = await stack.enter_async_context(proxy(("127.0.0.1", self.redis.port)))
        self.redis_url = self.way.url


class TwoServers(FarRedis):
    """A replica beside Redis, and before both a proxy that decides which one is reached."""

    replica: Redis

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start the replica, too."""
        folder = self.folder / "replica"
        folder.mkdir()
        at_once = ("repl-diskless-sync-delay", "0")
        self.redis.cli("CONFIG", "SET", *at_once)
        self.replica = await asyncio.to_thread(
            Redis.start, folder, "--replicaof", f"127.0.0.1 {self.redis.port}"
        )
        self.replica.cli("CONFIG", "SET", *at_once)
        stack.callback(self._kill_replica)
        await super().prepare(stack)

    def _kill_replica(self) -> None:
        self.replica.kill()  # whichever it is in the end

    async def promote(self) -> None:
        """Make the replica a server of its own, once it has all that was written."""
        await self.until(
            lambda: self.redis.cli("WAIT", "1", "100") == "1", "the replica to have it all", 5
        )
        self.replica.cli("REPLICAOF", "NO", "ONE")

    def lead_to_replica(self) -> None:
        """Change places: new connections lead to the replica, and those that there are stay."""
        self.redis, self.replica = self.replica, self.redis
        self.way.target = ("127.0.0.1", self.redis.port)
