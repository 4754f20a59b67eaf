"""Windows of a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request

from tests.harness.waiting import SECOND, Deadline

BLANK_PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">'


@asynccontextmanager
async def open_window(
    browser: Browser, *, tolerated: str = "(?!)", **options: Any
) -> AsyncGenerator[Page]:
    """Open a window of a profile of its own; any error on its console fails, but ``tolerated``."""
    errors: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and not re.search(tolerated, message.text):
            errors.append(message.text)

    def on_page_error(error: Error) -> None:
        errors.append(str(error))

    context = await browser.new_context(**options)
    try:
        page = await context.new_page()
        page.on("console", on_console)
        page.on("pageerror", on_page_error)
        yield page
    finally:
        await context.close()
    assert errors == [], errors


async def open_blank_page(page: Page, origin: str) -> None:
    """Open a page of this origin that does nothing, as the service itself has none."""
    await page.route(
        f"{origin}/blank", lambda route: route.fulfill(body=BLANK_PAGE, content_type="text/html")
    )
    await page.goto(f"{origin}/blank")
    await page.unroute_all()


class PageClock:
    """The clock of a page, which a test moves on.

    A second of the page takes milliseconds, and an answer of a server some more. So time stands
    still while an answer is on its way: else a poll that may take 15 s would be given up in 0.1 s.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._answers: set[Request] = set()
        """Those that are waited for; an event stream never ends."""
        page.on("request", self._on_request)
        page.on("requestfinished", self._on_end)
        page.on("requestfailed", self._on_end)

    def _on_request(self, request: Request) -> None:
        if request.resource_type in ("fetch", "script"):
            self._answers.add(request)

    def _on_end(self, request: Request) -> None:
        self._answers.discard(request)

    async def pass_second(self) -> None:
        """Let a second of the page pass, and the time that answers take, if they come at all."""
        await self._page.clock.run_for(1000)
        deadline = Deadline(SECOND)
        await self._page.evaluate("null")  # a round trip
        while self._answers and not deadline.is_over():
            await self._page.evaluate("null")
