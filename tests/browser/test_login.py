"""Who is logged in changes while tabs are open: the service reads a cookie that they all have.

Each tab shows the rows that its calls have fetched, one for each merchant: the rows are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from playwright.async_api import Browser, Page

from tests.harness.browsers import BLANK_PAGE
from tests.harness.nginx import Nginx, replace
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher
from tests.harness.tokens import AUDIENCE, ISSUER, SECRET, token_of
from tests.harness.waiting import SECOND, free_port

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

MODULE = Path(__file__).parents[2] / "client" / "index.js"
COOKIE = "push"

LOG_IN = f"""(() => {{
    document.cookie = '{COOKIE}=%s; path=/'
}})()"""

LISTEN = """(async () => {
    const { onRefresh } = await import('/index.js')
    const load = async ({ merchantId }) => {
        const answer = await fetch(`/${merchantId}.txt`, { cache: 'no-store' })
        if (!answer.ok) throw new Error(answer.status)
        rows[merchantId] = await answer.text()
    }
    Object.assign(window, { rows: {}, opened: 0 })
    window.EventSource = class extends EventSource {
        constructor(...settings) {
            super(...settings)
            opened += 1
        }
    }
    window.stop = onRefresh('/events', load, { share: '%s' })
})()"""


class Tab(Protocol):
    """A tab of some browser; all tabs of a test have the same cookies."""

    async def open(self, url: str) -> None: ...

    async def evaluate(self, expression: str) -> object: ...

    async def until(self, expression: str) -> None: ...


class ChromiumTab:
    def __init__(self, page: Page) -> None:
        self._page = page

    async def open(self, url: str) -> None:
        await self._page.goto(url)

    async def evaluate(self, expression: str) -> object:
        answer: object = await self._page.evaluate(expression)
        return answer

    async def until(self, expression: str) -> None:
        await self._page.wait_for_function(expression, polling=100, timeout=20_000 * SECOND)


class Shop:
    """A site behind nginx, with the push service: its rows, its users, and its tabs."""

    def __init__(self, service: Service, folder: Path, pages: Path, *, tls: bool) -> None:
        self.service = service
        self.folder = folder
        self.pages = pages
        self.tls = tls
        self.port = free_port()
        self.nginx = self._start()
        self.backend = Publisher(service.url)

    def _start(self) -> Nginx:
        return Nginx.start(
            Path(tempfile.mkdtemp(dir=self.folder)) / "nginx",
            f"127.0.0.1:{self.service.port}",
            self._adapt,
            self.port,
            tls=self.tls,
            main_file="nginx-site.conf",
        )

    def _adapt(self, nginx: Path) -> None:
        proxied = "location / {\n            proxy_pass http://sse_push_backend;"
        types = "types { text/html html; text/javascript js; }"
        replace(nginx, proxied, f"location / {{ root {self.pages}; {types}")
        if self.tls:
            site = nginx / "nginx-site.conf"
            text = site.read_text().replace(f"listen {self.port}", f"listen {self.port} ssl http2")
            site.write_text(text.replace("http {", "http {\ninclude snippets/tls.conf;"))

    async def close(self) -> None:
        await self.backend.close()
        self.nginx.stop()

    def write(self, merchant: str, row: int) -> None:
        (self.pages / f"{merchant}.txt").write_text(str(row))

    async def change(self, merchant: str, row: int) -> None:
        self.write(merchant, row)
        await self.backend.notify(merchant)

    async def cut(self, merchant: str, row: int) -> None:
        """Cut all connections, and change a row while nobody is connected."""
        self.nginx.stop()
        await self.change(merchant, row)
        self.nginx = self._start()

    async def revoke(self, merchant: str, user: str) -> None:
        answer = await self.backend.client.post(
            "/revoke", json={"merchant_id": merchant, "sub": user}
        )
        assert answer.status_code == 200

    async def open(self, tab: Tab) -> None:
        await tab.open(f"{self.nginx.url}/blank.html")

    async def log_in(self, tab: Tab, merchant: str, user: str, share: str | None = None) -> None:
        """Have the pages of this browser be of this user, and this page listen."""
        await tab.evaluate(LOG_IN % token_of(merchant, sub=user))
        await tab.evaluate(LISTEN % (share or f"user-{user}"))


@asynccontextmanager
async def opened_shop(
    redis: Redis, folder: Path, *, tls: bool = False, heartbeat_s: float = 1
) -> AsyncGenerator[Shop]:
    rules = {"token_keys": SECRET, "token_audience": AUDIENCE, "token_issuer": ISSUER}
    settings = {"token_cookie": COOKIE, "heartbeat_s": heartbeat_s, "retry_ms": 100, **rules}
    with (
        serving(folder, redis.url, "--subscribe-auth", "token", settings=settings) as service,
        # nginx's workers run under an account of their own, and must reach the pages.
        tempfile.TemporaryDirectory(prefix="sse_push-") as pages,
    ):
        Path(pages).chmod(0o755)
        (Path(pages) / "blank.html").write_text(BLANK_PAGE)
        (Path(pages) / "index.js").write_text(MODULE.read_text())
        shop = Shop(service, folder, Path(pages), tls=tls)
        try:
            yield shop
        finally:
            await shop.close()


def shows(merchant: str, row: int) -> str:
    return f"rows['{merchant}'] === '{row}'"


async def switch_logins(
    shop: Shop, merchant: str, left: Tab, tab: Tab, share: str | None = None
) -> None:
    """Ann has a tab that she leaves open, and one in which Bob logs in."""
    of_ann, of_bob = f"{merchant}-ann", f"{merchant}-bob"
    await shop.change(of_ann, 1)
    await shop.change(of_bob, 1)
    for each in (left, tab):
        await shop.open(each)
        await shop.log_in(each, of_ann, "ann", share)
        await each.until(shows(of_ann, 1))
    assert await tab.evaluate("opened") == 0  # these tabs share

    await tab.evaluate("stop()")
    await shop.log_in(tab, of_bob, "bob", share)
    await tab.until(shows(of_bob, 1))
    await shop.change(of_bob, 2)
    await tab.until(shows(of_bob, 2))
    await shop.change(of_ann, 2)
    await left.until(shows(of_ann, 2))

    # The tab that was left open comes back with the cookie of Bob, and with an ID of Ann's merchant
    # that is newer than all of Bob's.
    assert await left.evaluate(f"rows['{of_bob}']") is None
    await shop.revoke(of_ann, "ann")
    await left.until(shows(of_bob, 2))

    await shop.cut(of_bob, 3)
    for each in (left, tab):
        await each.until(shows(of_bob, 3))
    await shop.change(of_ann, 4)
    await shop.change(of_bob, 4)
    for each in (left, tab):
        await each.until(shows(of_bob, 4))
    assert await left.evaluate("rows") == {of_ann: "2", of_bob: "4"}
    assert await tab.evaluate("rows") == {of_bob: "4"}


@pytest.mark.parametrize("share", [None, "the shop"], ids=["own-name", "common-name"])
async def test_a_user_who_logs_in_after_another_hears_of_its_own_merchants_only_and_of_all_changes(
    redis: Redis, tmp_path: Path, browser: Browser, merchant: str, share: str | None
) -> None:
    context = await browser.new_context()
    try:
        async with opened_shop(redis, tmp_path) as shop:
            left, tab = [ChromiumTab(await context.new_page()) for _ in range(2)]
            await switch_logins(shop, merchant, left, tab, share)
    finally:
        await context.close()
