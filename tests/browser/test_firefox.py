"""The browser module and a bare EventSource in Firefox, which gives up where Chromium does not.

Firefox 153 tries again after a refused connection to the page's own origin, and to no other one.

``client/test/firefox.js`` drives Debian's Firefox over WebDriver BiDi.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.browser.test_login import opened_shop, shows, switch_logins
from tests.browser.test_share import CALM_S, MANY_TABS, are_one_stream
from tests.harness.demo import Demo
from tests.harness.redis import Redis
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, free_port, program
from tests.integration.test_metrics import scraped_when

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

CLIENT = Path(__file__).parents[2] / "client"
START_S = 30 * SECOND

LISTEN = """(async url => {
    const { onRefresh } = await import('/client/index.js')
    Object.assign(window, { calls: [], states: [], bare: new EventSource(url), heard: 0 })
    bare.addEventListener('refresh', () => { heard += 1 })
    onRefresh(url, ({ topics, reason }) => { calls.push([topics?.[0], reason]) }, {
        firstCallMs: Infinity,
        onState: state => { states.push(state) },
    })
})('%s')"""

HAPPENED = """new Promise(resolve => {
    const look = () => (%s) ? resolve(true) : setTimeout(look, 20)
    look()
})"""


class Firefox:
    """Firefox with one profile."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def send(self, **command: str | None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        assert line, "firefox.js has ended"
        return json.loads(line)

    @asynccontextmanager
    async def tab(self) -> AsyncGenerator[FirefoxTab]:
        """Open a tab, which is shown until the next one is opened."""
        name = await self.send(create=None)
        yield FirefoxTab(self, name)
        await self.send(tab=name, close=None)

    async def process_of(self, url: str) -> int:
        """Return the process ID of the tab at this URL."""
        process_id: int = await self.send(process=url)
        return process_id


class FirefoxTab:
    def __init__(self, firefox: Firefox, name: str) -> None:
        self._firefox = firefox
        self._name = name

    async def open(self, url: str) -> None:
        await self._firefox.send(tab=self._name, open=url)

    async def evaluate(self, expression: str) -> object:
        answer: object = await self._firefox.send(tab=self._name, evaluate=expression)
        return answer

    async def until(self, expression: str) -> None:
        """Wait until an expression of the page is true."""
        await self.evaluate(HAPPENED % expression)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def firefox(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Firefox]:
    """Run Firefox, which takes longer to start than a test takes."""
    if not (CLIENT / "node_modules/ws").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("npm ci has not run in client")
    profile = tmp_path_factory.mktemp("profile")
    words = [program("node"), str(CLIENT / "test/firefox.js"), program("firefox-esr", "firefox")]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, str(profile), stdin=pipe, stdout=pipe)
    try:
        yield Firefox(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # firefox.js ends Firefox, and then itself
        async with asyncio.timeout(START_S):
            await process.wait()


async def test_a_page_in_firefox_survives_a_restart_at_which_an_event_source_gives_up(
    redis: Redis, tmp_path: Path, firefox: Firefox, merchant: str
) -> None:
    port = free_port()
    page_origin = f"http://localhost:{port}"

    def start() -> Demo:
        flags = ("--redis-url", redis.url)
        return Demo.start(tmp_path, *flags, port=port, retry_ms=100, allowed_origins=page_origin)

    demo = start()
    backend = Publisher(demo.url)
    try:
        async with firefox.tab() as page:
            await page.open(f"{page_origin}/client/index.js")
            await page.evaluate(LISTEN % f"{demo.url}/events?merchant_id={merchant}")
            await page.until("calls.length === 1 && heard === 1 && states.length === 2")
            await backend.notify(merchant, topic="seats")
            await page.until("calls.length === 2 && heard === 2")

            await asyncio.to_thread(demo.stop)
            await page.until("bare.readyState === EventSource.CLOSED")
            redis.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", "meanwhile")
            demo = await asyncio.to_thread(start)
            await page.until("calls.length === 3 && states.length === 4")
            calls = await page.evaluate("calls")
            states = await page.evaluate("states")
            heard = await page.evaluate("heard")
    finally:
        await backend.close()
        demo.stop()

    assert calls == [[None, "connected"], ["seats", None], ["meanwhile", "missed"]]
    assert states == ["connecting", "open"] * 2
    assert heard == 2


@pytest.mark.nginx
async def test_a_user_of_firefox_who_logs_in_after_another_hears_of_its_own_merchants_only(
    redis: Redis, tmp_path: Path, firefox: Firefox, merchant: str
) -> None:
    async with (
        opened_shop(redis, tmp_path) as shop,
        firefox.tab() as left,
        firefox.tab() as tab,
    ):
        await switch_logins(shop, merchant, left, tab)


@pytest.mark.nginx
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2.0"])
async def test_twenty_tabs_of_firefox_are_one_stream(
    redis: Redis, tmp_path: Path, firefox: Firefox, merchant: str, protocol: str
) -> None:
    opened = opened_shop(redis, tmp_path, tls=protocol == "HTTP/2.0", heartbeat_s=CALM_S)
    async with opened as shop, AsyncExitStack() as stack:
        await shop.change(merchant, 1)
        async with firefox.tab() as leader:
            tabs: list[FirefoxTab] = []
            for number in range(MANY_TABS):
                tab = await stack.enter_async_context(firefox.tab()) if number else leader
                tabs.append(tab)
                await shop.open(tab)
                await shop.log_in(tab, merchant, "ann")
                await tab.until(shows(merchant, 1))  # while it is shown: else a timer is slow
            await shop.change(merchant, 2)
            for tab in tabs:
                await tab.until(shows(merchant, 2))
            told = await scraped_when(shop.service, are_one_stream)
            # Each tab that joins asks once for its rights, by a poll.
            assert told["sse_push_connections_opened_total"] == MANY_TABS

        await shop.change(merchant, 3)
        for tab in tabs[1:]:
            await tab.until(shows(merchant, 3))
        told = await scraped_when(shop.service, are_one_stream)
        assert told["sse_push_connections_opened_total"] == MANY_TABS + 1
        lines = [json.loads(line) for line in shop.nginx.access_log.splitlines()]
        assert {line["protocol"] for line in lines if line["path"] == "/events"} == {protocol}


@pytest.mark.nginx
async def test_a_tab_of_firefox_that_stands_still_or_dies_leaves_the_stream_to_another(
    redis: Redis, tmp_path: Path, firefox: Firefox, merchant: str
) -> None:
    """WebDriver BiDi can't freeze a tab, so its process is stopped; the other tabs have others.

    No tab misses a change.
    """
    async with opened_shop(redis, tmp_path) as shop, AsyncExitStack() as stack:
        await shop.change(merchant, 1)
        tabs = [await stack.enter_async_context(firefox.tab()) for _ in range(3)]
        urls = [f"{shop.nginx.url}/blank.html?{number}" for number in range(3)]
        for tab, url in zip(tabs, urls, strict=True):
            await tab.open(url)
            await shop.log_in(tab, merchant, "ann")
            await tab.until(shows(merchant, 1))
        leader, *others = tabs
        assert [await tab.evaluate("opened") for tab in tabs] == [1, 0, 0]
        processes = [await firefox.process_of(url) for url in urls]
        assert len({*processes}) == len(tabs)

        os.kill(processes[0], signal.SIGSTOP)
        try:
            await shop.change(merchant, 2)
            for tab in others:
                await tab.until(shows(merchant, 2))
            assert [await tab.evaluate("opened") for tab in others] != [0, 0]
        finally:
            os.kill(processes[0], signal.SIGCONT)
        await leader.until(shows(merchant, 2))
        await shop.change(merchant, 3)
        for tab in tabs:
            await tab.until(shows(merchant, 3))
        await scraped_when(shop.service, are_one_stream)

        killed = 1 if await others[0].evaluate("opened") else 2  # one of the others has the stream
        os.kill(processes[killed], signal.SIGKILL)
        del tabs[killed]
        await shop.change(merchant, 4)
        for tab in tabs:
            await tab.until(shows(merchant, 4))
        await scraped_when(shop.service, are_one_stream)
