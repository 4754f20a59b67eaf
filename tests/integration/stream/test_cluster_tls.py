"""A cluster whose nodes are reached by TLS, and reach each other by TLS."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sse_push.notification import Notification
from sse_push.stream.slots import slot_of
from tests.harness.keys import stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, free_port, program, wait_for
from tests.integration.stream.in_cluster import in_cluster
from tests.integration.stream.test_opening import MAKE_CERTIFICATE

HALVES = (0, 8191), (8192, 16_383)


class Guarded:
    """Two primaries, each with a port for TLS, and one of the old kind for commands of the test."""

    def __init__(self, folder: Path) -> None:
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        made = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(
            [program("openssl"), *MAKE_CERTIFICATE, *made], capture_output=True, check=True
        )
        self.ports = [free_port(), free_port()]
        self.buses = [free_port(), free_port()]
        self.nodes: list[Redis] = []
        for port, bus in zip(self.ports, self.buses, strict=True):
            of_node = folder / str(port)
            of_node.mkdir()
            settings = {
                "cluster-enabled": "yes",
                "cluster-port": bus,
                "tls-cluster": "yes",
                "tls-port": port,
                "tls-auth-clients": "optional",
                "tls-cert-file": self.certificate,
                "tls-key-file": key,
                "tls-ca-cert-file": self.certificate,
            }
            words = (str(word) for name, value in settings.items() for word in (f"--{name}", value))
            self.nodes.append(Redis.start(of_node, *words))
        self._form()

    def _form(self) -> None:
        one, two = self.nodes
        for node, (first, last) in zip(self.nodes, HALVES, strict=True):
            assert node.cli("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == "OK"
        two.cli("CLUSTER", "SET-CONFIG-EPOCH", "2")
        one.cli("CLUSTER", "MEET", "127.0.0.1", str(self.ports[1]), str(self.buses[1]))
        wait_for(
            lambda: all("cluster_state:ok" in each.cli("CLUSTER", "INFO") for each in self.nodes),
            "a cluster that is whole",
            30 * SECOND,
        )

    @property
    def url(self) -> str:
        """The address that a user would write."""
        return f"rediss+cluster://127.0.0.1:{self.ports[0]}?ssl_ca_certs={self.certificate}"

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    servers = Guarded(tmp_path_factory.mktemp("tls_cluster"))
    yield servers
    servers.kill()


def merchant_in(half: tuple[int, int]) -> str:
    names = (f"m{number}" for number in range(1000))
    return next(each for each in names if half[0] <= slot_of(stream_key(each)) <= half[1])


async def test_all_nodes_are_reached_by_tls_also_where_a_reply_sends_us(guarded: Guarded) -> None:
    merchants = [merchant_in(half) for half in HALVES]
    one, two = guarded.nodes
    ids = [node.cli("CLUSTER", "MYID") for node in guarded.nodes]
    slot = str(slot_of(stream_key(merchants[0])))
    async with in_cluster(guarded.url) as followed:
        await followed.until_armed(*merchants)
        for merchant_id in merchants:
            event_id = await followed.appender.append(Notification(merchant_id))
            await followed.until_heard(event_id, merchant_id)

        # The stream is gone here: the slot's owner sends us to the other node.
        await asyncio.to_thread(one.cli, "DEL", stream_key(merchants[0]))
        await asyncio.to_thread(two.cli, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await asyncio.to_thread(one.cli, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        event_id = await followed.appender.append(Notification(merchants[0]))
        await followed.until_heard(event_id, merchants[0])
        assert one.cli("EXISTS", stream_key(merchants[0])).startswith("ASK")
