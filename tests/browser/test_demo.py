"""The demo as a user sees it: two browsers side by side on one page, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Request, Route, ViewportSize, expect

from tests.harness import plain_http
from tests.harness.browsers import PageClock, open_window
from tests.harness.demo import Demo
from tests.harness.nginx import Nginx
from tests.harness.waiting import SECOND, until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

DESKTOP = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)
PANES = ("left", "right")
STEPS = ("sold", "post", "refresh", "fetch", "drawn")
APPEARED = """() => Promise.allSettled(document.getAnimations()
    .filter(({ effect }) => effect.getComputedTiming().endTime < Infinity)
    .map(({ finished }) => finished))"""
HIDE = """([isHidden]) => {
    Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
}"""
OVERFLOWING = """() => [...document.querySelectorAll('body, body *')]
    .filter(({ scrollWidth, clientWidth }) => clientWidth > 0 && scrollWidth > clientWidth)
    .filter(element => !element.matches('.film')) // it ends in dots
    .map(({ tagName, className }) => `${tagName} ${className}`)"""
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


async def test_a_sale_in_one_browser_passes_the_trace_and_appears_in_all_others(
    demo: Demo, browser: Browser
) -> None:
    async with (
        open_quiet_window(browser, viewport=DESKTOP) as page,
        open_quiet_window(browser, viewport=DESKTOP) as other,
    ):
        await asyncio.gather(enter(page, demo.url), enter(other, demo.url))

        for name in ("C7", "C8", "D6", "H12"):
            await seat(page, "left", name).click()
            await expect_seat(page, "right", name, "sold")
            await expect(page.locator("#what")).to_have_text(f"{name} sold")
            await expect(page.locator("#step-drawn")).to_have_class("done")
        times = [await page.locator(f"#step-{step} .time").inner_text() for step in STEPS]

        for pane in PANES:
            await expect_seat(other, pane, "H12", "sold")
        await expect(other.locator("#from")).to_have_text("Another browser")
        await expect(page.locator("#left [data-part=mine]")).to_have_text("4")
        await expect(page.locator("#left .news")).to_have_text("You bought H12")
        await expect(page.locator("#right .news")).to_have_text("H12 was sold elsewhere")
        await expect(page.locator("#from")).to_have_text("Browser 1")
        await expect(page.locator("#step-fetch .to")).to_have_text("Browser 2")
        await expect(page.locator("#median")).to_contain_text("median of 4")
        body = json.loads(await page.locator("#body").inner_text())
        latency = int(await page.locator("#latency").inner_text())
        sys.stdout.write(f"\nthe steps of a sale: {', '.join(times)}\n")
        await screenshot(page, "desktop")

    measured = [int(re.sub(r"\D", "", text)) for text in times]
    assert body.pop("by").startswith("left-")
    assert body == {"merchant_id": "roxy", "topic": "seats", "data": {"seat": "H12"}}
    assert measured == sorted(measured)
    assert (measured[0], measured[-1]) == (0, latency)
    assert latency < 1000 * SECOND


async def test_the_page_sells_by_itself_until_somebody_does_something(
    demo: Demo, browser: Browser
) -> None:
    async with open_window(browser, viewport=DESKTOP) as page:
        await enter(page, demo.url)
        button = page.get_by_role("button", name="Pause")

        await expect(page.locator("#step-drawn")).to_have_class("done")
        await expect(page.locator("#from")).to_have_text("Browser 1")
        (first,) = demo.sold()
        await expect_seat(page, "left", first, "mine")
        await expect_seat(page, "right", first, "sold")
        await expect(button).to_be_visible()
        demo.sell("A1" if first != "A1" else "A2")
        await expect(page.get_by_role("button", name="Play")).to_be_visible()

        await page.get_by_role("button", name="Play").click()
        await expect(button).to_be_visible()
        await seat(page, "right", first).click(force=True)  # a sold one
        await expect(page.get_by_role("button", name="Play")).to_be_visible()


async def test_the_command_on_the_page_makes_both_browsers_fetch(
    demo: Demo, browser: Browser
) -> None:
    requested: list[str] = []
    async with open_quiet_window(browser, viewport=DESKTOP) as page:
        page.on("request", lambda request: requested.append(request.url))
        await enter(page, demo.url)
        await page.get_by_role("link", name="Lumière").click()
        await expect_state(page, "open")
        await until(lambda: requested.count(f"{demo.url}/seats?merchant_id=lumiere") == 4, "loads")

        process = await asyncio.create_subprocess_shell(
            await page.locator("#curl").inner_text(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        answer, _ = await process.communicate()

        await expect(page.locator("#what")).to_have_text("A change")
        await expect(page.locator("#event")).to_contain_text(json.loads(answer)["id"])
        await expect(page.locator("#step-fetch")).to_have_class("done")
        await until(lambda: requested.count(f"{demo.url}/seats?merchant_id=lumiere") == 6, "loads")


async def test_a_page_of_both_cinemas_has_one_stream_for_all_its_windows(
    demo: Demo, browser: Browser
) -> None:
    requested: list[str] = []
    async with open_quiet_window(browser, viewport=DESKTOP) as page:
        page.context.on("request", lambda request: requested.append(request.url))
        other = await page.context.new_page()
        for each in (page, other):
            await each.goto(f"{demo.url}/?cinema=both")
            await expect_state(each, "open")
        await expect(page.locator("#role")).to_contain_text("This window")
        await expect(other.locator("#role")).to_contain_text("Another window")
        for each in (page, other):  # both cinemas have been loaded, and the stream stands
            await expect(each.locator("#calls li", has_text="connected")).to_have_count(2)
        requested.clear()

        demo.sell("C7", "lumiere")
        for each in (page, other):
            await expect_seat(each, "right", "C7", "sold")
            await expect(each.locator("#calls li").first).to_contain_text("Lumière")
        await seat(page, "left", "D6").click()
        await expect_seat(other, "left", "D6", "sold")
        await expect_seat(page, "left", "D6", "mine")
        loads = sorted(url.partition("merchant_id=")[2] for url in requested if "/seats?" in url)

        await page.close()
        await expect(other.locator("#role")).to_contain_text("This window")
        demo.sell("E1", "roxy")
        await expect_seat(other, "left", "E1", "sold")
        await screenshot(other, "both")

    assert loads == ["lumiere", "lumiere", "roxy"], "one for each window that did not sell"
    assert len([url for url in requested if "/events?" in url]) == 1, "the other window's own"


async def test_a_page_of_both_cinemas_polls_while_its_proxy_is_mute(
    demo: Demo, browser: Browser
) -> None:
    async with open_quiet_window(browser, viewport=DESKTOP) as page:
        await page.clock.install()
        clock = PageClock(page)
        await page.goto(f"{demo.url}/?cinema=both")
        await expect_state(page, "open")
        await page.get_by_role("button", name="Make the proxy mute").click()
        try:
            await expect(page.locator("#role")).to_contain_text("The proxy is mute")
            for _ in range(180):
                await clock.pass_second()
                if await page.locator(".pill[data-state=polling]").count() == len(PANES):
                    break
            await expect(page.locator("#role")).to_contain_text("One window polls")
            demo.sell("C7", "lumiere")
            for _ in range(16):
                await clock.pass_second()
            await expect_seat(page, "right", "C7", "sold")
            await screenshot(page, "mute")
        finally:
            await page.get_by_role("button", name="Let the proxy speak").click()
        await expect_state(page, "open")
        demo.sell("C8", "lumiere")
        await expect_seat(page, "right", "C8", "sold")


async def test_a_crowd_is_counted_after_each_sale(tmp_path: Path, browser: Browser) -> None:
    with Demo.start(tmp_path, "--crowd", "20") as demo:
        async with open_quiet_window(browser, viewport=DESKTOP) as page:
            await enter(page, demo.url)

            await expect(page.locator("#reached")).to_contain_text(
                re.compile(r"Median \d+ ms, the last after \d+ ms"), timeout=20_000 * SECOND
            )
            words = await page.locator("#crowd").inner_text()
            dots = await page.locator("#dots .refreshed").count()

            await expect(page.locator("#show")).to_be_hidden()
            await expect(page.locator("#right .news")).to_have_attribute("aria-live", "off")
            await screenshot(page, "crowd")

    reached, listening = map(int, re.findall(r"(\d+) of (\d+) more browsers", words)[0])
    assert 1 <= reached == dots <= listening <= 20
    (elsewhere,) = map(int, re.findall(r"(\d+) at the other cinema received nothing", words))
    assert listening + elsewhere <= 20


async def test_a_refresh_of_another_topic_fetches_no_seats(demo: Demo, browser: Browser) -> None:
    async def hold(route: Route) -> None:
        held.append(route)

    held: list[Route] = []
    async with open_quiet_window(browser) as page:
        await enter(page, demo.url)
        await page.route("**/seats?*", hold)
        demo.sell("A1")
        await until(lambda: len(held) == 2, "both fetches")
        for topic in ("crowd", "prices"):  # while the page fetches: they merge, and have no data
            body = {"merchant_id": "roxy", "topic": topic, "data": {"seat": "A1"}}
            plain_http.post(f"{demo.url}/notify", json=body).raise_for_status()
        await expect(page.locator("#body")).to_contain_text("prices")
        await asyncio.gather(*(route.continue_() for route in held))
        for pane in PANES:
            await expect_seat(page, pane, "A1", "sold")

        demo.sell("A2")
        await until(lambda: len(held) == 4, "the next fetches")


async def test_a_token_is_renewed_and_revoked(tmp_path: Path, browser: Browser) -> None:
    streams: list[str] = []
    sessions: list[str] = []

    def on_request(request: Request) -> None:
        if "/events?" in request.url:
            streams.append(request.url)
        sessions.extend(re.findall(r"/token\?.*session=([^&]+)", request.url))

    with Demo.start(tmp_path, "--tokens") as demo:
        async with open_quiet_window(browser, viewport=DESKTOP, tolerated="status of 401") as page:
            page.on("request", on_request)
            await enter(page, demo.url)
            right = page.locator("#right")
            await expect(right.locator("[data-part=expires]")).to_have_text(
                re.compile("expires in (1:00|0:5[0-9])")
            )

            await page.locator("#left").get_by_role("button", name="Renew").click()
            await until(lambda: len(streams) == 3, "a stream with another token")
            await expect_state(page, "open")
            await right.get_by_role("button", name="Revoke").click()
            await expect(right.locator(".login")).to_contain_text("Logged out.")
            await expect(right.locator(".login")).to_contain_text(re.compile(r"\d+ ms after"))
            await expect(right.locator("[data-part=expires]")).to_have_text("revoked")
            await seat(page, "left", "C7").click()
            await expect_seat(page, "left", "C7", "mine")
            await screenshot(page, "logged-out")
            assert await right.locator("[data-seat=C7]").get_attribute("data-state") == "free"

            await right.get_by_role("button", name="Log in again").click()
            await expect_seat(page, "right", "C7", "sold")
            await expect_state(page, "open")
            await expect(right.locator(".login")).to_be_hidden()

            # A session may also end elsewhere: then the backend gives it no token.
            for session in set(sessions):
                body = {"merchant_id": "lumiere", "by": session}
                plain_http.post(f"{demo.url}/logout", json=body).raise_for_status()
            await page.get_by_role("link", name="Lumière").click()
            await expect(right.locator(".login")).to_contain_text("no more tokens")
            await expect_state(page, "closed")
            await page.get_by_role("link", name="Roxy").click()
            await expect_state(page, "closed")

    assert len(streams) == 4
    assert all(re.search(r"[?&]token=eyJ", url) for url in streams)


async def test_a_seat_that_two_browsers_click_at_once_is_sold_to_one_of_them(
    demo: Demo, browser: Browser
) -> None:
    async with open_quiet_window(browser, viewport=DESKTOP, tolerated=CONFLICT) as page:
        await enter(page, demo.url)
        held: list[Route] = []

        async def hold(route: Route) -> None:
            held.append(route)

        await page.route("**/sell", hold)

        for name in ("A1", "D7", "H12"):
            for pane in PANES:
                await seat(page, pane, name).click()
            await until(lambda: len(held) == 2, "both requests")
            await asyncio.gather(*(route.continue_() for route in held))
            held.clear()

            for pane in PANES:
                await expect(seat(page, pane, name)).to_have_attribute(
                    "data-state", re.compile("^(mine|sold)$")
                )
            states = [await seat(page, pane, name).get_attribute("data-state") for pane in PANES]
            assert sorted(map(str, states)) == ["mine", "sold"]
            loser = page.locator("#left" if states[0] == "sold" else "#right")
            await expect(loser.locator(".news")).to_contain_text(
                f"Somebody was faster: seat {name}"
            )

        assert await taken(page, "left") == await taken(page, "right") == demo.sold()
        assert demo.sold() == {"A1", "D7", "H12"}


async def test_the_other_cinema_receives_nothing(demo: Demo, browser: Browser) -> None:
    requested: list[str] = []

    def on_request(request: Request) -> None:
        if "/seats?" in request.url:
            requested.append(request.url)

    async with open_quiet_window(browser) as roxy, open_quiet_window(browser) as lumiere:
        lumiere.on("request", on_request)
        await asyncio.gather(enter(roxy, demo.url), enter(lumiere, f"{demo.url}/?cinema=lumiere"))
        await until(lambda: len(requested) == 4, "the first loads, and those of the first refresh")

        for name in ("B2", "B3", "B4"):
            await seat(roxy, "left", name).click()
            await expect_seat(roxy, "right", name, "sold")
        demo.sell("F6", "lumiere")
        for pane in PANES:
            await expect_seat(lumiere, pane, "F6", "sold")

        await expect(lumiere.locator("#left [data-part=sold]")).to_have_text("1")
        await expect(roxy.locator("#left [data-part=sold]")).to_have_text("0")
        assert len(requested) == 6


async def test_a_hidden_page_leaves_its_connections_to_other_tabs(
    demo: Demo, browser: Browser
) -> None:
    async with open_quiet_window(browser) as page:
        await enter(page, demo.url)
        await seat(page, "left", "A1").click()
        await expect_seat(page, "right", "A1", "sold")

        await page.evaluate(HIDE, [True])
        await expect_state(page, "closed")
        demo.sell("B2")
        await page.evaluate(HIDE, [False])

        await expect_state(page, "open")
        await expect_seat(page, "left", "A1", "mine")
        for pane in PANES:
            await expect_seat(page, pane, "B2", "sold")


async def test_a_window_reconnects_after_a_restart_and_shows_all_sales(
    tmp_path: Path, browser: Browser
) -> None:
    async def refuse(route: Route) -> None:
        await route.abort("connectionrefused")

    demo = Demo.start(tmp_path, retry_ms=500)
    try:
        async with open_quiet_window(browser, tolerated=REFUSED) as page:
            await enter(page, demo.url)
            await seat(page, "left", "A1").click()
            await expect_seat(page, "right", "A1", "sold")

            await page.route("**/events?*", refuse)
            await asyncio.to_thread(demo.stop)
            await expect_state(page, "connecting")
            demo = await asyncio.to_thread(
                lambda: Demo.start(tmp_path, port=demo.port, retry_ms=500)
            )
            demo.sell("B2")
            await page.unroute_all()

            await expect_state(page, "open")
            for pane in PANES:
                await expect_seat(page, pane, "B2", "sold")
                assert await taken(page, pane) == demo.sold() == {"B2"}
            await seat(page, "right", "C3").click()
            await expect_seat(page, "left", "C3", "sold")
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
        async with open_quiet_window(browser, ignore_https_errors=True) as page:
            page.on("request", lambda request: requested.append(request.url))
            await page.route(re.compile(f"^{nginx.url}/(?!events)"), application)
            await enter(page, nginx.url)

            await seat(page, "left", "C7").click()
            await expect_seat(page, "right", "C7", "sold")
            nginx.reload()
            await seat(page, "right", "C8").click()
            await expect_seat(page, "left", "C8", "sold")

            await expect_state(page, "open")
        await until(lambda: nginx.access_log.count('"/events"') == 2, "two streams in the log")
        log = nginx.access_log

    streams = [url for url in requested if "/events?" in url]
    assert all(("token=eyJ" in url) == bool(flags) for url in streams)
    assert "eyJ" not in log


async def test_a_phone_shows_the_same_story_in_one_column(demo: Demo, browser: Browser) -> None:
    options: dict[str, Any] = {
        "viewport": PHONE,
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    }
    async with open_quiet_window(browser, **options) as phone:
        await enter(phone, demo.url)

        await seat(phone, "left", "D7").tap()
        await expect_seat(phone, "right", "D7", "sold")
        await expect(phone.locator("#step-drawn")).to_have_class("done")

        await expect(seat(phone, "left", "A1")).to_be_in_viewport(ratio=1)
        await expect(seat(phone, "left", "H12")).to_be_in_viewport(ratio=1)
        await expect(phone.locator("#latency")).to_be_in_viewport(ratio=1)
        boxes = [await box(phone.locator(name)) for name in ("#left", "#trace", "#right")]
        target = await box(seat(phone, "left", "A1"))
        assert {left for left, *_ in boxes} == {boxes[0][0]}
        assert [top for _, top, *_ in boxes] == sorted(top for _, top, *_ in boxes)
        assert min(target[2:]) >= 24  # https://www.w3.org/TR/WCAG22/#target-size-minimum
        assert await phone.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await screenshot(phone, "phone")
        await screenshot(phone, "phone-whole-page", is_whole=True)


async def test_no_width_of_a_window_scrolls_sideways(demo: Demo, browser: Browser) -> None:
    async with open_quiet_window(browser) as page:
        await enter(page, demo.url)

        for cinema in ("Roxy", "Both"):
            await page.get_by_role("link", name=cinema).click()
            for width in (320, 379, 380, 479, 480, 819, 820, 1080, 1200):
                await page.set_viewport_size({"width": width, "height": 900})
                assert await page.evaluate("document.documentElement.scrollWidth") == width
                assert await page.evaluate(OVERFLOWING) == []


async def test_the_keys_move_between_seats_and_buy(demo: Demo, browser: Browser) -> None:
    async with open_quiet_window(browser, viewport=DESKTOP) as page:
        await enter(page, demo.url)

        await seat(page, "left", "A1").focus()
        for key in ("ArrowDown", "End", "ArrowLeft", "Enter"):
            await page.keyboard.press(key)

        await expect_seat(page, "right", "B11", "sold")
        await expect(seat(page, "right", "B11")).to_have_accessible_name("Row B, seat 11, sold")
        await expect(seat(page, "left", "B11")).to_be_focused()


# -- tools


def open_quiet_window(browser: Browser, **options: Any) -> AbstractAsyncContextManager[Page]:
    """Open a window whose page sells nothing by itself, since its user wants no motion."""
    return open_window(browser, reduced_motion="reduce", **options)


async def enter(page: Page, url: str) -> None:
    """Open the page, and wait until both browsers are live and show the house."""
    await page.goto(url)
    await expect_state(page, "open")
    for pane in PANES:
        await expect(page.locator(f"#{pane} .map button")).to_have_count(96)


async def expect_state(page: Page, state: str, *panes: str) -> None:
    for pane in panes or PANES:
        await expect(page.locator(f"#{pane} .pill")).to_have_attribute(
            "data-state", state, timeout=10_000 * SECOND
        )


def seat(page: Page, pane: str, name: str) -> Locator:
    return page.locator(f"#{pane} [data-seat={name}]")


async def expect_seat(page: Page, pane: str, name: str, state: str) -> None:
    await expect(seat(page, pane, name)).to_have_attribute(
        "data-state", state, timeout=5000 * SECOND
    )


async def taken(page: Page, pane: str) -> set[str]:
    """Return the seats that are not free in this browser."""
    names: list[str] = await page.eval_on_selector_all(
        f"#{pane} .map button:not([data-state=free])",
        "seats => seats.map(seat => seat.dataset.seat)",
    )
    return set(names)


async def box(locator: Locator) -> tuple[float, float, float, float]:
    """Return left, top, width and height."""
    found = await locator.bounding_box()
    assert found is not None
    return found["x"], found["y"], found["width"], found["height"]


async def screenshot(page: Page, name: str, *, is_whole: bool = False) -> None:
    folder = os.environ.get("SSE_PUSH_TEST_SCREENSHOTS")
    if folder is not None:
        await page.evaluate(APPEARED)
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=is_whole)
