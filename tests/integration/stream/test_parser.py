"""A reply is read up to a limit, and no further."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sse_push.stream.connection import (
    bytes_received,
    connection_pool,
    open_connection,
    partial_reply_bytes,
    read_reply,
    send_commands,
)
from sse_push.stream.parser import ReplyTooLarge
from tests.integration.stream.servers import Server

LIMIT_BYTES = 300_000
SLACK_BYTES = 2 * 65_536
"""A piece that arrived with the reply before, and the last piece."""


async def test_replies_up_to_the_limit_are_read_and_no_more_of_a_larger_one(
    server: Server, merchant: str
) -> None:
    server.cli("EVAL", "redis.call('SET', KEYS[1], string.rep('x', 1000000))", "1", merchant)
    connection = connection_pool(server.url, reply_limit_bytes=LIMIT_BYTES).make_connection()
    try:
        await open_connection(connection, "test", tracks=False)
        small = ("GETRANGE", merchant, 0, LIMIT_BYTES - 20)
        await send_commands(connection, [small, small, ("PING",), ("GET", merchant)])
        replies = [await read_reply(connection) for _ in range(3)]
        before = bytes_received(connection)
        with pytest.raises(ReplyTooLarge, match="expected a reply of at most 300000 bytes"):
            await read_reply(connection)
        received = bytes_received(connection) - before
        partial = partial_reply_bytes(connection)
    finally:
        await connection.disconnect(nowait=True)

    assert [len(str(reply, "ascii")) for reply in replies if isinstance(reply, bytes)] == [
        LIMIT_BYTES - 19,
        LIMIT_BYTES - 19,
        4,
    ]
    assert LIMIT_BYTES - SLACK_BYTES < received <= LIMIT_BYTES + SLACK_BYTES
    assert received == partial


async def test_a_connection_that_the_server_closes_is_lost(server: Server) -> None:
    connection = connection_pool(server.url).make_connection()
    try:
        await open_connection(connection, "test", tracks=False)
        server.cli("CLIENT", "KILL", "ID", *server.clients("test"))
        with pytest.raises(RedisConnectionError):
            await read_reply(connection)
    finally:
        await connection.disconnect(nowait=True)
