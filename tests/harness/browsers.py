"""Windows of a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Error, Page

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
