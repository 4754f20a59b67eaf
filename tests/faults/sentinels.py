"""Worlds in which three Sentinels watch a primary and a replica, and name the primary."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.world import World
from tests.harness.redis import Redis, executable
from tests.harness.waiting import free_port

_QUORUM = 2
_SERVICE = "shop"
_DOWN_S = 5.0
"""How long a primary is silent before the Sentinels take it for dead; scaled like all times."""

_DOWN_LEAST_S = 1.0
"""A Sentinel asks once a second."""


class Watched(World):
    """The service knows the Sentinels only; ``redis`` is the primary that they name."""

    replica: Redis
    sentinels: list[Redis]

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start the replica, and then the Sentinels, which find it through the primary."""
        folder = self.folder / "replica"
        folder.mkdir()
        at_once = ("repl-diskless-sync-delay", "0")
        self.redis.cli("CONFIG", "SET", *at_once)
        self.replica = await asyncio.to_thread(
            Redis.start, folder, "--replicaof", f"127.0.0.1 {self.redis.port}"
        )
        self.replica.cli("CONFIG", "SET", *at_once)
        stack.callback(self._kill_replica)
        await self.until(self.is_replicated, "the replica to follow", 10)
        self.sentinels = [self._sentinel(self.folder / f"sentinel{number}") for number in range(3)]
        stack.callback(self.kill_sentinels)
        for each in self.sentinels:
            await self.until(each.answers, "a Sentinel", 10)
        await self.until(
            lambda: all(
                each.cli("SENTINEL", "CKQUORUM", _SERVICE).startswith("OK 3 ")
                and "flags\nslave\n" in each.cli("SENTINEL", "REPLICAS", _SERVICE) + "\n"
                for each in self.sentinels
            ),
            "the Sentinels to know each other and the replica",
            60,
            pause_s=0.2,
        )
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.redis_url = f"redis+sentinel://{hosts}/{_SERVICE}"

    def is_replicated(self) -> bool:
        """Return whether the replica is connected, and has what was written until now."""
        return self.redis.cli("WAIT", "1", "100") == "1"

    async def failed_over(self) -> float:
        """Wait until most Sentinels name the replica; return how long it took.

        It is the world's Redis from then on.
        """
        wanted = str(self.replica.port)
        took_s = await self.until(
            lambda: (
                sum(
                    each.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE).endswith(wanted)
                    for each in self.sentinels
                )
                >= _QUORUM
            ),
            "the Sentinels to name the replica",
            60,
            pause_s=0.1,
        )
        self.redis, self.replica = self.replica, self.redis
        return took_s

    async def follow_again(self, server: Redis) -> None:
        """Start a server again that was killed, as the replica of the present primary."""
        leader = f"{self.redis.host} {self.redis.port}"
        self.replica = await asyncio.to_thread(
            Redis.start, server.folder, "--replicaof", leader, port=server.port
        )
        await self.until(self.is_replicated, "the server to be a replica", 20)

    def kill_sentinels(self) -> None:
        """End all Sentinels; those that are gone already stay so."""
        for each in self.sentinels:
            each.kill()

    async def restart_sentinels(self) -> None:
        """Start the Sentinels again, with what they had written into their files."""
        self.sentinels = [self._run(each.folder, each.port) for each in self.sentinels]
        for each in self.sentinels:
            await self.until(each.answers, "a Sentinel", 10)

    def _sentinel(self, folder: Path) -> Redis:
        folder.mkdir()
        port = free_port()
        down_ms = round(1000 * max(self.seconds(_DOWN_S), _DOWN_LEAST_S))
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {_SERVICE} 127.0.0.1 {self.redis.port} {_QUORUM}\n"
            f"sentinel down-after-milliseconds {_SERVICE} {down_ms}\n"
            f"sentinel failover-timeout {_SERVICE} {4 * down_ms}\n"
        )
        return self._run(folder, port)

    def _run(self, folder: Path, port: int) -> Redis:
        command = [executable(), str(folder / "sentinel.conf"), "--sentinel"]
        with (folder / "sentinel.log").open("ab") as log:
            return Redis(port, subprocess.Popen(command, stdout=log, stderr=log), folder)

    def _kill_replica(self) -> None:
        self.replica.kill()  # whichever it is in the end


def is_replica(cli: Callable[..., str]) -> bool:
    """Return whether a server is a replica, as its ``redis-cli`` says; no answer is none.

    A Sentinel that makes it one ends all its connections, that of ``redis-cli`` as well.
    """
    try:
        return "role:slave" in cli("INFO", "replication")
    except subprocess.CalledProcessError:
        return False
