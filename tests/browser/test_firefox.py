"""The browser module and a bare EventSource in Firefox, which gives up where Chromium does not.

Firefox 153 tries again after a refused connection to the page's own origin, and to no other one.

``client/test/firefox.js`` drives Debian's Firefox over WebDriver BiDi.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.demo import Demo
from tests.harness.redis import Redis
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, free_port, program

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
    """A page of Firefox."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _send(self, **command: str) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        assert line, "firefox.js has ended"
        answer: object = json.loads(line)
        return answer

    async def open(self, url: str) -> None:
        await self._send(open=url)

    async def evaluate(self, expression: str) -> object:
        return await self._send(evaluate=expression)

    async def until(self, expression: str) -> None:
        """Wait until an expression of the page is true."""
        await self.evaluate(HAPPENED % expression)


@asynccontextmanager
async def firefox(profile: Path) -> AsyncGenerator[Firefox]:
    if not (CLIENT / "node_modules/ws").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("npm ci has not run in client")
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
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    port = free_port()
    page_origin = f"http://localhost:{port}"

    def start() -> Demo:
        flags = ("--redis-url", redis.url)
        return Demo.start(tmp_path, *flags, port=port, retry_ms=100, allowed_origins=page_origin)

    profile = tmp_path / "profile"
    profile.mkdir()
    demo = start()
    backend = Publisher(demo.url)
    try:
        async with firefox(profile) as page:
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
