"""A primary that Sentinels name: how it is found, and how a failover is followed."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, Notification
from sse_push.stream import Login, examine, parse_address
from sse_push.stream.address import Address
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import Unsuited, dial, open_connection
from sse_push.stream.sentinel import PrimaryAddress
from tests.harness.keys import KEYS
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, Deadline, free_port, program, until, wait_for
from tests.integration.stream.following import Followed, following
from tests.integration.stream.servers import Server

PASSWORD = "of-the-servers"
LOGIN = Login(password="of-the-sentinel")
DOWN_MS = 1000
"""How long a primary is silent before Sentinel takes it for dead."""


@dataclass
class Watched:
    """A primary, its replica, and one Sentinel, each with a password."""

    servers: tuple[Redis, Redis]
    sentinel: Redis

    @property
    def url(self) -> str:
        return f"redis+sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel.port}/shop"

    @property
    def named_port(self) -> int:
        answer = self.ask("GET-MASTER-ADDR-BY-NAME", "shop")
        return int(answer.splitlines()[1])

    def ask(self, *words: str) -> str:
        sentinel = Server(f"redis://default:{LOGIN.password}@127.0.0.1:{self.sentinel.port}")
        return sentinel.cli("SENTINEL", *words)

    def server(self, port: int) -> Server:
        return Server(f"redis://default:{PASSWORD}@127.0.0.1:{port}/0")


def start_sentinel(folder: Path, primary: Redis, replica: Redis) -> Redis:
    """Start a Sentinel that knows both servers, as it would after 10 s by itself."""
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {LOGIN.password}\n"
        f"sentinel monitor shop 127.0.0.1 {primary.port} 1\n"
        f"sentinel auth-pass shop {PASSWORD}\n"
        f"sentinel known-replica shop 127.0.0.1 {replica.port}\n"
        f"sentinel down-after-milliseconds shop {DOWN_MS}\n"
        "sentinel failover-timeout shop 3000\n"
    )
    with (folder / "sentinel.log").open("ab") as log:
        command = [program("redis-server"), str(folder / "sentinel.conf"), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return Redis(port, process, folder)


@pytest.fixture
def watched(tmp_path: Path) -> Generator[Watched]:
    folders = [tmp_path / name for name in ("one", "two", "sentinel")]
    for folder in folders:
        folder.mkdir()
    primary = Redis.start(folders[0])
    replica = Redis.start(
        folders[1], "--replicaof", "127.0.0.1", str(primary.port), "--masterauth", PASSWORD
    )
    for each in (replica, primary):
        each.cli("CONFIG", "SET", "repl-ping-replica-period", "1")
        each.cli("CONFIG", "SET", "masterauth", PASSWORD)
        each.cli("CONFIG", "SET", "requirepass", PASSWORD)
    sentinel = start_sentinel(folders[2], primary, replica)
    found = Watched((primary, replica), sentinel)

    def knows_replica() -> bool:
        try:
            return "flags\nslave\n" in found.ask("REPLICAS", "shop") + "\n"
        except subprocess.CalledProcessError:
            return False

    try:
        wait_for(knows_replica, "the Sentinel to know the replica", 30 * SECOND)
        yield found
    finally:
        for each in (sentinel, replica, primary):
            each.kill()


async def accepted(followed: Followed, merchant: str) -> EntryId:
    """Notify as a backend does, again and again, until that is answered by an ID."""
    deadline = Deadline(30 * SECOND)
    while True:
        try:
            return (await followed.appender.append(Notification(merchant))).entry_id
        except StreamUnavailable:
            is_missed = await deadline.is_missed()
        assert not is_missed, "expected a server that takes notifications"


async def follow_failover(followed: Followed, watched: Watched, old: Redis) -> None:
    """Wait until the other server is followed, and all that it takes arrives."""
    await until(lambda: watched.named_port != old.port, "another primary", 30 * SECOND)
    new = watched.server(watched.named_port).cli("INFO", "server")
    await until(
        lambda: followed.follower.server_id.decode().partition(" ")[0] in new,
        "the follower at the new primary",
        30 * SECOND,
    )
    await followed.until_newest(await accepted(followed, "42"))


async def test_a_primary_that_is_killed_is_followed_to_its_successor(watched: Watched) -> None:
    old = watched.servers[0]
    async with following(watched.url, 2 * SECOND, login=LOGIN) as followed:
        await followed.watch("42")
        await followed.until_newest(await accepted(followed, "42"))

        old.kill()

        await follow_failover(followed, watched, old)
        assert any(change.is_resync for change in followed.changes)


async def test_a_primary_that_hands_over_is_left_though_its_connections_stand(
    watched: Watched,
) -> None:
    old = watched.servers[0]
    async with following(watched.url, 2 * SECOND, login=LOGIN) as followed:
        await followed.watch("42")
        await followed.until_newest(await accepted(followed, "42"))

        watched.ask("FAILOVER", "shop")

        await follow_failover(followed, watched, old)


async def test_a_primary_that_was_frozen_comes_back_as_a_replica_and_is_left(
    watched: Watched,
) -> None:
    old = watched.servers[0]
    async with following(watched.url, 2 * SECOND, login=LOGIN) as followed:
        await followed.watch("42")
        await followed.until_newest(await accepted(followed, "42"))

        with frozen(old.process.pid):
            await follow_failover(followed, watched, old)
        role = partial(watched.server(old.port).cli, "INFO", "replication")
        await until(lambda: "role:slave" in role(), "the old primary as a replica", 30 * SECOND)

        await followed.until_newest(await accepted(followed, "42"))


async def test_connections_that_stand_outlive_the_sentinel(watched: Watched) -> None:
    address = parse_address(watched.url, LOGIN)
    async with following(watched.url, login=LOGIN) as followed:
        await followed.watch("42")
        watched.sentinel.kill()

        await followed.until_newest(await accepted(followed, "42"))
        with pytest.raises(OSError, match=r"names the primary of shop, got none: .*111"):
            await dial(address)


async def test_a_check_names_what_is_wrong_with_sentinels(watched: Watched) -> None:
    mute = socket.create_server(("127.0.0.1", 0))
    port, closed_port = watched.sentinel.port, free_port()
    watched.ask("MONITOR", "elsewhere", "127.0.0.1", str(closed_port), "1")

    async def found(url: str, login: Login = LOGIN) -> tuple[str, str]:
        finding, *_ = await examine(f"redis+sentinel://{url}", KEYS, timeout_s=SECOND, login=login)
        return finding.name, finding.text

    with mute:
        us = f":{PASSWORD}@127.0.0.1"
        asked = f"{us}:{mute.getsockname()[1]},127.0.0.1:{closed_port},127.0.0.1:{port}"
        well = await examine(f"redis+sentinel://{asked}/shop", KEYS, timeout_s=SECOND, login=LOGIN)
        assert "delivery" in {each.name for each in well if each.level == "ok"}, well

        name, text = await found(f"{us}:{port}/shop", Login(password="another"))
        assert name == "sentinel_password"
        assert "WRONGPASS" in text
        assert "another" not in text
        name, _ = await found(f"{us}:{port}/shop", Login())
        assert name == "sentinel_password"
        name, text = await found(f"{us}:{port}/unknown")
        assert (name, "knows no service unknown" in text) == ("sentinel_service", True)
        name, text = await found(f"127.0.0.1:{closed_port}/shop")
        assert (name, "Error 111" in text) == ("sentinel_unreachable", True)
        name, text = await found(f"127.0.0.1:{mute.getsockname()[1]}/shop")
        assert (name, "no answer within 1 s" in text) == ("sentinel_unreachable", True)
        name, text = await found(f"{us}:{port}/elsewhere")
        assert (name, str(closed_port) in text) == ("primary_unreachable", True)
        name, text = await found(f":wrong@127.0.0.1:{port}/shop")
        assert (name, "WRONGPASS" in text) == ("password_wrong", True)
        with pytest.raises(RedisConnectionError, match=r"primary of shop within 0.1 s, got none"):
            await parse_address(f"redis+sentinel://127.0.0.1:{mute.getsockname()[1]}/shop").reach(
                lambda: pytest.fail("nothing is reached"), within_s=0.1
            )


async def test_a_replica_that_a_sentinel_names_is_left(watched: Watched) -> None:
    """A Sentinel that was cut off names the old primary, which may be a replica by now."""

    class ReplicaAddress(Address):
        @property
        def needs_primary(self) -> bool:
            return PrimaryAddress().needs_primary

    replica = watched.servers[1].port
    with pytest.raises(Unsuited, match="expected a primary, got a replica"):
        await open_connection(
            ReplicaAddress(port=replica, password=PASSWORD, host="127.0.0.1"), "test", tracks=False
        )
    plain = Address(port=replica, password=PASSWORD, host="127.0.0.1")
    with closing(await open_connection(plain, "test", tracks=False)) as connection:
        assert connection.server_id


def test_a_url_of_sentinels_says_whom_to_ask_for_what_and_as_whom() -> None:
    address = parse_address(
        "rediss+sentinel://me:p%40ss@one,[::1]:1/my%2Dshop?db=2&ssl_ca_certs=/ca", Login("s", "t")
    )

    tls = {"ssl_ca_certs": "/ca"}
    assert address == PrimaryAddress(
        user="me",
        password="p@ss",
        db=2,
        tls=tls,
        service="my-shop",
        sentinels=(
            Address("one", 26379, user="s", password="t", tls=tls),
            Address("::1", 1, user="s", password="t", tls=tls),
        ),
    )
    assert str(address) == "the primary of my-shop"
    assert "p@ss" not in repr(address)
    assert parse_address("redis://h/1", Login("s", "t")) == Address("h", db=1)
    assert "secret" not in repr(Login("me", "secret"))
