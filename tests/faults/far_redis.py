"""A world whose service reaches Redis through a proxy, which can be slow, or lead elsewhere."""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.faults.proxies import Proxy, proxy
from tests.faults.world import World


class FarRedis(World):
    """The proxy stands between the service and Redis; a fault tells it what to do."""

    way: Proxy

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Put it there before the service starts."""
        self.way = await stack.enter_async_context(proxy(("127.0.0.1", self.redis.port)))
        self.redis_url = self.way.url
