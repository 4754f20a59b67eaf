from __future__ import annotations

import json

import httpx2
import pytest

from sse_push.demo.cinema import SHOWS
from sse_push.demo.crowd import buy, listen

URL = "http://cinema.test"


class Cinema:
    """The cinema's endpoints, with these seats in each house; remembers what is posted."""

    def __init__(self, *, seats: dict[str, bool]) -> None:
        self.seats = seats
        self.posted: list[tuple[str, dict[str, str]]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            self.posted.append((request.url.path, json.loads(request.content)))
            return httpx2.Response(200, json={})
        seats = [{"seat": seat, "sold": is_sold} for seat, is_sold in self.seats.items()]
        return httpx2.Response(200, json={"seats": seats})


def stream_of(text: bytes) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(text))


def client_of(answer: Cinema) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=URL, transport=httpx2.MockTransport(answer))


async def test_a_buyer_buys_a_free_seat() -> None:
    cinema = Cinema(seats={"A1": True, "A2": False})
    async with client_of(cinema) as client:
        await buy(client, "buyer-7")

    ((path, body),) = cinema.posted
    assert path == "/seats/A2/sell"
    assert body["by"] == "buyer-7"
    assert body["merchant_id"] in SHOWS


async def test_a_house_that_is_sold_out_is_emptied() -> None:
    cinema = Cinema(seats={"A1": True, "A2": True})
    async with client_of(cinema) as client:
        await buy(client, "buyer-7", full_house_s=0)

    assert [path for path, _ in cinema.posted] == ["/seats/reset"]


@pytest.mark.parametrize("answer", [httpx2.ConnectError("refused"), httpx2.Response(502)])
async def test_a_cinema_that_does_not_answer_is_no_error(
    answer: httpx2.Response | Exception,
) -> None:
    def respond(_request: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx2.AsyncClient(base_url=URL, transport=httpx2.MockTransport(respond)) as client:
        await buy(client, "buyer-7")


async def test_a_buyer_listens_until_the_service_refuses() -> None:
    answers = [
        stream_of(b"retry: 0\ndata: 1\n\ndata: 2\n\n"),
        stream_of(b"data: 3\n\n"),
        httpx2.Response(401),
    ]
    transport = httpx2.MockTransport(lambda _request: answers.pop(0))
    async with httpx2.AsyncClient(transport=transport) as client:
        events = await listen(client, URL, "roxy")

    assert events == 3
    assert answers == []
