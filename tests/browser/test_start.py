"""The start page, run as it stands: both backends behind nginx, in a real browser.

The backend in PHP is asked over plain HTTP, the one in Python over TLS and HTTP/2. Ports are the
test's own, and a browser that nginx answers comes back sooner.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.harness import plain_http
from tests.harness.browsers import open_window
from tests.harness.documents import ROOT, examples
from tests.harness.nginx import copy_shipped
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.waiting import START_S, STOP_S, accepts, free_port, program, until, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.nginx, pytest.mark.asyncio(loop_scope="session")]

START = "sse_push/docs/start.md"
HTML, PYTHON, PHP, SHELL = (
    [each.code for each in examples(language) if each.document == START]
    for language in ("html", "python", "php", "sh")
)
NAMES = ("public/index.html", "public/login.html", "app.py", "app.php")
FILES = dict(zip(NAMES, HTML + PYTHON + PHP, strict=True))
FOLDER, SERVE, SERVE_PYTHON, SERVE_PHP, NGINX, DOCTOR, TLS = SHELL


class Shop:
    """The folder that a reader makes, and what runs in it."""

    def __init__(self, folder: Path, redis: Redis, backend: str, *, tls: bool) -> None:
        self.folder = folder
        self.ports = {8000: free_port(), 9000: free_port(), 8080: free_port(), 8081: free_port()}
        activate, keys, serve = SERVE.replace("--embedded", f"--redis-url {redis.url}").split(
            "\n", 2
        )
        self.serve = f"{activate}\n{serve}"
        self.backend = backend.replace("9000", f"{self.ports[9000]}")
        self.url = f"{'https' if tls else 'http'}://localhost:{self.ports[8080]}"
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / ".venv/bin/activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH")
        (folder / "client").symlink_to(ROOT / "client")
        copy_shipped(folder / "nginx")
        self.run(FOLDER)
        for name, code in FILES.items():
            (folder / "shop" / name).write_text(code)
        if tls:
            program("openssl")
            self.run(TLS)
        self._adapt()
        self.run(f"{activate}\n{keys}")

    def _adapt(self) -> None:
        """Give nginx the ports of the test, and short waits after its soft answers."""
        for path in (self.folder / "shop/nginx").rglob("*.conf"):
            text = path.read_text().replace("listen 8443", "listen 8080")
            text = re.sub(r"\b(8000|9000|8080|8081)\b", lambda found: self.port(found[1]), text)
            path.write_text(
                re.sub(r"^( *(?:7\.7%|\*) +)\d+;", r"\g<1>300;", text, flags=re.MULTILINE)
            )

    def port(self, shipped: str) -> str:
        """Return the port that stands for one of the start page."""
        return str(self.ports[int(shipped)])

    @property
    def environ(self) -> dict[str, str]:
        service = {"SSE_PUSH_PORT": self.port("8000"), "SSE_PUSH_RETRY_MS": "100"}
        url = {"SSE_PUSH_URL": f"http://127.0.0.1:{self.ports[8000]}"}
        return {**clean_environ(), **service, **url, "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def run(self, script: str) -> None:
        words = [program("bash"), "-euc", script]
        subprocess.run(words, cwd=self.folder, env=self.environ, check=True, timeout=START_S)

    @contextmanager
    def running(self, script: str, port: int) -> Generator[None]:
        """Run commands, of which the last one serves, until it is interrupted as by Ctrl-C."""
        *before, last = script.strip().splitlines()
        words = [program("bash"), "-euc", "\n".join([*before, f"exec {last}"])]
        log = self.folder / f"{port}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.environ, stdout=out, stderr=out
            )
        try:
            address = ("127.0.0.1", self.ports[port])
            wait_for(lambda: accepts(address) or process.poll() is not None, script)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_S)

    def connections(self) -> float:
        """Return how many event streams are open."""
        text = plain_http.get(f"http://127.0.0.1:{self.ports[8000]}/metrics").text
        (number,) = re.findall(r"^sse_push_connections_open (.*)$", text, re.MULTILINE)
        return float(number)


@pytest.fixture(params=["python", "php"])
def shop(request: pytest.FixtureRequest, redis: Redis, tmp_path: Path) -> Generator[Shop]:
    """The backend and nginx run; the push service does not yet."""
    is_python = request.param == "python"
    if not is_python:
        sqlite = subprocess.run(
            [program("php"), "-r", "exit((int) !extension_loaded('pdo_sqlite'));"], check=False
        )
        if sqlite.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("PHP has no pdo_sqlite")
    shop = Shop(tmp_path, redis, SERVE_PYTHON if is_python else SERVE_PHP, tls=is_python)
    with ExitStack() as stack:
        stack.enter_context(shop.running(shop.backend, 9000))
        stack.enter_context(shop.running(NGINX, 8080))
        yield shop


async def shows(page: Page, sold: int) -> None:
    await page.wait_for_function(f"document.querySelector('#sold')?.value === '{sold}'")


async def test_the_start_page_is_current_in_each_tab_until_its_session_ends(
    shop: Shop, browser: Browser
) -> None:
    tolerated = "status of 40[14]"
    async with open_window(browser, tolerated=tolerated, ignore_https_errors=True) as page:
        await page.goto(f"{shop.url}/login.html")
        await page.fill("input", "ann")
        await page.click("button")
        await shows(page, 0)
        await page.click("#sell")
        await shows(page, 1)

        with shop.running(shop.serve, 8000):
            tab = await page.context.new_page()
            await tab.goto(shop.url)
            await shows(tab, 1)
            await until(lambda: shop.connections() == 2, "both tabs to listen", START_S)
            await tab.click("#sell")
            await shows(page, 2)

            if shop.url.startswith("http:"):  # as the command stands there
                await asyncio.to_thread(shop.run, DOCTOR.replace("8080", shop.port("8080")))
            await tab.click("text=Log out")
            await page.wait_for_url("**/login.html")
            await until(lambda: shop.connections() == 0, "no tab to listen")
            await page.goto(shop.url)
            await page.wait_for_url("**/login.html")

    log = (shop.folder / "9000.log").read_text()
    assert "/notify: " in log, "the push service was away at the first sale"
