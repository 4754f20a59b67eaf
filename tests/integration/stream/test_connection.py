"""Announcements on a tracked connection, of a real Redis and a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from sse_push.settings import REDIS_OPTIONS, REDISS_OPTIONS
from sse_push.stream.connection import (
    Announcement,
    connection_pool,
    dial,
    open_connection,
    read_reply,
    read_reply_or_announcement,
    send_commands,
)
from sse_push.stream.contract import stream_key
from sse_push.stream.parser import BoundedParser
from sse_push.stream.replies import ErrorReply
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, free_port
from tests.integration.stream.servers import Server, follow


@asynccontextmanager
async def tracked(url: str) -> AsyncGenerator[AbstractConnection]:
    pool = connection_pool(url)
    connection = pool.make_connection()
    try:
        await open_connection(connection, "test", tracks=True)
        yield connection
    finally:
        await connection.disconnect(nowait=True)


async def ask(connection: AbstractConnection, *words: str) -> object:
    await connection.send_command(*words)
    return await read_reply(connection)


async def announced_until_now(connection: AbstractConnection) -> list[Announcement]:
    """Return every announcement that was made before this."""
    await connection.send_command("PING", "until now")
    got: list[Announcement] = []
    async with asyncio.timeout(5 * SECOND):
        while isinstance(reply := await read_reply_or_announcement(connection), Announcement):
            got.append(reply)
    assert reply == b"until now"
    return got


async def test_the_private_push_handler_of_the_library_is_where_it_is_expected(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    async with tracked(server.url) as connection:
        assert type(connection._parser) is BoundedParser
        await ask(connection, "XRANGE", key, "-", "+")
        server.add(merchant)
        async with asyncio.timeout(5 * SECOND):
            changed = await read_reply_or_announcement(connection)
            server.cli("FLUSHALL")
            flushed = await read_reply_or_announcement(connection)

    assert changed == Announcement([key.encode()])
    assert flushed == Announcement(None)


@pytest.mark.parametrize(
    "script",
    [
        "XADD {key} * topic a",
        "MULTI\nXADD {key} * topic a\nXADD {key} * topic b\nEXEC",
        "EVAL \"redis.call('XADD', KEYS[1], '*', 'topic', 'a')\" 1 {key}",
        "EXPIRE {key} 1000",
        "PEXPIRE {key} 1",
        "DEL {key}",
        "UNLINK {key}",
        "SET {key} 1",
        "RENAME {key} {key}-other",
        "XTRIM {key} MAXLEN 0",
    ],
)
async def test_a_change_is_announced_once_in_whichever_way_it_is_made(
    server: Server, merchant: str, script: str
) -> None:
    key = stream_key(merchant)
    server.add(merchant)
    async with tracked(server.url) as connection:
        await ask(connection, "XRANGE", key, "-", "+")

        server.cli(script=script.format(key=key))
        first = await announced_until_now(connection)
        for _ in range(20):
            server.cli("XADD", f"{key}-other", "*", "at", "1")
        server.cli(script=f"DEL {key}\nXADD {key} * at 1\n" * 20)
        rest = await announced_until_now(connection)

    assert first == [Announcement([key.encode()])]
    assert rest == []


async def test_a_read_that_fails_arms_the_key_too(server: Server, merchant: str) -> None:
    key = stream_key(merchant)
    server.cli("SET", key, "1")
    async with tracked(server.url) as connection:
        refused = await ask(connection, "XRANGE", key, "-", "+")
        server.cli("SET", key, "2")
        announced = await announced_until_now(connection)

    assert isinstance(refused, ErrorReply)
    assert str(refused).startswith("WRONGTYPE")
    assert announced == [Announcement([key.encode()])]


VALUES = {"ssl_cert_reqs": "none", "ssl_check_hostname": "false"}


@pytest.mark.parametrize(
    ("address", "name"),
    [
        *(("redis://127.0.0.1", name) for name in REDIS_OPTIONS),
        *(("unix:///run/redis.sock", name) for name in REDIS_OPTIONS),
        *(("rediss://127.0.0.1", name) for name in REDISS_OPTIONS),
    ],
)
def test_the_library_knows_every_option_that_the_url_may_have(address: str, name: str) -> None:
    pool = connection_pool(f"{address}?{name}={VALUES.get(name, '1')}")

    assert not pool.make_connection().is_connected


async def test_commands_are_not_sent_over_a_connection_that_is_lost() -> None:
    connection = connection_pool(f"redis://127.0.0.1:{free_port()}/0").make_connection()

    with pytest.raises(RedisConnectionError, match="lost"):
        await send_commands(connection, [("PING",)])


async def test_an_address_without_a_server_has_no_run() -> None:
    pool = connection_pool(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(OSError, match="connect"):
        await dial(pool)


async def test_a_run_is_another_one_after_a_time_as_a_replica_and_the_same_with_one(
    mortal: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Redis.start(tmp_path_factory.mktemp("other"))
    pool = connection_pool(mortal.url)
    try:
        alone = await dial(pool)
        follow(other, mortal)
        with_replica = await dial(pool)
        other.cli("REPLICAOF", "NO", "ONE")
        follow(mortal, other)
        mortal.cli("REPLICAOF", "NO", "ONE")
        back = await dial(pool)
        again = await dial(pool)
    finally:
        other.stop()

    assert alone.startswith(b"run_id:")
    assert with_replica == alone
    assert back.startswith(alone)
    assert back == again != alone
