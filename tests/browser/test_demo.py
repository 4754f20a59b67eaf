"""The demo as a user sees it: two windows side by side, in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Request, Route, ViewportSize, expect

from tests.harness.browsers import open_window
from tests.harness.demo import Demo
from tests.harness.nginx import Nginx
from tests.harness.waiting import SECOND, until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

DESKTOP = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)
APPEARED = """() => Promise.all(document.getAnimations()
    .filter(animation => animation.animationName === 'rise').map(({ finished }) => finished))"""
REFUSED = "ERR_CONNECTION_REFUSED"
CONFLICT = "status of 409"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Demo]:
    with Demo.start(tmp_path_factory.mktemp("demo")) as started:
        yield started


@pytest.fixture
def demo(running: Demo) -> Demo:
    """Return the demo with both houses empty."""
    for merchant_id in ("roxy", "lumiere"):
        running.empty(merchant_id)
    return running


async def test_a_sale_in_one_window_appears_in_the_other(demo: Demo, browser: Browser) -> None:
    async with (
        open_window(browser, viewport=DESKTOP) as one,
        open_window(browser, viewport=DESKTOP) as other,
    ):
        await asyncio.gather(enter(one, demo.url), enter(other, demo.url))

        for count, name in enumerate(("C7", "C8", "D6", "E5", "H12"), 1):
            await seat(one, name).click()
            await expect_seat(other, name, "sold", seconds=1)
            await expect(other.locator("#sold")).to_have_text(str(count))

        await expect(one.locator("#mine")).to_have_text("5")
        await expect(one.locator("#news li").first).to_have_text("You bought H12")
        await expect(other.locator("#news li").first).to_contain_text("H12 sold in another window")
        await expect(other.locator("#median")).to_contain_text("Median of the last 5")
        latency = int(await other.locator("#latency").inner_text())
        sys.stdout.write(
            f"\nfrom the sale to the other screen: {latency} ms;"
            f" {await other.locator('#median').inner_text()}\n"
        )
        assert latency < 1000 * SECOND
        await screenshot(one, "desktop-the-window-that-sells")
        await screenshot(other, "desktop-the-other-window")


async def test_a_sale_in_one_window_appears_in_the_other_with_tokens(
    tmp_path: Path, browser: Browser
) -> None:
    requested: list[str] = []
    with Demo.start(tmp_path, "--tokens") as demo:
        async with (
            open_window(browser, viewport=DESKTOP) as one,
            open_window(browser, viewport=DESKTOP) as other,
        ):
            other.on("request", lambda request: requested.append(request.url))
            await asyncio.gather(enter(one, demo.url), enter(other, demo.url))

            await seat(one, "C7").click()
            await expect_seat(other, "C7", "sold", seconds=1)

    (stream,) = [url for url in requested if "/events?" in url]
    assert re.search(r"[?&]token=eyJ", stream)


async def test_a_seat_that_two_windows_click_at_once_is_sold_to_one_of_them(
    demo: Demo, browser: Browser
) -> None:
    async with (
        open_window(browser, viewport=DESKTOP, tolerated=CONFLICT) as one,
        open_window(browser, viewport=DESKTOP, tolerated=CONFLICT) as other,
    ):
        await asyncio.gather(enter(one, demo.url), enter(other, demo.url))
        held: list[Route] = []

        async def hold(route: Route) -> None:
            held.append(route)

        for page in (one, other):
            await page.route("**/sell", hold)

        for name in ("A1", "D7", "H12"):
            await asyncio.gather(seat(one, name).click(), seat(other, name).click())
            await until(lambda: len(held) == 2, "both requests")
            await asyncio.gather(*(route.continue_() for route in held))
            held.clear()

            for page in (one, other):
                await expect(seat(page, name)).to_have_attribute(
                    "data-state", re.compile("^(mine|sold)$")
                )
            states = [await seat(page, name).get_attribute("data-state") for page in (one, other)]
            assert sorted(map(str, states)) == ["mine", "sold"]
            loser = one if states[0] == "sold" else other
            await expect(loser.locator("#news")).to_contain_text(f"Somebody was faster: {name}")
            await screenshot(loser, f"desktop-too-late-for-{name}")

        assert await taken(one) == await taken(other) == demo.sold() == {"A1", "D7", "H12"}


async def test_the_other_cinema_receives_nothing(demo: Demo, browser: Browser) -> None:
    requested: list[str] = []

    def on_request(request: Request) -> None:
        if "/seats?" in request.url:
            requested.append(request.url)

    async with open_window(browser) as roxy, open_window(browser) as lumiere:
        lumiere.on("request", on_request)
        await asyncio.gather(enter(roxy, demo.url), enter(lumiere, f"{demo.url}/?cinema=lumiere"))
        await until(lambda: len(requested) == 2, "the first load, and that of the first refresh")

        for name in ("B2", "B3", "B4"):
            await seat(roxy, name).click()
            await expect_seat(roxy, name, "mine")
        demo.sell("F6", "lumiere")
        await expect_seat(lumiere, "F6", "sold")

        await expect(lumiere.locator("#news li")).to_have_count(1)
        await expect(lumiere.locator("#sold")).to_have_text("1")
        await expect(roxy.locator("#sold")).to_have_text("0")
        assert len(requested) == 3


async def test_both_windows_reconnect_after_a_restart_and_show_all_sales(
    tmp_path: Path, browser: Browser
) -> None:
    async def refuse(route: Route) -> None:
        await route.abort("connectionrefused")

    demo = Demo.start(tmp_path, retry_ms=500)
    try:
        async with (
            open_window(browser, tolerated=REFUSED) as one,
            open_window(browser, tolerated=REFUSED) as other,
        ):
            await asyncio.gather(enter(one, demo.url), enter(other, demo.url))
            await seat(one, "A1").click()
            await expect_seat(other, "A1", "sold")

            for page in (one, other):
                await page.route("**/events?*", refuse)
            await asyncio.to_thread(demo.stop)
            for page in (one, other):
                await expect_state(page, "connecting")
            demo = await asyncio.to_thread(
                lambda: Demo.start(tmp_path, port=demo.port, retry_ms=500)
            )
            demo.sell("B2")
            for page in (one, other):
                await page.unroute_all()

            for page in (one, other):
                await expect_state(page, "open")
                await expect_seat(page, "B2", "sold")
                assert await taken(page) == demo.sold() == {"B2"}
            await seat(other, "C3").click()
            await expect_seat(one, "C3", "sold", seconds=1)
    finally:
        demo.stop()


@pytest.mark.parametrize(
    ("tls", "flags"),
    [(False, ()), (True, ()), (True, ("--tokens",))],
    ids=["plain", "tls", "tls-and-tokens"],
)
async def test_the_page_works_through_nginx(
    browser: Browser, tmp_path: Path, *, tls: bool, flags: tuple[str, ...]
) -> None:
    async def application(route: Route) -> None:
        """Answer for the site's own application: nginx has a location for the event stream only."""
        url = route.request.url.replace(nginx.url, demo.url)
        await route.fulfill(response=await route.fetch(url=url))

    requested: list[str] = []
    with (
        Demo.start(tmp_path, *flags) as demo,
        Nginx.start(tmp_path / "nginx", f"127.0.0.1:{demo.port}", tls=tls) as nginx,
    ):
        async with (
            open_window(browser, ignore_https_errors=True) as one,
            open_window(browser, ignore_https_errors=True) as other,
        ):
            other.on("request", lambda request: requested.append(request.url))
            for page in (one, other):
                await page.route(re.compile(f"^{nginx.url}/(?!events)"), application)
            await asyncio.gather(enter(one, nginx.url), enter(other, nginx.url))

            await seat(one, "C7").click()
            await expect_seat(other, "C7", "sold", seconds=1)
            nginx.reload()
            await seat(other, "C8").click()
            await expect_seat(one, "C8", "sold", seconds=1)

            await expect_state(other, "open")
            await screenshot(other, f"through-nginx-{'-'.join(('tls',) * tls + flags)}")
        await until(lambda: nginx.access_log.count('"/events"') == 2, "two streams in the log")
        log = nginx.access_log

    streams = [url for url in requested if "/events?" in url]
    assert all(("token=eyJ" in url) == bool(flags) for url in streams)
    assert "eyJ" not in log


async def test_a_phone_shows_the_whole_house(demo: Demo, browser: Browser) -> None:
    options: dict[str, Any] = {
        "viewport": PHONE,
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    }
    async with open_window(browser, **options) as phone, open_window(browser) as other:
        await asyncio.gather(enter(phone, demo.url), enter(other, demo.url))
        await seat(other, "D6").click()
        await expect_seat(phone, "D6", "sold", seconds=1)

        await seat(phone, "D7").tap()
        await expect_seat(other, "D7", "sold", seconds=1)
        await expect(phone.locator("#mine")).to_have_text("1")

        await expect(seat(phone, "A1")).to_be_in_viewport(ratio=1)
        await expect(seat(phone, "H12")).to_be_in_viewport(ratio=1)
        assert await phone.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await screenshot(phone, "phone")
        await screenshot(phone, "phone-whole-page", is_whole=True)


# -- tools


async def enter(page: Page, url: str) -> None:
    """Open the page, and wait until the state is open and the house is shown."""
    await page.goto(url)
    await expect_state(page, "open")
    await expect(page.locator("#map button")).to_have_count(96)


async def expect_state(page: Page, state: str) -> None:
    await expect(page.locator("#state")).to_have_attribute(
        "data-state", state, timeout=10_000 * SECOND
    )


def seat(page: Page, name: str) -> Locator:
    return page.locator(f"[data-seat={name}]")


async def expect_seat(page: Page, name: str, state: str, seconds: float = 5) -> None:
    await expect(seat(page, name)).to_have_attribute(
        "data-state", state, timeout=seconds * 1000 * SECOND
    )


async def taken(page: Page) -> set[str]:
    """Return the seats that are not free in this window."""
    names: list[str] = await page.eval_on_selector_all(
        "#map button:not([data-state=free])", "seats => seats.map(seat => seat.dataset.seat)"
    )
    return set(names)


async def screenshot(page: Page, name: str, *, is_whole: bool = False) -> None:
    folder = os.environ.get("SSE_PUSH_TEST_SCREENSHOTS")
    if folder is not None:
        await page.evaluate(APPEARED)
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=is_whole)
