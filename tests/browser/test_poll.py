"""A page of two merchants behind an nginx that holds events back: it polls, and shows the rows.

The rows are compared, not the requests counted. The clock of the page is the test's: the module
waits for a stream for 45 s, and for the next trial of a stream for 5 min.
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, Route

from tests.harness.browsers import BLANK_PAGE, PageClock, open_window
from tests.harness.nginx import Nginx, replace
from tests.harness.processes import frozen
from tests.harness.service import Service
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, Deadline, free_port

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

CLIENT = Path(__file__).parents[2] / "client"


def hold_back(folder: Path) -> None:
    """Make nginx do what its defaults do: buffer, and ask over HTTP/1.0."""
    kept, held = "proxy_buffering off;", "proxy_ignore_headers X-Accel-Buffering;"
    replace(folder, kept, f"{held} proxy_http_version 1.0;")
    headers = folder / "snippets" / "service-headers.conf"
    headers.write_text(headers.read_text().replace("proxy_http_version 1.1;", ""))


def hold_events_back(folder: Path) -> None:
    """Let the headers through: Chromium asks again without a word if a connection ends before."""
    hold_back(folder)
    held = "proxy_ignore_headers X-Accel-Buffering;"
    replace(folder, held, f"{held} postpone_output 0;")
    replace(folder, "worker_processes auto;", "worker_processes 1;")


LISTEN = """async merchants => {
    const { onRefresh } = await import('/index.js')
    Object.assign(window, { rows: {}, states: [] })
    const load = async ({ merchantId }) => {
        const answer = await fetch(`/row/${merchantId}`, { cache: 'no-store' })
        if (!answer.ok) throw new Error(answer.status)
        rows[merchantId] = await answer.text()
    }
    const query = merchants.map(merchant => `merchant_id=${merchant}`).join('&')
    window.stop = onRefresh(`/events?${query}`, load, { onState: state => states.push(state) })
}"""


class Shop:
    """The rows of two merchants, and the page that shows them."""

    def __init__(self, page: Page, url: str, merchants: list[str], backend: Publisher) -> None:
        self.page = page
        self.url = url
        self.rows = dict.fromkeys(merchants, 0)
        self.backend = backend
        self.streams: list[str] = []
        self._clock = PageClock(page)
        page.on("request", self._on_request)

    def _on_request(self, request: Request) -> None:
        if request.resource_type == "eventsource":
            self.streams.append(request.url)

    async def open(self) -> None:
        await self.page.clock.install()
        await self.page.route(f"{self.url}/*", self._answer)
        await self.page.route(f"{self.url}/row/*", self._answer)
        await self.page.goto(f"{self.url}/blank")
        await self.page.evaluate(LISTEN, [*self.rows])

    async def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(self.url)
        if path.endswith(".js"):
            await route.fulfill(path=CLIENT / path[1:], content_type="text/javascript")
        elif path.startswith("/row/"):
            await route.fulfill(body=str(self.rows[path[5:]]), content_type="text/plain")
        elif path == "/blank":
            await route.fulfill(body=BLANK_PAGE, content_type="text/html")
        else:
            await route.continue_()

    async def change(self, merchant: str) -> None:
        self.rows[merchant] += 1
        await self.backend.notify(merchant)

    async def pass_until(self, what: str, seconds: int) -> None:
        """Let time pass for the page, at most so much, second by second, until this holds."""
        for _ in range(seconds):
            if await self.page.evaluate(what):
                return
            await self._clock.pass_second()
        await self.waits_for(what)

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            await self._clock.pass_second()

    async def waits_for(self, what: str) -> None:
        """Wait for what needs no more time of the page than an answer takes."""
        deadline = Deadline(10 * SECOND)
        while not await self.page.evaluate(what):
            assert not deadline.is_over(), (what, await self.page.evaluate("[rows, states]"))
            await self.page.clock.run_for(10)

    @property
    def is_right(self) -> str:
        rows = " && ".join(f"rows['{merchant}'] === '{row}'" for merchant, row in self.rows.items())
        return f"({rows})"


async def test_a_page_polls_while_a_proxy_holds_events_back_and_listens_when_it_does_not(
    service: Service, tmp_path: Path, browser: Browser, publisher: Publisher, merchant: str
) -> None:
    upstream, port = f"127.0.0.1:{service.port}", free_port()
    merchants = [f"{merchant}-a", f"{merchant}-b"]
    async with open_window(browser, tolerated="ERR_|status of 50") as page:
        with Nginx.start(tmp_path / "mute", upstream, hold_back, port) as nginx:
            shop = Shop(page, nginx.url, merchants, publisher)
            for each in merchants:
                await shop.change(each)
            await shop.open()
            await shop.pass_until(shop.is_right, 5)  # the first load waits for no stream
            assert await page.evaluate("states") == ["connecting"]

            await shop.change(merchants[0])
            await shop.pass_until(shop.is_right, 60)
            await shop.pass_until("states.at(-1) === 'polling'", 30)
            await shop.change(merchants[1])
            await shop.pass_until(shop.is_right, 16)  # the pace is 5 to 15 s
            await shop.change(merchants[0])
            await shop.pass_until(shop.is_right, 16)
            assert await page.evaluate("states") == ["connecting", "polling"]

        with Nginx.start(tmp_path / "open", upstream, port=port):
            await shop.pass_until("states.at(-1) === 'open'", 330)
            opened = len(shop.streams)
            await shop.change(merchants[1])
            await shop.waits_for(shop.is_right)
            assert len(shop.streams) == opened
            assert shop.streams[-1].count("last_event_id=") == len(merchants)

        # While nobody is connected, one of the two changes.
        await shop.change(merchants[0])
        with Nginx.start(tmp_path / "again", upstream, port=port):
            await shop.pass_until(shop.is_right, 60)
            await shop.pass_until("states.at(-1) === 'open'", 60)


async def test_a_page_polls_where_a_proxy_holds_events_back_and_ends_each_stream(
    service: Service, tmp_path: Path, browser: Browser, publisher: Publisher, merchant: str
) -> None:
    upstream = f"127.0.0.1:{service.port}"
    async with open_window(browser, tolerated="ERR_") as page:
        with Nginx.start(tmp_path / "mute", upstream, hold_events_back) as nginx:
            shop = Shop(page, nginx.url, [merchant], publisher)
            await shop.change(merchant)
            async with page.expect_response(f"{nginx.url}/events?*"):
                await shop.open()
            # Else the next stream might be opened, after a random wait, before the file is there.
            await page.evaluate("Math.random = () => 0.9; import('/poll.js').then(() => true)")
            await shop.pass_until(shop.is_right, 5)
            await shop.change(merchant)
            await shop.pass_seconds(25)
            ended_at = await page.evaluate("Date.now()")
            (worker,) = nginx.workers()
            async with page.expect_request(f"{nginx.url}/events?*"):
                os.kill(worker, signal.SIGKILL)  # another one serves the same socket at once

            await shop.pass_until("states.at(-1) === 'polling'", 19)
            assert await page.evaluate("Date.now()") < ended_at + 40_000, (
                "no stream has lasted 45 s"
            )
            await shop.waits_for(shop.is_right)
            await shop.change(merchant)
            await shop.pass_until(shop.is_right, 16)
            assert await page.evaluate("states") == ["connecting", "polling"]


async def test_a_page_without_the_file_that_polls_tries_streams_for_ever(
    service: Service, tmp_path: Path, browser: Browser, publisher: Publisher, merchant: str
) -> None:
    async with open_window(browser, tolerated="ERR_") as page:
        with Nginx.start(tmp_path / "mute", f"127.0.0.1:{service.port}", hold_back) as nginx:
            shop = Shop(page, nginx.url, [merchant], publisher)
            await shop.change(merchant)
            await shop.open()
            await page.route(f"{nginx.url}/poll.js", lambda route: route.abort())
            await shop.pass_until(shop.is_right, 5)
            await page.clock.run_for(150_000)

            assert len(shop.streams) >= 3
            assert await page.evaluate("states") == ["connecting"]


@pytest.mark.parametrize("has_failed", [False, True])
async def test_a_slow_tls_handshake_is_no_mute_stream(
    service: Service,
    tmp_path: Path,
    browser: Browser,
    publisher: Publisher,
    merchant: str,
    *,
    has_failed: bool,
) -> None:
    """The handshake ends while the first poll is on its way, or after that poll has failed.

    The workers of nginx stand still: the system accepts a connection, and nobody shakes hands.
    """
    polls: list[Request] = []

    def on_event(request: Request) -> None:
        if request.headers["accept"] == "application/json":
            polls.append(request)

    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        page = await stack.enter_async_context(open_window(browser, ignore_https_errors=True))
        if has_failed:
            page.on("requestfailed", on_event)
        else:
            page.on("request", on_event)
        shop = Shop(page, nginx.url, [merchant], publisher)
        await shop.change(merchant)
        with ExitStack() as held:
            for pid in nginx.workers():
                held.enter_context(frozen(pid))
            await shop.open()
            await shop.pass_until(shop.is_right, 5)
            await shop.change(merchant)
            deadline = Deadline(20 * SECOND)
            while not polls:
                assert not deadline.is_over(), await page.evaluate("states")
                await page.clock.run_for(100)
        await shop.waits_for("states.at(-1) === 'open'")
        await shop.waits_for(shop.is_right)

        assert await page.evaluate("states") == ["connecting", "open"]
