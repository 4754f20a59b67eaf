"""A real browser's windows, and the demo as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from playwright.async_api import Browser, ConsoleMessage, Error, Page

from tests.harness.service import assert_no_errors, clean_environ
from tests.harness.waiting import START_S, STOP_S, free_port, wait_for

BLANK_PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">'


@dataclass
class Demo:
    """``sse-push demo``: the service with a backend, its page and the module, on one port."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @classmethod
    def start(
        cls, folder: Path, *arguments: str, port: int | None = None, **settings: object
    ) -> Demo:
        port = port or free_port()
        command = [sys.executable, "-m", "sse_push", "demo", "--port", str(port), *arguments]
        environ = clean_environ()
        environ |= {f"SSE_PUSH_{name.upper()}": str(value) for name, value in settings.items()}
        log_path = folder / f"demo-{port}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        demo = cls(port, process, log_path)
        try:
            wait_for(lambda: demo.is_ready() or process.poll() is not None, "the demo", START_S)
            assert process.poll() is None, demo.log
        except BaseException:
            demo.kill()
            raise
        return demo

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it as Ctrl-C does, and see that it went well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_S)
        finally:
            self.kill()
        assert status == 0, self.log
        assert_no_errors(self.log)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def sell(self, seat: str, merchant_id: str = "roxy") -> None:
        """Sell at the box office, where nobody has a window open."""
        body = {"merchant_id": merchant_id, "by": "the box office"}
        httpx.post(f"{self.url}/seats/{seat}/sell", json=body).raise_for_status()

    def empty(self, merchant_id: str = "roxy") -> None:
        body = {"merchant_id": merchant_id, "by": "the box office"}
        httpx.post(f"{self.url}/seats/reset", json=body).raise_for_status()

    def sold(self, merchant_id: str = "roxy") -> set[str]:
        house = httpx.get(f"{self.url}/seats", params={"merchant_id": merchant_id}).json()
        return {seat["seat"] for seat in house["seats"] if seat["sold"]}


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
    assert errors == []


async def open_blank_page(page: Page, origin: str) -> None:
    """Open a page of this origin that does nothing, as the service itself has none."""
    await page.route(
        f"{origin}/blank", lambda route: route.fulfill(body=BLANK_PAGE, content_type="text/html")
    )
    await page.goto(f"{origin}/blank")
    await page.unroute_all()
