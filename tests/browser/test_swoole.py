"""``swoole_compat`` needs no key: a browser on the machine of the service must not notify."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Browser

from tests.harness import plain_http
from tests.harness.browsers import open_window
from tests.harness.redis import Redis
from tests.harness.service import serving
from tests.harness.waiting import until
from tests.integration.http.stored import entries

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WAYS = """url => {
    const element = (name, values) => document.body.append(
        Object.assign(document.createElement(name), values))
    element('img', { src: url + 'img' })
    element('img', { src: url + 'img-no-referrer', referrerPolicy: 'no-referrer' })
    element('script', { src: url + 'script' })
    element('link', { rel: 'stylesheet', href: url + 'style' })
    element('iframe', { src: url + 'iframe' })
    element('video', { src: url + 'video' })
    const quiet = { mode: 'no-cors', credentials: 'omit', referrerPolicy: 'no-referrer' }
    fetch(url + 'fetch', quiet).catch(() => {})
    fetch(url + 'plain', { ...quiet, headers: { 'Accept-Language': '*' } }).catch(() => {})
    fetch(url + 'cors').catch(() => {})
    new EventSource(url + 'events')
    new WebSocket(url.replace('http:', 'ws:') + 'socket')
}"""
COUNT = 11


async def test_no_page_of_a_browser_on_the_machine_notifies(
    browser: Browser, redis: Redis, tmp_path: Path, merchant: str
) -> None:
    """From another site, and as a page whose own name leads to the service."""
    with serving(
        tmp_path, redis.url, swoole_compat="on", allowed_hosts="evil.localhost"
    ) as service:
        url = f"http://127.0.0.1:{service.port}/?merchantId={merchant}&way="
        own = url.replace("127.0.0.1", "evil.localhost")

        def refused() -> float:
            text = plain_http.get(f"{service.url}/metrics").text
            (count,) = re.findall(r'\nsse_push_refusals_total\{reason="page_.*\} (\S+)', text)
            return float(count)

        async with open_window(browser, tolerated=".*") as page:
            await page.goto(
                f"http://localhost:{service.port}/healthz"
            )  # of another site than 127.0.0.1
            await page.evaluate(WAYS, url)
            await until(lambda: refused() >= COUNT, "the requests of another site")
            await page.goto(f"http://evil.localhost:{service.port}/healthz")
            await page.evaluate(WAYS, own)
            await until(lambda: refused() >= 2 * COUNT, "the requests of the same origin")
            await page.goto(own + quote("a link"))

        assert entries(redis, merchant) == 0
        assert refused() > 2 * COUNT
        assert plain_http.get(f"{service.url}/?merchantId={merchant}").text == "success"
        assert entries(redis, merchant) == 1
