"""Tabs that share a stream, in a real browser behind nginx.

Each tab shows the row that its last call has fetched: the rows are compared, not the calls counted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import (
    BrowserContext,
    CDPSession,
    Error,
    Page,
    Request,
    Route,
    async_playwright,
)

from tests.harness import plain_http
from tests.harness.browsers import BLANK_PAGE
from tests.harness.documents import Example
from tests.harness.nginx import Nginx
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher
from tests.harness.waiting import (
    LATE_S,
    SECOND,
    START_S,
    accepts,
    free_port,
    is_late,
    program,
    until,
)
from tests.integration.test_metrics import scraped_when

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

MODULE = Path(__file__).parents[2] / "client" / "index.js"
HEARTBEAT_S = SECOND
"""A leader that is silent for longer is replaced, and a slow machine makes any leader silent."""
CALM_S = 15
"""The heartbeat with which no leader is replaced, however slow the machine is."""
TABS = 6
MANY_TABS = 20
"""More than a browser has streams over HTTP/1.1: its seventh request would wait."""

SHARING = Example("client/README.md", "js", 2).code.replace("merchant_id=42", "merchant_id=${id}")

LISTEN = """async ([id, userId]) => {
    const { onRefresh } = await import('/index.js')
    Object.assign(window, { row: undefined, shownAt: 0, wasPersisted: false, wasFrozen: false })
    document.addEventListener('freeze', () => { wasFrozen = true })
    addEventListener('pageshow', event => { wasPersisted = event.persisted })
    const load = async () => {
        const answer = await fetch('/row', { cache: 'no-store' })
        if (!answer.ok) throw new Error(answer.status)
        row = await answer.text()
        shownAt = Date.now()
    }
    EXAMPLE
}""".replace("EXAMPLE", SHARING.replace("'", "`"))


class Tabs:
    """The tabs of one profile, the row that they show, and their requests for a stream."""

    def __init__(
        self, context: BrowserContext, service: Service, nginx: Nginx, merchant: str
    ) -> None:
        self.context = context
        self.service = service
        self.nginx = nginx
        self.url = nginx.url
        self.merchant = merchant
        self.pages: list[Page] = []
        self.requests: list[tuple[Request, Page]] = []
        self.ended: set[Request] = set()
        self.row = "0"

    async def begin(self) -> None:
        self.context.on("request", self._on_request)
        self.context.on("requestfailed", self._on_request_end)
        self.context.on("requestfinished", self._on_request_end)
        await self.context.route(f"{self.url}/*", self._answer)

    def _on_request(self, request: Request) -> None:
        if request.resource_type == "eventsource":
            self.requests.append((request, request.frame.page))

    def _on_request_end(self, request: Request) -> None:
        self.ended.add(request)

    async def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(self.url)
        if path == "/index.js":
            await route.fulfill(path=MODULE, content_type="text/javascript")
        elif path == "/row":
            await route.fulfill(body=self.row, content_type="text/plain")
        elif path.startswith("/blank"):
            await route.fulfill(body=BLANK_PAGE, content_type="text/html")
        else:
            await route.continue_()

    async def open(self, user: str = "ann") -> Page:
        page = await self.context.new_page()
        self.pages.append(page)
        await page.goto(f"{self.url}/blank")
        await page.evaluate(LISTEN, [self.merchant, user])
        await self.show(page)
        return page

    async def show(self, *pages: Page) -> None:
        """Wait until these tabs, or all of them, show the row."""
        for page in pages or self.pages:
            await page.wait_for_function(
                "expected => row === expected",
                arg=self.row,
                polling=100,  # a hidden tab draws no frames
                timeout=10_000 * SECOND,
            )

    async def change(self, backend: Publisher) -> None:
        """Change the row, and see that all tabs show it within three heartbeats."""
        self.row = str(int(self.row) + 1)
        changed_at = time.time()
        await backend.notify(self.merchant)
        await self.show()
        shown_at = max([await page.evaluate("shownAt") for page in self.pages]) / 1000
        assert not is_late(shown_at - changed_at, 3 * HEARTBEAT_S + LATE_S)

    @property
    def leader(self) -> Page:
        return next(page for request, page in reversed(self.requests) if request not in self.ended)

    def without_leader(self) -> Page:
        """Take the tab with the stream out of the tabs that are looked at."""
        leader = self.leader
        self.pages.remove(leader)
        return leader

    async def next_stream(self, count: int) -> None:
        await until(lambda: len(self.requests) >= count, "a stream of another tab", 10 * SECOND)


def are_one_stream(told: dict[str, float]) -> bool:
    """Return whether the service has one stream, by what it counts."""
    return told["sse_push_connections_open"] == 1


@asynccontextmanager
async def chromium(folder: Path) -> AsyncGenerator[str]:
    """Run a Chromium and return its address.

    One that playwright starts has no back/forward cache, and shows all tabs at once, so that none
    is ever frozen. Here only the tab that was opened last is shown.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def has_a_tab() -> bool:
        """Return whether there is the first tab, which playwright asks for as it connects."""
        is_up = accepts(("127.0.0.1", port))
        return is_up and '"type": "page"' in plain_http.get(f"{url}/json/list").text

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags.append("--ignore-certificate-errors")
    address = [f"--remote-debugging-port={port}", f"--user-data-dir={folder / 'profile'}"]
    with (folder / "chromium.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program("chromium"), *flags, *address, stdout=log, stderr=log
        )
    try:
        await until(has_a_tab, "chromium", START_S)
        yield url
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def sharing_tabs(
    redis: Redis,
    folder: Path,
    merchant: str,
    *,
    tls: bool = False,
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncGenerator[tuple[Tabs, Publisher]]:
    async with AsyncExitStack() as stack:
        service = Service.start(folder, redis.url, heartbeat_s=heartbeat_s)
        stack.callback(service.stop)
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(folder / "nginx", upstream, tls=tls))
        backend = Publisher(nginx.internal_url)
        stack.push_async_callback(backend.close)
        await backend.notify(merchant)
        url = await stack.enter_async_context(chromium(folder))
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.connect_over_cdp(url, no_defaults=True)
        stack.push_async_callback(browser.close)
        tabs = Tabs(browser.contexts[0], service, nginx, merchant)
        await tabs.begin()
        yield tabs, backend


async def freeze(protocol: CDPSession) -> None:
    await protocol.send("Page.setWebLifecycleState", {"state": "frozen"})


async def wake(protocol: CDPSession) -> None:
    await protocol.send("Page.setWebLifecycleState", {"state": "active"})


async def pause(protocol: CDPSession) -> None:
    """Pause the page where a debugger does: at its next statement, in the midst of an event."""
    paused = asyncio.Event()
    protocol.on("Debugger.paused", lambda _: paused.set())
    await protocol.send("Debugger.enable")
    await protocol.send("Debugger.pause")
    async with asyncio.timeout(10 * SECOND):
        await paused.wait()


async def resume(protocol: CDPSession) -> None:
    await protocol.send("Debugger.resume")
    await protocol.detach()


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2.0"])
async def test_twenty_tabs_are_one_stream(
    redis: Redis, tmp_path: Path, merchant: str, protocol: str
) -> None:
    tls = protocol == "HTTP/2.0"
    sharing = sharing_tabs(redis, tmp_path, merchant, tls=tls, heartbeat_s=CALM_S)
    async with sharing as (tabs, backend):
        for _ in range(MANY_TABS):
            await tabs.open()
        await tabs.change(backend)
        told = await scraped_when(tabs.service, are_one_stream)
        assert len(tabs.requests) == 1
        # Each tab that joins asks once for its rights, by a poll.
        assert told["sse_push_connections_opened_total"] == MANY_TABS

        await tabs.without_leader().close()
        await tabs.next_stream(2)
        await tabs.change(backend)
        told = await scraped_when(tabs.service, are_one_stream)
        assert len(tabs.requests) == 2
        assert told["sse_push_connections_opened_total"] == MANY_TABS + 1
        lines = [json.loads(line) for line in tabs.nginx.access_log.splitlines()]
        assert {line["protocol"] for line in lines if line["path"] == "/events"} == {protocol}


async def test_tabs_are_one_stream_whatever_happens_to_the_tab_that_has_it(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    async with sharing_tabs(redis, tmp_path, merchant) as (tabs, backend):
        for _ in range(TABS):
            await tabs.open()
        await tabs.change(backend)
        assert len(tabs.requests) == 1

        closed = tabs.without_leader()
        await closed.close()
        await tabs.next_stream(2)
        await tabs.change(backend)

        crashed = tabs.without_leader()
        with suppress(Error):
            await crashed.goto("chrome://crash")
        await tabs.next_stream(3)
        await tabs.change(backend)

        for stop, go_on in ((freeze, wake), (pause, resume)):
            still = tabs.without_leader()
            await tabs.pages[0].bring_to_front()  # where nobody looks, a timer waits for a second
            protocol = await tabs.context.new_cdp_session(still)
            await stop(protocol)
            await tabs.change(backend)
            assert tabs.leader is not still
            await go_on(protocol)
            await tabs.show(still)
            tabs.pages.append(still)
            await scraped_when(tabs.service, are_one_stream)
            assert await still.evaluate("wasFrozen") is (stop is freeze)

        count = len(tabs.requests)
        left = tabs.without_leader()
        await left.goto(f"{tabs.url}/blank-2")
        await tabs.next_stream(count + 1)
        await tabs.change(backend)
        with suppress(Error):  # the page that says so is gone
            await left.evaluate("history.back()")
        await left.wait_for_function("globalThis.wasPersisted", polling=100)
        await tabs.show(left)
        assert len(tabs.requests) == count + 1

        # Another user of the same browser has a stream of its own.
        bob = await tabs.open("bob")
        assert tabs.leader is bob
        await tabs.change(backend)
        assert len(tabs.requests) == count + 2
