"""A browser behind nginx as shipped: how soon events arrive, and how an outage passes."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.harness.browsers import open_blank_page, open_window
from tests.harness.nginx import Nginx, replacing
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND, START_S, until

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

FIRST_EVENT_MS = """url => new Promise((resolve, reject) => {
    const began = performance.now()
    const source = new EventSource(url)
    source.addEventListener('ready', () => {
        source.close()
        resolve(performance.now() - began)
    })
    source.onerror = () => reject(new Error('no event arrived'))
})"""

OPEN_MANY = """({ url, count }) => {
    window.sources = []
    window.received = []
    window.times = type => received.filter(event => event.type === type).length
    window.openOne = number => {
        const source = new EventSource(url)
        sources.push(source)
        for (const type of ['ready', 'refresh', 'goodbye', 'error']) {
            source.addEventListener(type, ({ data, lastEventId }) => received.push({
                type,
                data: data && JSON.parse(data),
                lastEventId,
                number,
                readyState: source.readyState,
            }))
        }
    }
    for (let number = 0; number < count; number++) openOne(number)
}"""

CONNECTING, OPEN = 0, 1


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx") / "nginx"
    with Nginx.start(folder, f"127.0.0.1:{service.port}") as started:
        yield started


async def test_the_first_event_arrives_at_once(
    nginx: Nginx, browser: Browser, merchant: str
) -> None:
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


async def test_a_browser_reconnects_by_itself_after_an_outage(
    redis: Redis, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    """The first of five streams is enough: each waits for 5 to 29 s, as `retry` asks."""
    async with AsyncExitStack() as stack:
        # nginx's workers run under an account of their own, and must reach the socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sse_push-")))
        folder.chmod(0o755)
        uds = folder / "sse-push.sock"
        service = Service.start(tmp_path, redis.url, uds=uds, retry_ms=100)
        stack.callback(service.stop)
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", f"unix:{uds}"))
        backend = Publisher(nginx.internal_url)
        stack.push_async_callback(backend.close)
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        page = await stack.enter_async_context(open_window(browser, tolerated="INCOMPLETE_CHUNKED"))
        await open_blank_page(page, nginx.url)
        seen = await backend.notify(merchant)
        await page.evaluate(OPEN_MANY, {"url": f"/events?merchant_id={merchant}", "count": 5})
        await page.wait_for_function("times('refresh') === 5")

        service.kill()
        await page.wait_for_function("times('goodbye') === 5 && times('error') === 10")
        received = await page.evaluate("received")
        uds.unlink()
        stack.callback(Service.start(tmp_path, redis.url, uds=uds).stop)
        await until(lambda: nginx.healthz() == 200, "the service", START_S)
        newest = await backend.notify(merchant, topic="meanwhile")
        await page.wait_for_function("times('refresh') > 5", timeout=35_000 * SECOND)
        last = await page.evaluate("received.findLast(({ type }) => type === 'refresh')")

    soft_answers = [event for event in received if event["type"] == "goodbye"]
    assert [event["data"] for event in soft_answers] == [{"reason": "upstream_unavailable"}] * 5
    assert {event["lastEventId"] for event in soft_answers} == {seen}
    assert {event["readyState"] for event in received if event["type"] == "error"} == {CONNECTING}
    assert last["lastEventId"] == newest
    assert last["data"] == {"merchant_id": merchant, "topic": "meanwhile", "reason": "missed"}


async def test_many_streams_of_one_origin_are_open_at_once_over_http2(
    service: Service, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    """Two tabs of one browser, 20 streams each; over HTTP/1.1 the seventh would wait."""
    address = f"/events?merchant_id={merchant}"
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        backend = Publisher(nginx.internal_url)
        stack.push_async_callback(backend.close)
        page = await stack.enter_async_context(open_window(browser, ignore_https_errors=True))
        tab = await page.context.new_page()
        for each in (page, tab):
            await open_blank_page(each, nginx.url)
            await each.evaluate(OPEN_MANY, {"url": address, "count": 20})
        for each in (page, tab):
            await each.wait_for_function("times('ready') === 20 && times('refresh') === 20")

        newest = await backend.notify(merchant, topic="seats")
        for each in (page, tab):
            await each.wait_for_function(
                "id => received.filter(({ lastEventId }) => lastEventId === id).length === 20",
                arg=newest,
            )
        short = await page.evaluate(
            "url => fetch(url, { method: 'HEAD' }).then(({ status }) => status)", address
        )
        received = [*await page.evaluate("received"), *await tab.evaluate("received")]
        await page.close()
        await tab.close()
        await until(lambda: nginx.access_log.count('"/events"') == 41, "41 lines")

    assert short == 200
    assert "error" not in {event["type"] for event in received}
    lines = [json.loads(line) for line in nginx.access_log.splitlines()]
    protocols = {line["protocol"] for line in lines if line["path"] == "/events"}
    assert protocols == {"HTTP/2.0"}


async def test_the_seventh_stream_waits_over_http1(
    nginx: Nginx, browser: Browser, merchant: str
) -> None:
    """The limit is why nginx-tls.conf exists; this test shows that the one above can fail."""
    address = f"/events?merchant_id={merchant}"
    async with open_window(browser) as page:
        await open_blank_page(page, nginx.url)
        await page.evaluate(OPEN_MANY, {"url": address, "count": 7})
        await page.wait_for_function("times('ready') === 6")
        states = await page.evaluate("sources.map(({ readyState }) => readyState)")
        await page.evaluate("sources[0].close()")

        await page.wait_for_function("times('ready') === 7")

    assert sorted(states) == [CONNECTING] + 6 * [OPEN]


async def test_a_browser_does_not_notice_a_reload_under_tls(
    service: Service, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    address = f"/events?merchant_id={merchant}"
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(Nginx.start(tmp_path / "nginx", upstream, tls=True))
        # Not through nginx, which closes the kept connections of a backend at a reload.
        backend = Publisher(service.url)
        stack.push_async_callback(backend.close)
        page = await stack.enter_async_context(open_window(browser, ignore_https_errors=True))
        await open_blank_page(page, nginx.url)
        await page.evaluate(OPEN_MANY, {"url": address, "count": 8})
        await page.wait_for_function("times('refresh') === 8")

        for reloads in (1, 2, 3):
            nginx.reload()
            await backend.notify(merchant)
            await page.wait_for_function(f"times('refresh') >= {8 * (reloads + 1)}")
        await page.evaluate("openOne(8)")
        await page.wait_for_function("times('ready') === 9")
        newest = await backend.notify(merchant)
        await page.wait_for_function(
            f"received.filter(e => e.lastEventId === '{newest}').length === 9"
        )
        received = await page.evaluate("received")

    assert {event["type"] for event in received} == {"ready", "refresh"}


async def test_a_browser_over_the_limit_of_its_address_connects_once_there_is_room(
    service: Service, tmp_path: Path, browser: Browser, merchant: str
) -> None:
    """The browser waits as `retry` asks, and connects when another stream has ended."""
    replace = {
        "limit_conn sse_push_address 200": "limit_conn sse_push_address 1",
        "*    29000;": "*    300;",
        **{f"7.7% {ms:>5};": f"7.7% {ms // 100};" for ms in range(5000, 28_000, 2000)},
    }
    async with AsyncExitStack() as stack:
        upstream = f"127.0.0.1:{service.port}"
        nginx = stack.enter_context(
            Nginx.start(tmp_path / "nginx", upstream, tls=True, adapt=replacing(replace))
        )
        page = await stack.enter_async_context(open_window(browser, ignore_https_errors=True))
        await open_blank_page(page, nginx.url)
        await page.evaluate(OPEN_MANY, {"url": f"/events?merchant_id={merchant}", "count": 1})
        await page.wait_for_function("times('ready') === 1")

        await page.evaluate("openOne(1)")
        await page.wait_for_function("times('goodbye') >= 2")
        await page.evaluate("sources[0].close()")
        await page.wait_for_function("times('ready') === 2")
        received = await page.evaluate("received")

    goodbyes = [event["data"] for event in received if event["type"] == "goodbye"]
    assert goodbyes == len(goodbyes) * [{"reason": "too_many_connections"}]
    assert {event["readyState"] for event in received if event["type"] == "error"} == {CONNECTING}
