"""A worker of nginx is killed, and then another one; their places are free again at once.

An address may have hardly more connections than there are browsers, all of which have one address:
if a place outlived its worker, some browsers would be turned away for good.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.faults.world import Fault, World
from tests.harness.nginx import replace

FAULT = Fault(
    number="F-11b",
    title="one worker of nginx killed (-9), then another one",
    recovery_s=5,
)

_OTHERS = 20
"""The browsers of the checker, what warms up, and connections whose end nginx has not seen yet."""


class Setting(World):
    """nginx with a limit that its browsers nearly reach."""

    def _adapt(self, folder: Path) -> None:
        super()._adapt(folder)
        most = f"limit_conn sse_push_address {self.scale.browsers + _OTHERS}"
        replace(folder, "limit_conn sse_push_address 65535", most)


async def inject(world: World) -> None:
    nginx = world.nginx
    assert nginx is not None, "not without"
    for _ in range(2):
        await world.lasts(3)
        before = nginx.workers()
        killed = before[0]
        os.kill(killed, signal.SIGKILL)
        await world.until(
            lambda killed=killed, before=before: (  # type: ignore[misc]
                killed not in nginx.workers() and len(nginx.workers()) == len(before)
            ),
            "another worker",
            5,
        )
    world.over()
