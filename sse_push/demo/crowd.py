"""Simulated buyers: each listens as a browser does, and buys a seat now and then.

Knows the HTTP interface of the cinema and two paths of the service. Tells the page how many buyers
were refreshed, and how fast: by a notification of a topic of its own. Runs in a process of its own,
so that its CPU time and memory are not counted as the service's.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import signal
import time
from collections.abc import AsyncGenerator

import httpx2

from sse_push.demo.audience import SETTLED_MS, Audience
from sse_push.demo.cinema import SHOWS
from sse_push.http import paths
from sse_push.sse_client import GaveUp, StateChange, follow

_SALE_INTERVAL_S = 0.7
"""Mean time between two sales of the whole crowd: slow enough to watch."""

_FULL_HOUSE_S = 5.0
"""How long a house stays sold out before the crowd empties it."""


class CinemaTokens(httpx2.Auth):
    """Gets a new token from the cinema's backend for each connection, as the page does."""

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Get a token first, if the request opens an event stream."""
        if request.url.path == paths.EVENTS:
            answer = yield httpx2.Request("GET", request.url.copy_with(path="/token"))
            token = (await answer.aread()).decode()
            if token:
                request.headers["Authorization"] = f"Bearer {token}"
        yield request


def run_crowd(url: str, buyers: int) -> None:
    """Buy seats until the parent process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process after its drain
    asyncio.run(_crowd(url, buyers))


async def _crowd(url: str, buyers: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of the demo's own"
    limits = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(base_url=url, limits=limits, timeout=10, auth=CinemaTokens()) as client,
        asyncio.TaskGroup() as group,
    ):
        audiences = {merchant_id: Audience() for merchant_id in SHOWS}
        tasks = [
            group.create_task(listen(client, url, merchant_id, audiences[merchant_id]))
            for merchant_id in random.choices(list(SHOWS), k=buyers)  # noqa: S311
        ]
        tasks.append(group.create_task(report_counts(client, audiences)))
        while parent.is_alive():
            await asyncio.sleep(random.expovariate(1 / _SALE_INTERVAL_S))
            await buy(client, f"buyer-{random.randrange(buyers)}")  # noqa: S311
        for task in tasks:
            task.cancel()


async def listen(
    client: httpx2.AsyncClient, url: str, merchant_id: str, audience: Audience
) -> None:
    """Listen as one of this audience, until the service refuses."""
    is_open = False
    with contextlib.suppress(GaveUp):
        async for got in follow(  # pragma: no branch (the loop ends by an exception only)
            client, f"{url}{paths.EVENTS}?merchant_id={merchant_id}"
        ):
            if isinstance(got, StateChange):
                audience.listening += (got.state == "OPEN") - is_open
                is_open = got.state == "OPEN"
            elif got.type == "refresh":
                audience.refreshed(got.data, _now_ms())


async def report_counts(client: httpx2.AsyncClient, audiences: dict[str, Audience]) -> None:
    """Notify each house of its count after each sale; the page shows it without a fetch."""
    while True:
        await asyncio.sleep(SETTLED_MS / 1000)
        for merchant_id, audience in audiences.items():
            count = audience.take_count(_now_ms())
            if count is not None:
                everyone = sum(each.listening for each in audiences.values())
                data = {**count, "elsewhere": everyone - audience.listening}
                body = {"merchant_id": merchant_id, "topic": "crowd", "data": data}
                with contextlib.suppress(httpx2.TransportError):  # the next sale is counted again
                    await client.post(paths.NOTIFY, json=body)


async def buy(client: httpx2.AsyncClient, by: str, full_house_s: float = _FULL_HOUSE_S) -> None:
    """Buy any free seat of any house; empty a house that has been sold out for a while."""
    merchant_id = random.choice(list(SHOWS))  # noqa: S311
    try:
        house = (await client.get("/seats", params={"merchant_id": merchant_id})).json()
        free = [seat["seat"] for seat in house["seats"] if not seat["sold"]]
        body = {"merchant_id": merchant_id, "by": by}
        if free:
            await client.post(f"/seats/{random.choice(free)}/sell", json=body)  # noqa: S311
        else:
            await asyncio.sleep(full_house_s)
            await client.post("/seats/reset", json=body)
    except (httpx2.TransportError, ValueError):
        return  # the service is starting or stopping: the next sale tries again


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
