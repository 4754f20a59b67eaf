"""A site of one's own behind nginx, beside the push service: both ways of ``nginx/README.md``.

The site sets for all its locations what a site may set, and its page has an inline script.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.async_api import Browser, Page

from tests.harness.browsers import open_window
from tests.harness.documents import Example
from tests.harness.nginx import Nginx, replace
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, publishing
from tests.harness.waiting import free_port

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

ONE_ORIGIN, OWN_PORT = (Example("nginx/README.md", "nginx", number).code for number in (0, 1))

LISTENING = """<!doctype html><html lang="en"><title>A shop</title><link rel="icon" href="data:,">
<script>
    const parameters = new URLSearchParams(location.search)
    const received = []
    const source = new EventSource(parameters.get('push') + '/events?' + parameters)
    for (const type of ['ready', 'refresh', 'goodbye'])
        source.addEventListener(type, ({ data }) => received.push([type, JSON.parse(data)]))
    const has = type => received.some(event => event[0] === type)
</script>"""

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data:; connect-src *"

FOR_ALL_LOCATIONS = f"""
    add_header Content-Security-Policy "{POLICY}" always;
    client_max_body_size 8m;
    expires 1h;
    error_page 404 429 502 503 /sorry.html;
    limit_conn_status 444;
    limit_req_status 444;
    access_log site.log combined;
    error_log site-errors.log;
    gzip on;
    gzip_min_length 1;
    gzip_types *;
    location = /upload {{ return 200 "taken"; }}
    location = /away {{ proxy_pass http://127.0.0.1:1; }}
"""

OF_THE_SITE = """async () => {
    const names = ['content-security-policy', 'cache-control']
    const seen = {}
    for (const url of ['/', '/events?merchant_id=42']) {
        const { headers } = await fetch(url, { method: 'HEAD' })
        seen[url] = names.map(name => headers.get(name))
    }
    const upload = { method: 'POST', body: new Blob([new Uint8Array(2e6)]) }
    seen.upload = await (await fetch('/upload', upload)).text()
    seen.outage = await (await fetch('/away')).text()
    return seen
}"""

REFUSED = """() => fetch('/events', { headers: { Accept: 'application/json' } })
    .then(answer => answer.text())"""

MAIN = """
include snippets/process.conf;
http {
    include conf.d/sse-push.conf;
    include snippets/http.conf;
    %s
}
"""


class Site(NamedTuple):
    """A site, the port of its own that the push service has beside it, and the service."""

    url: str
    push_url: str
    nginx: Nginx
    service: Service


@pytest.fixture(scope="module")
def site(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    """An address may have two event streams, so that a third one gets the soft answer."""
    folder = tmp_path_factory.mktemp("site")
    port, push_port = free_port(), free_port()
    site_url, push_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{push_port}"

    def adapt(nginx: Path) -> None:
        with_site = ONE_ORIGIN.replace("location / {", FOR_ALL_LOCATIONS + "location / {")
        servers = with_site.replace("80;", f"{port};") + OWN_PORT.replace("8080", f"{push_port}")
        servers = servers.replace("shop.example", "127.0.0.1")
        (nginx / "own.conf").write_text(MAIN % servers)
        replace(nginx, "root site;", f"root {pages};")
        replace(nginx, '#"https://shop.example"', f'"{site_url}"')
        replace(nginx, "limit_conn sse_push_address 200", "limit_conn sse_push_address 2")
        replace(nginx, "worker_processes auto", "worker_processes 1")

    settings = {"allowed_origins": site_url, "heartbeat_s": 1}
    with (
        serving(folder, redis.url, settings=settings) as service,
        # nginx's workers run under an account of their own, and must reach the pages.
        tempfile.TemporaryDirectory(prefix="sse_push-") as pages,
    ):
        Path(pages).chmod(0o755)
        (Path(pages) / "index.html").write_text(LISTENING)
        (Path(pages) / "sorry.html").write_text("The shop is closed.")
        upstream = f"127.0.0.1:{service.port}"
        with Nginx.start(folder / "nginx", upstream, adapt, port, main_file="own.conf") as nginx:
            yield Site(site_url, push_url, nginx, service)


async def open_site(page: Page, site: Site, merchant: str, push_url: str = "") -> None:
    await page.goto(f"{site.url}/?merchant_id={merchant}&push={push_url}&token=secret")
    await page.wait_for_function("has('refresh') || has('goodbye')")


async def is_refreshed(page: Page, publisher: Publisher, merchant: str) -> None:
    await publisher.notify(merchant, topic="seats")
    await page.wait_for_function("received.some(([, { topic }]) => topic === 'seats')")


async def test_a_site_that_includes_the_event_stream_keeps_its_own_headers_limits_and_errors(
    site: Site, browser: Browser, merchant: str
) -> None:
    async with (
        publishing(site.service.url) as publisher,
        open_window(browser, tolerated="status of 50") as page,
    ):
        await open_site(page, site, merchant)
        await is_refreshed(page, publisher, merchant)
        seen = await page.evaluate(OF_THE_SITE)
        second, third = [await page.context.new_page() for _ in range(2)]
        for tab in (second, third):
            await open_site(tab, site, merchant)
        over_the_limit = await third.evaluate("received")
        refused = await page.evaluate(REFUSED)

    assert seen == {
        "/": [POLICY, "max-age=3600"],
        "/events?merchant_id=42": [
            "default-src 'none'; frame-ancestors 'none'",
            "no-store, no-transform",
        ],
        "upload": "taken",
        "outage": "The shop is closed.",
    }
    assert over_the_limit == [["goodbye", {"reason": "too_many_connections"}]]
    assert "expected fewer open connections" in refused
    logs = [(site.nginx.folder / name).read_text() for name in ("site.log", "site-errors.log")]
    assert "/upload" in logs[0]
    assert "/events" not in "".join(logs)
    assert '"path":"/events"' in site.nginx.access_log


async def test_a_site_listens_to_the_push_service_at_a_port_of_its_own(
    site: Site, browser: Browser, merchant: str
) -> None:
    async with publishing(site.service.url) as publisher, open_window(browser) as page:
        await open_site(page, site, merchant, site.push_url)
        await is_refreshed(page, publisher, merchant)
