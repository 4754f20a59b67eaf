"""The browser module as shipped, in a real browser, against a real service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, Route

from tests.harness.browsers import open_blank_page, open_window
from tests.harness.demo import Demo
from tests.harness.redis import Redis
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LISTEN = """async ([url, options]) => {
    const { onRefresh } = await import('/client/index.js')
    Object.assign(window, { calls: [], ids: [], merchants: new Set(), states: [] })
    const callback = ({ id, merchantId, ...refresh }) => {
        ids.push(id)
        merchants.add(merchantId)
        calls.push(refresh)
    }
    window.stop = onRefresh(url, callback, {
        firstCallMs: Infinity,
        ...options,
        onState: state => { states.push(state) },
    })
}"""

COUNT = """url => {
    window.refreshes = 0
    new EventSource(url).addEventListener('refresh', () => { refreshes += 1 })
}"""


def call(
    topics: list[str] | None = None, data: object = None, reason: str | None = None
) -> dict[str, object]:
    return {"topics": topics, "data": data, "reason": reason}


class Listener:
    """A page that uses the module, and records its calls, states and requests for a stream."""

    def __init__(self, page: Page, backend: Publisher) -> None:
        self.page = page
        self.backend = backend
        self.requested: list[str] = []
        self.ended: list[str] = []
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_request_end)
        page.on("requestfinished", self._on_request_end)

    def _on_request(self, request: Request) -> None:
        if "/events" in request.url and request.method == "GET":
            self.requested.append(request.url)

    def _on_request_end(self, request: Request) -> None:
        if "/events" in request.url and request.method == "GET":
            self.ended.append(request.url)

    async def calls(self, count: int) -> list[dict[str, object]]:
        """Wait until the callback has been called ``count`` times, and return the calls."""
        await self.page.wait_for_function(
            "count => calls.length >= count", arg=count, timeout=15_000 * SECOND
        )
        calls: list[dict[str, object]] = await self.page.evaluate("calls")
        return calls

    async def states(self, last: str, count: int) -> list[str]:
        """Wait until ``last`` is the state after ``count`` changes, and return all states."""
        await self.page.wait_for_function(
            "([last, count]) => states.length >= count && states.at(-1) === last",
            arg=[last, count],
            timeout=15_000 * SECOND,
        )
        states: list[str] = await self.page.evaluate("states")
        return states


@asynccontextmanager
async def listen(
    browser: Browser, url: str, merchant_id: str, tolerated: str = "(?!)", **options: object
) -> AsyncGenerator[Listener]:
    """Open a page for a merchant whose stream has an entry already."""
    backend = Publisher(url)
    try:
        await backend.notify(merchant_id)
        async with open_window(browser, tolerated=tolerated) as page:
            listener = Listener(page, backend)
            await open_blank_page(page, url)
            await page.evaluate(LISTEN, [f"/events?merchant_id={merchant_id}", options])
            yield listener
    finally:
        await backend.close()


@pytest.fixture(scope="module")
def running(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    with Demo.start(folder, "--redis-url", redis.url, heartbeat_s=1) as started:
        yield started


async def test_a_page_is_called_at_the_first_connection_and_at_each_change(
    running: Demo, browser: Browser, merchant: str
) -> None:
    async with listen(browser, running.url, merchant) as page:
        await page.calls(1)
        seats = await page.backend.notify(
            merchant, topic="seats", data={"seat": "C7", "text": "线"}
        )
        await page.calls(2)
        newest = await page.backend.notify(merchant)
        calls = await page.calls(3)
        states = await page.states("open", 2)
        ids = await page.page.evaluate("ids")
        merchants = await page.page.evaluate("[...merchants]")

    assert merchants == [merchant]
    assert calls == [
        call(reason="connected"),
        call(["seats"], {"seat": "C7", "text": "线"}),
        call(),
    ]
    assert ids[0]
    assert ids[1:] == [seats, newest]
    assert states == ["connecting", "open"]


async def test_a_page_loads_while_the_service_is_away_and_again_when_it_is_there(
    running: Demo, browser: Browser, merchant: str
) -> None:
    is_away = True

    async def answer(route: Route) -> None:
        await (route.fulfill(status=503, body="{}") if is_away else route.continue_())

    async with open_window(browser, tolerated="status of 503") as window:
        page = Listener(window, Publisher(running.url))
        await open_blank_page(window, running.url)
        await window.route("**/events?*", answer)
        options = {"firstCallMs": 10, "waitCapMs": 100}
        await window.evaluate(LISTEN, [f"/events?merchant_id={merchant}", options])
        await page.calls(1)
        is_away = False
        await page.states("open", 2)
        await page.backend.notify(merchant, topic="seats")
        calls = await page.calls(2)
        await page.backend.close()

    assert calls[0] == call(reason="unconfirmed")
    assert "connected" in {said["reason"] for said in calls[1:]}


async def test_a_page_is_not_called_for_its_own_changes(
    running: Demo, browser: Browser, merchant: str
) -> None:
    async with listen(browser, running.url, merchant, by="this tab") as page:
        await page.page.evaluate(COUNT, f"/events?merchant_id={merchant}")
        await page.calls(1)
        await page.page.wait_for_function("refreshes === 1")

        await page.backend.notify(merchant, topic="own", by="this tab")
        await page.page.wait_for_function("refreshes === 2")
        await page.backend.notify(merchant, topic="other", by="another tab")
        calls = await page.calls(2)

    assert calls == [call(reason="connected"), call(["other"])]


async def test_a_page_that_has_called_the_undo_is_not_called_and_has_no_stream(
    running: Demo, browser: Browser, merchant: str
) -> None:
    async with listen(browser, running.url, merchant) as page:
        await page.page.evaluate(COUNT, f"/events?merchant_id={merchant}&counts")
        await page.calls(1)
        await page.page.wait_for_function("refreshes === 1")

        await page.page.evaluate("stop()")
        await page.backend.notify(merchant)
        await page.page.wait_for_function("refreshes === 2")
        states = await page.states("closed", 3)
        calls = await page.calls(1)
        await until(lambda: page.ended == page.requested[:1], "the end of its stream, and no other")

    assert states == ["connecting", "open", "closed"]
    assert calls == [call(reason="connected")]
    assert len(page.requested) == 2


async def test_a_page_survives_restarts_and_is_called_for_the_changes_meanwhile(
    redis: Redis, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    def start(port: int | None = None) -> Demo:
        return Demo.start(tmp_path, "--redis-url", redis.url, port=port, retry_ms=500)

    demo = start()
    try:
        async with listen(browser, demo.url, merchant, "ERR_CONNECTION_REFUSED") as page:
            await page.calls(1)
            await page.backend.notify(merchant, topic="before")
            await page.calls(2)

            await asyncio.to_thread(demo.stop)
            redis.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", "meanwhile")
            demo = await asyncio.to_thread(start, demo.port)
            await page.calls(3)
            await page.states("open", 4)
            await asyncio.to_thread(demo.stop)
            demo = await asyncio.to_thread(start, demo.port)
            states = await page.states("open", 6)
            await page.backend.notify(merchant, topic="after")
            calls = await page.calls(4)
    finally:
        demo.stop()

    assert calls == [
        call(reason="connected"),
        call(["before"]),
        call(["meanwhile"], reason="missed"),
        call(["after"]),
    ]
    assert states == ["connecting", "open"] * 3


async def test_a_new_event_source_resumes_after_answers_that_end_an_event_source(
    redis: Redis, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    refused = 0

    async def refuse(route: Route) -> None:
        nonlocal refused
        refused += route.request.method == "GET"
        await route.fulfill(status=503, body="{}")

    def start(port: int | None = None) -> Demo:
        return Demo.start(tmp_path, "--redis-url", redis.url, port=port, retry_ms=100)

    demo = start()
    try:
        async with listen(
            browser, demo.url, merchant, "status of 503", waitBaseMs=100, waitCapMs=400
        ) as page:
            await page.calls(1)
            seen = await page.backend.notify(merchant)
            await page.calls(2)

            await page.page.route("**/events?*", refuse)
            await asyncio.to_thread(demo.stop)
            demo = await asyncio.to_thread(start, demo.port)
            await page.backend.notify(merchant, topic="meanwhile")
            await until(lambda: refused >= 4, "four answers of 503", 15 * SECOND)
            await page.page.unroute("**/events?*")
            calls = await page.calls(3)
            states = await page.states("open", 4)
    finally:
        demo.stop()

    assert calls[2:] == [call(["meanwhile"], reason="missed")]
    assert states == ["connecting", "open"] * 2
    first, by_the_browser, *anew = page.requested
    assert first == by_the_browser == f"{demo.url}/events?merchant_id={merchant}"
    assert len(anew) >= 4
    assert set(anew) == {f"{first}&last_event_id={seen}"}
