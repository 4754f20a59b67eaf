"""The HTTP clients of the tests give up an answer that never ends, and say which it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import httpx2
import pytest

from tests.harness import plain_http

URL = "http://push.test/events"


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_http, "WHOLE_S", 0.01)


def endless(_request: httpx2.Request) -> httpx2.Response:
    def heartbeats() -> Generator[bytes]:
        while True:
            yield b"event: heartbeat\n\n"

    return httpx2.Response(200, content=heartbeats())


def endless_there(_request: httpx2.Request) -> httpx2.Response:
    async def heartbeats() -> AsyncGenerator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"event: heartbeat\n\n"

    return httpx2.Response(200, content=heartbeats())


@pytest.mark.usefixtures("_short")
def test_an_answer_that_becomes_a_stream_is_given_up() -> None:
    with (
        plain_http.Client(transport=httpx2.MockTransport(endless)) as client,
        pytest.raises(AssertionError, match=f"to GET {URL} in 0.01 s, got b.*event: heartbeat"),
    ):
        client.get(URL)


@pytest.mark.usefixtures("_short")
async def test_an_answer_that_becomes_a_stream_is_given_up_while_others_go_on() -> None:
    async with plain_http.AsyncClient(transport=httpx2.MockTransport(endless_there)) as client:
        with pytest.raises(AssertionError, match=f"to GET {URL} in 0.01 s"):
            await client.get(URL)


@pytest.mark.usefixtures("_short")
async def test_a_stream_that_is_asked_for_as_one_may_last() -> None:
    with (
        plain_http.Client(transport=httpx2.MockTransport(endless)) as client,
        client.stream("GET", URL) as answer,
    ):
        pieces = answer.iter_bytes()
        assert [next(pieces), next(pieces)] == [b"event: heartbeat\n\n"] * 2
    async with (
        plain_http.AsyncClient(transport=httpx2.MockTransport(endless_there)) as caller,
        caller.stream("GET", URL) as told,
    ):
        assert await anext(told.aiter_bytes()) == b"event: heartbeat\n\n"
