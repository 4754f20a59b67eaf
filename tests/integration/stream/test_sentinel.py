"""A primary that Sentinels name: how it is found, and how a failover is followed."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
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
from tests.faults.sentinels import is_replica
from tests.harness.keys import KEYS
from tests.harness.processes import frozen
from tests.harness.redis import Kind, Redis, executable
from tests.harness.waiting import (
    SECOND,
    Deadline,
    accepts,
    free_port,
    until,
    wait_for,
)
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


def start_sentinel(
    folder: Path, primary_port: int, replica_port: int | None = None, kind: Kind = "redis"
) -> Redis:
    """Start a Sentinel that knows both servers, as it would after 10 s by itself."""
    port = free_port()
    folder.mkdir()
    replicas = "" if replica_port is None else f"known-replica shop 127.0.0.1 {replica_port}"
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {LOGIN.password}\n"
        f"sentinel monitor shop 127.0.0.1 {primary_port} 1\n"
        f"sentinel auth-pass shop {PASSWORD}\n"
        f"{replicas and f'sentinel {replicas}'}\n"
        f"sentinel down-after-milliseconds shop {DOWN_MS}\n"
        "sentinel failover-timeout shop 3000\n"
    )
    with (folder / "sentinel.log").open("ab") as log:
        command = [executable(kind), str(folder / "sentinel.conf"), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return Redis(port, process, folder)


@pytest.fixture
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Watched]:
    """Servers and a Sentinel of Redis, or of the kind that the test asks for."""
    kind: Kind = getattr(request, "param", "redis")
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    primary = Redis.start(folders[0], kind=kind)
    replica = Redis.start(
        folders[1],
        *("--replicaof", "127.0.0.1", str(primary.port), "--masterauth", PASSWORD),
        kind=kind,
    )
    for each in (replica, primary):
        each.cli("CONFIG", "SET", "repl-ping-replica-period", "1")
        each.cli("CONFIG", "SET", "masterauth", PASSWORD)
        each.cli("CONFIG", "SET", "requirepass", PASSWORD)
    sentinel = start_sentinel(tmp_path / "sentinel", primary.port, replica.port, kind)
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


@pytest.mark.parametrize("watched", ["redis", "valkey"], indirect=True)
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


@pytest.mark.parametrize("watched", ["redis", "valkey"], indirect=True)
async def test_a_primary_that_was_frozen_comes_back_as_a_replica_and_is_left(
    watched: Watched,
) -> None:
    old = watched.servers[0]
    async with following(watched.url, 2 * SECOND, login=LOGIN) as followed:
        await followed.watch("42")
        await followed.until_newest(await accepted(followed, "42"))

        with frozen(old.process.pid):
            await follow_failover(followed, watched, old)
        cli = watched.server(old.port).cli
        await until(lambda: is_replica(cli), "the old primary as a replica", 30 * SECOND)

        await followed.until_newest(await accepted(followed, "42"))


async def test_a_frozen_primary_is_not_waited_for_as_long_as_a_far_one(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.opening.CONNECT_LIMIT_S", 600 * SECOND)
    with frozen(asked.primary.process.pid):
        async with asyncio.timeout(10 * SECOND) as limit:
            with pytest.raises(TimeoutError):
                await open_connection(asked.address(), "test", tracks=False)
    assert not limit.expired()


async def test_a_primary_that_sentinels_replaced_is_left_though_it_lives_on(
    watched: Watched,
) -> None:
    """The network between them is cut, but not ours: nothing breaks, and nothing is refused."""
    old, new = watched.servers
    async with following(watched.url, 2 * SECOND, login=LOGIN) as followed:
        await followed.watch("42")
        await followed.until_newest(await accepted(followed, "42"))
        watched.server(new.port).cli("REPLICAOF", "NO", "ONE")
        watched.ask("REMOVE", "shop")

        watched.ask("MONITOR", "shop", "127.0.0.1", str(new.port), "1")

        await follow_failover(followed, watched, old)
        assert "role:master" in watched.server(old.port).cli("INFO", "replication")


async def test_connections_that_stand_outlive_the_sentinel(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = parse_address(watched.url, LOGIN)
    async with following(watched.url, login=LOGIN) as followed:
        await followed.watch("42")
        watched.sentinel.kill()

        text = "no new connection to redis can be made cause=expected a Sentinel that names"
        await until(lambda: text in caplog.text, "the probe to ask")
        asked_at = followed.follower.probe.passed_at
        await until(lambda: followed.follower.probe.passed_at > asked_at, "the next proof")
        await followed.until_newest(await accepted(followed, "42"))
        assert caplog.text.count("cause=") == 1
        with pytest.raises(OSError, match=r"names the primary of shop, got none: .*111"):
            await dial(address)


async def test_a_check_names_what_is_wrong_with_sentinels(watched: Watched) -> None:
    mute = socket.create_server(("127.0.0.1", 0))
    port, closed_port = watched.sentinel.port, free_port()
    watched.ask("MONITOR", "elsewhere", "127.0.0.1", str(closed_port), "1")

    async def found(url: str, login: Login = LOGIN) -> tuple[str, str]:
        *_, last = await examine(f"redis+sentinel://{url}", KEYS, timeout_s=SECOND, login=login)
        return last.name, last.text

    with mute:
        us = f":{PASSWORD}@127.0.0.1"
        asked = f"{us}:{mute.getsockname()[1]},127.0.0.1:{closed_port},127.0.0.1:{port}"
        first, *well = await examine(
            f"redis+sentinel://{asked}/shop", KEYS, timeout_s=SECOND, login=LOGIN
        )
        assert "delivery" in {each.name for each in well if each.level == "ok"}, well
        assert (first.level, first.name) == ("warning", "sentinels")
        assert f"1 of 3 name 127.0.0.1:{watched.servers[0].port} as the primary of" in first.text
        assert re.search(r"none of .*: no answer within 1 s; .*: Error 111", first.text)

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


@dataclass
class Asked:
    """Sentinels that watch nothing, each of which names one port; and a Redis at one of these."""

    primary: Redis
    by_port: list[Redis]

    def address(self, *mute_ports: int) -> PrimaryAddress:
        hosts = ",".join(f"127.0.0.1:{each}" for each in (*mute_ports, *self.ports))
        found = parse_address(f"redis+sentinel://{hosts}/shop", LOGIN)
        assert isinstance(found, PrimaryAddress)
        return found

    @property
    def ports(self) -> list[int]:
        return [each.port for each in self.by_port]


@pytest.fixture
def asked(tmp_path: Path) -> Generator[Asked]:
    """The first Sentinel was cut off: it names a server that is gone."""
    (tmp_path / "one").mkdir()
    primary = Redis.start(tmp_path / "one")
    named = [free_port(), primary.port, primary.port]
    sentinels = [start_sentinel(tmp_path / f"s{at}", port) for at, port in enumerate(named)]
    try:
        for each in sentinels:
            wait_for(partial(accepts, ("127.0.0.1", each.port)), "a Sentinel to listen")
        yield Asked(primary, sentinels)
    finally:
        for each in (*sentinels, primary):
            each.kill()


async def test_a_sentinel_that_was_cut_off_is_outvoted(asked: Asked) -> None:
    address = asked.address()

    assert await dial(address)

    finding, *_ = await examine(
        f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in asked.ports)}/shop",
        KEYS,
        timeout_s=SECOND,
        login=LOGIN,
    )
    assert (finding.level, finding.name) == ("warning", "sentinels")
    assert f"2 of 3 name 127.0.0.1:{asked.primary.port}, 1 of 3 name 127.0.0.1:" in finding.text
    assert "is a failover going on, or is a Sentinel cut off?" in finding.text


async def test_sentinels_that_do_not_answer_delay_nothing_while_more_than_half_do(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.sentinel.SENTINEL_LIMIT_S", 60 * SECOND)
    address = replace(asked.address(), sentinels=asked.address().sentinels[1:])
    with socket.create_server(("127.0.0.1", 0)) as mute:
        three = replace(
            address, sentinels=(Address("127.0.0.1", mute.getsockname()[1]), *address.sentinels)
        )
        async with asyncio.timeout(5 * SECOND):
            assert await dial(three)


async def test_without_a_majority_most_of_the_sentinels_that_answer_decide(asked: Asked) -> None:
    sentinels = asked.address().sentinels
    with socket.create_server(("127.0.0.1", 0)) as mute:
        nobody = [Address("127.0.0.1", mute.getsockname()[1])] * 3
        assert await dial(replace(asked.address(), sentinels=(*sentinels, *nobody)))
        assert await dial(replace(asked.address(), sentinels=(*nobody, sentinels[1])))


@pytest.mark.parametrize(
    "reply", [b":1\r\n", b"*1\r\n$1\r\nh\r\n", b"*2\r\n$0\r\n\r\n$1\r\n1\r\n", b"+OK\r\n"]
)
async def test_an_answer_that_names_no_server_is_no_sentinel_s(reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"shop\r\n")
        writer.write(reply)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as odd:
        port = odd.sockets[0].getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port}/shop"
        (finding,) = await examine(url, KEYS, timeout_s=SECOND)

    assert finding.name == "sentinel_unreachable"
    assert "expected a host and a port, got something else: it is no Sentinel" in finding.text


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
