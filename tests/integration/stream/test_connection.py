"""Announcements on a tracked connection, of a real Redis and a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing

import pytest

from sse_push.stream.address import Address
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.opening import open_connection
from sse_push.stream.replies import ErrorReply
from tests.harness.keys import stream_key
from tests.harness.waiting import SECOND
from tests.integration.stream.servers import Server


@asynccontextmanager
async def tracked(url: str) -> AsyncGenerator[Connection]:
    with closing(await open_connection(Address.parse(url), "test", tracks=True)) as connection:
        yield connection


async def ask(connection: Connection, *words: str) -> object:
    await connection.send([words])
    return await connection.read()


async def announced_until_now(connection: Connection) -> list[Announcement]:
    """Return every announcement that was made before this."""
    await connection.send([("PING", "until now")])
    got: list[Announcement] = []
    async with asyncio.timeout(5 * SECOND):
        while isinstance(reply := await connection.read_or_announcement(), Announcement):
            got.append(reply)
    assert reply == b"until now"
    return got


async def test_a_change_of_a_key_and_one_of_all_are_announced(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    async with tracked(server.url) as connection:
        await ask(connection, "XRANGE", key, "-", "+")
        server.add(merchant)
        async with asyncio.timeout(5 * SECOND):
            changed = await connection.read_or_announcement()
            server.cli("FLUSHALL")
            flushed = await connection.read_or_announcement()

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
