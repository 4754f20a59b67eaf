"""Worlds in which two instances share one Redis, behind one nginx, as on two machines."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.sentinels import Watched
from tests.faults.world import World
from tests.harness.documents import Example
from tests.harness.service import Service
from tests.harness.waiting import free_port

UPSTREAM = Example("sse_push/docs/scale.md", "nginx")
"""The configuration for a user with two machines."""


class Instances(World):
    """Two instances, of as many workers as the fault says each."""

    least_merchants = 60
    """As a service has that outgrew one machine."""

    other: Service

    async def enter(self, stack: AsyncExitStack) -> None:
        """Choose where the other instance listens, from its first start on."""
        await super().enter(stack)
        self.other_port = free_port()

    async def start_service(self) -> None:
        """Start both instances."""
        await super().start_service()
        await self.start_other()

    async def start_other(self) -> None:
        """Start the other instance, again if it was there before."""
        self.other = await asyncio.to_thread(
            Service.start,
            self.folder,
            self.redis_url or self.redis.url,
            "--workers",
            str(self.fault.workers),
            port=self.other_port,
            settings=self.settings,
        )

    @property
    def instances(self) -> list[Service]:
        return [self.service, self.other]

    @property
    def entry(self) -> str:
        """The internal server of nginx: it knows the other instance if one is away."""
        assert self.nginx is not None, "nginx is before both"
        return self.nginx.internal_url

    def _adapt(self, folder: Path) -> None:
        super()._adapt(folder)
        name_instances(folder, *(f"127.0.0.1:{each.port}" for each in self.instances))


class WatchedInstances(Instances, Watched):
    """Two instances, whose primary the Sentinels name."""


def name_instances(folder: Path, one: str, two: str) -> None:
    """Put the upstream of two machines into a copy of the nginx files, with these addresses."""
    site = folder / "conf.d/sse-push.conf"
    upstream = UPSTREAM.code.replace("192.0.2.1:8000", one).replace("192.0.2.2:8000", two)
    pattern = re.compile(r"^upstream sse_push \{.*?^\}\n", re.MULTILINE | re.DOTALL)
    text, count = pattern.subn(lambda _: upstream, site.read_text())
    assert count == upstream.count(f" {one} ") == upstream.count(f" {two} ") == 1, upstream
    site.write_text(text)
