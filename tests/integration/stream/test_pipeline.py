"""Commands, replies and announcements on one connection to a real Redis and a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sse_push.stream.address import Address
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import open_connection
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.pipeline import AT_ONCE, Pipeline, ReplyLost, Request
from sse_push.stream.replies import ErrorReply
from sse_push.stream.window import FIRST, LEAST
from tests.harness.keys import stream_key
from tests.harness.waiting import SECOND, until
from tests.integration.stream.servers import Server


class Piped:
    """A pipeline, what it sends besides questions, and what has arrived, in order."""

    def __init__(self, connection: Connection) -> None:
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
    connection = await open_connection(Address.parse(url), "test", tracks=True)
    found = Piped(connection)
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
        connection.close()


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
        await found.connection.send([("GET", key)])
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


async def replies_after(excess: ReplyTooLarge | None) -> list[object]:
    """Lose a connection with two requests on their way, and one that was not sent."""
    replies: list[object] = []
    wanted: list[Request] = [(("PING",), replies.append)] * 2
    pipeline = Pipeline(lambda _most: wanted, lambda _announcement: None)
    pipeline._in_flight.extend(on_reply for _, on_reply in pipeline._next_batch(0))
    pipeline._asked.append(wanted[0])
    pipeline._excess = excess

    pipeline.abandon()

    return replies


async def test_replies_that_were_on_their_way_may_be_the_cause_of_a_loss() -> None:
    replies = await replies_after(None)

    assert [isinstance(reply, ReplyLost) for reply in replies] == [True, True, False]
    assert all(isinstance(reply, RedisConnectionError) for reply in replies)


async def test_a_reply_that_is_too_large_clears_those_behind_it() -> None:
    excess = ReplyTooLarge("too large")
    replies = await replies_after(excess)

    assert [isinstance(reply, ReplyLost) for reply in replies] == [True, False, False]
    assert isinstance(replies[0], ReplyLost)
    assert replies[0].excess is excess


async def test_an_urgent_question_goes_first() -> None:
    pipeline = Pipeline(lambda _most: [], lambda _announcement: None)
    asked = [
        asyncio.create_task(pipeline.ask(("ECHO", name), is_urgent=name == "urgent"))
        for name in ("first", "second", "urgent")
    ]
    await asyncio.sleep(0)
    batch = pipeline._next_batch(0)
    pipeline.abandon()
    for task in asked:
        task.cancel()

    assert [command[1] for command, _ in batch] == ["urgent", "first", "second"]


async def test_neither_questions_nor_reads_wait_for_all_of_the_others() -> None:
    """Even if there is room for one request only."""
    sent: list[str] = []
    pipeline = Pipeline(
        lambda most: [(("read",), lambda _reply: None)] * most, lambda _announcement: None
    )
    pipeline._asked.extend([(("question",), lambda _reply: None)] * 100)
    for _ in range(3):
        sent += [str(command[0]) for command, _ in pipeline._next_batch(0)]

    assert len(sent) == 3 * FIRST
    assert sent.count("question") == 3 * FIRST // 2

    pipeline._in_flight.extend([lambda _reply: None])
    pipeline._window.size = LEAST
    alone = [pipeline._next_batch(0)[0][0][0] for _ in range(4)]
    assert sorted(map(str, alone)) == ["question", "question", "read", "read"]
