"""The example of Redis Sentinel in the documentation, as it stands, under a service."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.documents import Example
from tests.harness.programs import run
from tests.harness.redis import CLI_S, Redis
from tests.harness.service import Service, serving
from tests.harness.stream import open_stream, publishing
from tests.harness.waiting import SECOND, Deadline, free_port, program, until, wait_for

REDIS_CONF, SENTINEL_CONF, VARIABLES = (
    Example("sse_push/docs/operations.md", "text", number).code for number in range(3)
)
NAMES = ("one", "two", "three")
ENOUGH_S = 60 * SECOND
"""Sentinels that have just met elect one of them, and it promotes a replica."""


class Machines:
    """Three machines of the example, each with a Redis and a Sentinel on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.redis_ports = {name: free_port() for name in NAMES}
        self.sentinel_ports = {name: free_port() for name in NAMES}
        self.servers: dict[str, Redis] = {}
        self.sentinels: list[subprocess.Popen[bytes]] = []
        self._folder = folder

    def local(self, text: str) -> str:
        """Return a text of the example with addresses of this machine."""
        for name in NAMES:
            text = text.replace(f"{name}.example 6379", f"127.0.0.1 {self.redis_ports[name]}")
            text = text.replace(f"{name}.example:26379", f"127.0.0.1:{self.sentinel_ports[name]}")
        assert ".example" not in text
        return text

    @property
    def variables(self) -> dict[str, str]:
        lines = self.local(VARIABLES).splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def start_servers(self) -> None:
        for name in NAMES:
            folder = self._folder / name
            folder.mkdir()
            replica = "" if name == "one" else self.local("replicaof one.example 6379\n")
            (folder / "redis.conf").write_text(REDIS_CONF + replica)
            # A server of the harness is ready when it answers PING, which needs the password.
            self.servers[name] = self._start_server(name, folder)
        wait_for(
            lambda: "connected_slaves:2" in self.ask_redis("one", "INFO", "replication"),
            "two replicas",
            ENOUGH_S,
        )

    def _start_server(self, name: str, folder: Path) -> Redis:
        port = self.redis_ports[name]
        command = [program("redis-server"), str(folder / "redis.conf"), "--port", str(port)]
        command += ["--dir", str(folder), "--save", "", "--repl-diskless-sync-delay", "0"]
        with (folder / "redis.log").open("ab") as log:
            return Redis(port, subprocess.Popen(command, stdout=log, stderr=log), folder)

    def start_sentinels(self) -> None:
        for name, port in self.sentinel_ports.items():
            text = self.local(SENTINEL_CONF).replace("port 26379", f"port {port}")
            assert "down-after-milliseconds mymaster 5000" in text
            path = self._folder / name / "sentinel.conf"
            path.write_text(text.replace(" 5000", " 1000"))
            with path.with_suffix(".log").open("ab") as log:
                command = [program("redis-server"), str(path), "--sentinel"]
                self.sentinels.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_for(partial(self._know_all, "one"), "the Sentinels to meet", ENOUGH_S)

    def _know_all(self, name: str) -> bool:
        try:
            said = self._ask(
                self.sentinel_ports[name],
                "PASSWORD-OF-SENTINELS",
                "SENTINEL",
                "CKQUORUM",
                "mymaster",
            )
        except subprocess.CalledProcessError:
            return False
        return said.startswith("OK 3 usable")

    def ask_redis(self, name: str, *words: str) -> str:
        try:
            return self._ask(self.redis_ports[name], "PASSWORD-OF-REDIS", *words)
        except subprocess.CalledProcessError:
            return ""

    def _ask(self, port: int, password: str, *words: str) -> str:
        command = [program("redis-cli"), "--no-auth-warning", "-a", password, "-p", str(port)]
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, check=True, timeout=CLI_S
        )
        return done.stdout

    def kill(self) -> None:
        for process in [*self.sentinels, *(each.process for each in self.servers.values())]:
            process.kill()
            process.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Generator[Machines]:
    found = Machines(tmp_path)
    try:
        found.start_servers()
        found.start_sentinels()
        yield found
    finally:
        found.kill()


def checked(machines: Machines, service: Service) -> dict[str, dict[str, str]]:
    """Return what ``sse-push check`` finds, by name."""
    settings = {"SSE_PUSH_SUBSCRIBE_AUTH": "none", "SSE_PUSH_NOTIFY_KEYS": service.key}
    done = run("check", "--json", **machines.variables, **settings)
    return {each["name"]: each for each in json.loads(done.stdout)["findings"]}


async def test_the_example_of_sentinel_survives_the_loss_of_a_machine(
    machines: Machines, tmp_path: Path
) -> None:
    given = {
        name.removeprefix("SSE_PUSH_").lower(): text for name, text in machines.variables.items()
    }
    url = given.pop("redis_url")
    with serving(tmp_path, url, **given) as service:
        found = checked(machines, service)
        assert found["sentinels"]["level"] == "ok", found
        port = machines.redis_ports["one"]
        assert (
            found["sentinels"]["text"] == f"3 of 3 name 127.0.0.1:{port} as the primary of mymaster"
        )
        assert found["delivery"]["level"] == "ok", found

        async with open_stream(service.url) as stream, publishing(service.url) as backend:
            first = await backend.notify("42")
            await until(lambda: first.encode() in stream.body, "the first refresh")
            machines.servers["one"].process.kill()
            machines.sentinels[0].kill()

            deadline = Deadline(ENOUGH_S)
            while (answer := await backend.post(json={"merchant_id": "42"})).status_code != 200:
                assert answer.status_code == 503
                assert not await deadline.is_missed(), service.log
            await until(
                lambda: answer.json()["id"].encode() in stream.body, "the refresh", ENOUGH_S
            )

        found = checked(machines, service)
        text = found["sentinels"]["text"]
        assert "2 of 3 name 127.0.0.1:" in text
        assert f":{port} as" not in text
        assert f"got none of 127.0.0.1:{machines.sentinel_ports['one']}: Error 111" in text
