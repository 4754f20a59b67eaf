"""A browser behind nginx as shipped: how soon it hears, and that an outage does not end it."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.browser.support import open_blank_page, open_window
from tests.nginx_support import Nginx
from tests.support import SECOND, START_S, Publisher, Redis, Service, until

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

FIRST_EVENT_MS = """url => new Promise((resolve, reject) => {
    const began = performance.now()
    const source = new EventSource(url)
    source.addEventListener('ready', () => {
        source.close()
        resolve(performance.now() - began)
    })
    source.onerror = () => reject(new Error('no event came'))
})"""

OPEN_FIVE = """url => {
    window.heard = []
    window.times = type => heard.filter(event => event.type === type).length
    for (let number = 0; number < 5; number++) {
        const source = new EventSource(url)
        for (const type of ['refresh', 'goodbye', 'error']) {
            source.addEventListener(type, ({ data, lastEventId }) => heard.push({
                type,
                said: data && JSON.parse(data),
                lastEventId,
                readyState: source.readyState,
            }))
        }
    }
}"""

CONNECTING = 0


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx") / "nginx"
    with Nginx.start(folder, f"127.0.0.1:{service.port}") as started:
        yield started


async def test_the_first_event_comes_at_once(nginx: Nginx, browser: Browser, merchant: str) -> None:
    async with open_window(browser) as page:
        await open_blank_page(page, nginx.url)

        measured_ms = [
            await page.evaluate(FIRST_EVENT_MS, f"/events?merchant_id={merchant}-{number}")
            for number in range(20)
        ]

    sys.stdout.write(
        f"\nfirst event in Chromium through nginx: median {statistics.median(measured_ms):.1f} ms,"
        f" worst of {len(measured_ms)} {max(measured_ms):.1f} ms\n"
    )
    assert statistics.median(measured_ms) < 100 * SECOND


async def test_a_browser_comes_back_by_itself_after_an_outage(
    redis: Redis, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    """The first of five streams will do: each one waits for 5 to 29 s, as it was told."""
    async with AsyncExitStack() as stack:
        # nginx's workers run under an account of their own, and must get at the socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sse_push-")))
        folder.chmod(0o755)
        uds = folder / "sse-push.sock"
        service = Service.start(tmp_path, redis.url, uds=uds, retry_ms=100)
        stack.callback(service.stop)
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", f"unix:{uds}"))
        backend = Publisher(nginx.url)
        stack.push_async_callback(backend.close)
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        page = await stack.enter_async_context(open_window(browser, tolerated="INCOMPLETE_CHUNKED"))
        await open_blank_page(page, nginx.url)
        seen = await backend.notify(merchant)
        await page.evaluate(OPEN_FIVE, f"/events?merchant_id={merchant}")
        await page.wait_for_function("times('refresh') === 5")

        service.process.kill()
        service.process.wait()
        await page.wait_for_function("times('goodbye') === 5 && times('error') === 10")
        heard = await page.evaluate("heard")
        uds.unlink()
        stack.callback(Service.start(tmp_path, redis.url, uds=uds).stop)
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        newest = await backend.notify(merchant, topic="meanwhile")
        await page.wait_for_function("times('refresh') > 5", timeout=35_000 * SECOND)
        last = await page.evaluate("heard.at(-1)")

    soft_answers = [event for event in heard if event["type"] == "goodbye"]
    assert [event["said"] for event in soft_answers] == [{"reason": "upstream_unavailable"}] * 5
    assert {event["lastEventId"] for event in soft_answers} == {seen}
    assert {event["readyState"] for event in heard if event["type"] == "error"} == {CONNECTING}
    assert last["lastEventId"] == newest
    assert last["said"] == {"merchant_id": merchant, "topic": "meanwhile", "reason": "missed"}
