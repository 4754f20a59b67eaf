from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from sse_push.demo.audience import Audience
from sse_push.demo.cinema import SHOWS
from sse_push.demo.crowd import buy, listen, report_counts
from tests.harness.waiting import SECOND

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
    sale = b'event: refresh\ndata: {"data": {"seat": "A1", "sold_at_ms": 1}}\n\n'
    answers = [
        stream_of(b"retry: 0\nevent: heartbeat\ndata: {}\n\n" + sale),
        stream_of(sale),
        httpx2.Response(401),
    ]
    counted: list[int] = []
    audience = Audience()

    def respond(_request: httpx2.Request) -> httpx2.Response:
        counted.append(audience.listening)
        return answers.pop(0)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as client:
        await listen(client, URL, "roxy", audience)

    assert answers == []
    assert counted == [0, 0, 0]
    assert audience.listening == 0
    assert len(audience.delays_ms) == 2


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_house_is_notified_of_its_count_though_the_service_is_away(is_away: bool) -> None:  # noqa: FBT001
    bodies: list[dict[str, object]] = []
    audience = Audience(listening=2, seat="A1", sold_at_ms=1, delays_ms=[4, 6])

    def respond(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        reported.set()
        if is_away:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200)

    reported = asyncio.Event()
    async with httpx2.AsyncClient(base_url=URL, transport=httpx2.MockTransport(respond)) as client:
        task = asyncio.create_task(
            report_counts(client, {"lumiere": Audience(listening=7), "roxy": audience})
        )
        await asyncio.wait_for(reported.wait(), 5 * SECOND)
        await asyncio.wait({task}, timeout=0)
        is_running = not task.done()
        task.cancel()

    (body,) = bodies
    count = {"seat": "A1", "refreshed": 2, "listening": 2, "elsewhere": 7}
    count |= {"median_ms": 5, "last_ms": 6}
    assert is_running
    assert body == {"merchant_id": "roxy", "topic": "crowd", "data": count}
