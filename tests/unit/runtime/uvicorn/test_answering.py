"""Requests behind one another on a connection that is fed by hand, and its end."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from tests.unit.runtime.uvicorn.connection import GET, OK, Connection, answer_ok


class Slow:
    """An application that answers a request when it may."""

    def __init__(self) -> None:
        self.may_answer: list[asyncio.Event] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.may_answer.append(asyncio.Event())
        await self.may_answer[-1].wait()
        await answer_ok(scope, receive, send)


async def test_requests_behind_one_another_are_answered_in_turn() -> None:
    app = Slow()
    connection = Connection(app)
    await connection.feed(GET * 3)
    answers = []
    for number in range(3):
        app.may_answer[number].set()
        answers.append(await connection.feed())

    assert answers == [OK, 2 * OK, 3 * OK]


@pytest.mark.parametrize("answered", [0, 1, 2])
async def test_the_end_of_a_connection_reaches_the_request_that_is_being_answered(
    caplog: pytest.LogCaptureFixture, answered: int
) -> None:
    app = Slow()
    connection = Connection(app)
    await connection.feed(GET * 3)
    for number in range(answered):
        app.may_answer[number].set()
        await connection.feed()
    connection.transport.abort()
    assert not connection.protocol.pipeline
    for event in app.may_answer:
        event.set()
    await connection.feed()

    assert caplog.records == []
    assert len(app.may_answer) == answered + 1, "what stood behind it is not asked for"
    assert connection.state.tasks == set()


async def test_a_request_that_waits_for_the_end_of_its_connection_hears_of_it() -> None:
    async def listen(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    connection = Connection(listen)
    await connection.feed(GET * 2)
    connection.transport.abort()
    await connection.feed()

    assert connection.state.tasks == set()
