"""Browsers vanish without a word: a phone without a net, a laptop without a cable.

Directly, ``TCP_USER_TIMEOUT`` lets them go. Behind nginx the sockets are nginx's: there it is the
kernel setting ``net.ipv4.tcp_retries2``, which here is the namespace's own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack

from tests.faults.namespaces import Host, another_host
from tests.faults.world import Fault, World
from tests.harness.nginx import Nginx
from tests.harness.processes import open_fds
from tests.harness.service import Service

FAULT = Fault(
    number="F-13",
    title="half-open browsers: direct (TCP_USER_TIMEOUT), nginx (tcp_retries2)",
    recovery_s=5,
    settings={"host": "0.0.0.0", "heartbeat_s": 1},
    may_cut=False,
)

VANISHING = 50

CLIENT = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
streams = [socket.create_connection((host, port)) for _ in range(count)]
for stream in streams:
    stream.sendall(b"GET /events?merchant_id=m0 HTTP/1.1\\r\\nHost: x\\r\\nAccept: */*\\r\\n\\r\\n")
    answer = stream.recv(4096)
    assert b" 200 " in answer and b"chunked" in answer, answer
print("open", flush=True)
sys.stdin.read()
"""


class Setting(World):
    """Another host: where browsers are, and then where nginx is."""

    host: Host

    async def enter(self, stack: AsyncExitStack) -> None:
        self.host = stack.enter_context(another_host())


async def inject(world: World) -> None:
    assert isinstance(world, Setting)
    host = world.host
    await vanish(
        world, "direct", world.workers, host.through, host.near_address, world.service.port
    )
    uds = world.folder / "service.sock"
    behind = await asyncio.to_thread(
        Service.start, world.folder, world.redis.url, uds=uds, heartbeat_s=1
    )
    # In production 8, on the machine with nginx, which makes it about two minutes.
    host.set("net.ipv4.tcp_retries2", 3)
    nginx = await asyncio.to_thread(
        Nginx.start,
        world.folder / "nginx-of-host",
        f"unix:{uds}",
        through=host.through,
        host=host.address,
    )
    try:
        await vanish(world, "nginx", [behind.process.pid], (), host.address, nginx.port)
    finally:
        await asyncio.to_thread(nginx.stop)
        await asyncio.to_thread(behind.stop)
    world.over()


async def vanish(
    world: Setting, name: str, workers: list[int], through: tuple[str, ...], address: str, port: int
) -> None:
    """Open streams across the cable, pull it, and wait until the service has let them go."""
    before = sum(map(open_fds, workers))
    phones = subprocess.Popen(
        [*through, sys.executable, "-c", CLIENT, address, str(port), str(VANISHING)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert phones.stdout is not None, "piped"
        assert await asyncio.to_thread(phones.stdout.readline) == b"open\n"
        await asyncio.to_thread(world.host.pull)
        took_s = await world.until(
            lambda: sum(map(open_fds, workers)) < before + VANISHING / 5,
            f"vanished browsers to be let go, {name}",
            150,
            pause_s=0.1,
        )
        world.note(f"{name}: let go after {took_s:.0f} s")
    finally:
        phones.kill()
        phones.wait()
        await asyncio.to_thread(world.host.plug)
