"""Commands, replies and announcements on one connection to a real Redis and a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from sse_push.stream.connection import Announcement, connection_pool, open_connection
from sse_push.stream.contract import stream_key
from sse_push.stream.pipeline import AT_ONCE, Pipeline, Request
from sse_push.stream.replies import ErrorReply
from tests.harness.waiting import SECOND, until
from tests.integration.stream.servers import Server


class Piped:
    """A pipeline, what it sends besides questions, and what has arrived, in order."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.wanted: list[Request] = []
        self.arrived: list[object] = []
        self.pipeline = Pipeline(self.next_requests, self.arrived.append)

    def want(self, *words: str) -> None:
        self.wanted.append((words, self.arrived.append))

    def next_requests(self, most: int) -> list[Request]:
        requests, self.wanted = self.wanted[:most], self.wanted[most:]
        return requests


@asynccontextmanager
async def piped(url: str) -> AsyncGenerator[Piped]:
    connection = connection_pool(url).make_connection()
    found = Piped(connection)
    await open_connection(connection, "test", tracks=True)
    tasks = [
        asyncio.create_task(found.pipeline.send(connection)),
        asyncio.create_task(found.pipeline.receive(connection)),
    ]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await connection.disconnect(nowait=True)


async def test_replies_arrive_in_the_order_of_the_commands_with_announcements_between(
    server: Server, merchant: str
) -> None:
    key = stream_key(merchant)
    async with piped(server.url) as found:
        found.want("GET", key)
        found.want("NONSENSE")
        found.pipeline.wake()
        await until(lambda: len(found.arrived) == 2, "two replies")
        server.cli("SET", key, "1")
        await until(lambda: len(found.arrived) == 3, "an announcement")
        answer = await found.pipeline.ask(("GET", key))

    assert answer == b"1"
    assert found.arrived[0] is None
    assert isinstance(found.arrived[1], ErrorReply)
    assert found.arrived[2] == Announcement([key.encode()])


async def test_more_requests_than_one_batch_holds_are_all_answered(server: Server) -> None:
    count = 2 * AT_ONCE + 1
    async with piped(server.url) as found:
        ask = found.pipeline.ask
        answers = await asyncio.gather(*(ask(("ECHO", number)) for number in range(count)))

    assert answers == [str(number).encode() for number in range(count)]


async def test_a_caller_that_is_canceled_takes_no_reply_of_another(
    server: Server, merchant: str
) -> None:
    async with piped(server.url) as found:
        server.cli("CLIENT", "PAUSE", "60000", "WRITE")
        canceled = asyncio.create_task(found.pipeline.ask(("INCR", merchant)))
        await until(lambda: bool(found.pipeline._in_flight), "the command to be sent")
        second = asyncio.create_task(found.pipeline.ask(("INCR", merchant)))
        canceled.cancel()
        await asyncio.wait([canceled])
        server.cli("CLIENT", "UNPAUSE")
        async with asyncio.timeout(5 * SECOND):
            answer = await second

    assert answer == 2


async def test_a_reply_that_no_request_waits_for_is_dropped(server: Server, merchant: str) -> None:
    key = stream_key(merchant)
    async with piped(server.url) as found:
        await found.connection.send_command("GET", key)
        server.cli("SET", key, "1")
        await until(lambda: found.arrived == [Announcement([key.encode()])], "an announcement")
        answer = await found.pipeline.ask(("ECHO", "1"))

    assert answer == b"1"


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_request_that_is_abandoned_is_answered_with_the_loss(*, is_sent: bool) -> None:
    pipeline = Pipeline(lambda _most: [], lambda _announcement: None)
    asked = asyncio.create_task(pipeline.ask(("PING",)))
    await asyncio.sleep(0)
    if is_sent:
        pipeline._in_flight.extend(on_reply for _, on_reply in pipeline._next_batch(0))

    pipeline.abandon()

    assert isinstance(await asked, RedisConnectionError)
    assert pipeline._next_batch(0) == []
