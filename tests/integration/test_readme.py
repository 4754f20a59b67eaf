"""The examples in README and the other documents, run as they stand."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sse_push.settings import Settings
from tests.harness.documents import ROOT, Example, examples
from tests.harness.nginx import copy_shipped, replace
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.tokens import SECRET, token_of
from tests.harness.waiting import (
    SECOND,
    START_S,
    STOP_S,
    accepts,
    free_port,
    program,
    until,
    wait_for,
)

BACKENDS = "sse_push/docs/backends.md"
ACCESS = "sse_push/docs/access.md"
CLIENT = "client/README.md"

NOTIFY = [
    Example("README.md", "sh", 2),
    *(Example(BACKENDS, language) for language in ("sh", "python", "php", "js")),
]
XADD = Example(BACKENDS, "sh", 1)
KEYS, TOKENS, SIGN = Example(ACCESS, "sh"), Example(ACCESS, "sh", 1), Example(ACCESS, "python")
REVOKE = Example(ACCESS, "sh", 2)
SERVE = [Example("README.md", "sh", 3), Example("sse_push/docs/operations.md", "sh")]
NGINX = [Example("README.md", "sh", 4), Example("nginx/README.md", "sh")]
PAGES = [Example("README.md", "js"), Example(CLIENT, "js"), Example(CLIENT, "html")]
PAGE_WITH_TOKEN = Example(CLIENT, "js", 1)

RUN = {
    *(*NOTIFY, *SERVE, *NGINX, *PAGES),
    *(XADD, KEYS, TOKENS, SIGN, REVOKE, PAGE_WITH_TOKEN),
}
NOT_RUN = {
    Example("README.md", "sh", 0): "installs the package; its parts are in test_package, test_demo",
    Example("README.md", "sh", 1): "the gate, which runs this test",
    Example("tests/README.md", "sh", 0): "the gate, which runs this test",
    Example("tests/README.md", "sh", 1): "parts of the gate",
}


def test_every_example_is_run_or_has_a_reason() -> None:
    assert {*examples("sh", "python", "php", "js", "html")} == RUN | NOT_RUN.keys()


def command(example: Example, folder: Path) -> list[str]:
    if example.language == "sh":
        return [program("bash"), "-euc", example.code]
    suffix, runner = {
        "python": ("py", sys.executable),
        "php": ("php", "php"),
        "js": ("mjs", "node"),
    }[example.language]
    script = folder / f"example.{suffix}"
    script.write_text(example.code)
    return [program(runner), str(script)]


def run(words: list[str], **environ: str) -> str:
    """Run a program, with the ``sse-push`` of these tests, and return what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        env={**clean_environ(), "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SECOND,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(script: str, **environ: str) -> str:
    return run([program("bash"), "-euc", script], **environ)


# -- backends


@pytest.mark.parametrize("example", NOTIFY)
async def test_the_example_for_a_backend_reaches_a_browser(
    service: Service, tmp_path: Path, example: Example
) -> None:
    async with open_stream(service.url, "42") as stream:
        await stream.next("refresh")

        printed = run(command(example, tmp_path), SSE_PUSH=service.url, KEY=KEY)
        (entry_id,) = re.findall(r"[0-9]{13}-[0-9]+\.[0-9a-f]{8}", printed)

        await until(lambda: stream.refreshes[-1].id == entry_id, "a refresh with the ID printed")


async def test_the_example_for_redis_reaches_a_browser(redis: Redis, service: Service) -> None:
    async with open_stream(service.url, "42") as stream:
        await stream.next("refresh")

        entry_id, expires = shell(XADD.code, REDIS=redis.url).split()

        await until(
            lambda: stream.refreshes[-1].id.startswith(f"{entry_id}."), "a refresh with its ID"
        )
    assert expires == "1"


# -- access


def test_the_example_for_keys_is_read_as_two_keys() -> None:
    printed = shell(f'{KEYS.code}printf %s "$SSE_PUSH_NOTIFY_KEYS"')

    keys = Settings.load(notify_keys=printed).notify_keys

    assert isinstance(keys, tuple)
    assert [key.merchants for key in keys] == [(), ("42", "43", "shop-*")]


@contextmanager
def service_with_tokens(redis: Redis, folder: Path, secret: str) -> Generator[Service]:
    settings = {"token_keys": secret, "drain_s": 0.2}
    with Service.start(
        folder, redis.url, "--subscribe-auth", "token", settings=settings
    ) as started:
        yield started
        assert started.stop() == 0, started.log


async def test_the_tokens_of_the_examples_open_a_connection(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_command, secret = shell(f"{TOKENS.code}echo $SSE_PUSH_TOKEN_KEYS").split()
    monkeypatch.setenv("TOKEN_KEY", secret)
    example: dict[str, Any] = {}
    exec(SIGN.code, example)

    with service_with_tokens(redis, tmp_path, secret) as service:
        for token in (from_command, example["token_for"]("42")):
            async with open_stream(service.url, query=f"token={token}") as stream:
                assert json.loads((await stream.next("ready")).data)["merchant_id"] == "42"


async def test_the_example_for_revoking_ends_a_connection(redis: Redis, tmp_path: Path) -> None:
    token = token_of("42", sub="user-7", aud=..., iss=...)

    with service_with_tokens(redis, tmp_path, SECRET) as service:
        async with open_stream(service.url, query=f"token={token}") as stream:
            await stream.next("ready")
            shell(REVOKE.code, SSE_PUSH=service.url, KEY=KEY)

            assert json.loads((await stream.next("goodbye")).data) == {"reason": "revoked"}


# -- operating


@pytest.mark.parametrize("example", SERVE)
def test_the_example_for_serving_starts_a_service(
    redis: Redis, tmp_path: Path, example: Example
) -> None:
    port = free_port()
    script = example.code.replace("redis://127.0.0.1:6379/0", redis.url)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**clean_environ(), "PATH": path, "SSE_PUSH_PORT": str(port)}
    log = tmp_path / "log"
    with log.open("wb") as out:
        words = [program("bash"), "-euc", script.replace("sse-push serve", "exec sse-push serve")]
        process = subprocess.Popen(words, env=environ, stdout=out, stderr=out)

    with Service(process, log, log, port) as service:
        service.wait_ready()

        assert "secrets in flags" not in service.log
        assert service.stop() == 0


@pytest.mark.parametrize("example", NGINX)
def test_the_example_for_nginx_runs_nginx(tmp_path: Path, example: Example) -> None:
    program("nginx")
    port = free_port()
    copy_shipped(tmp_path / "nginx")
    replace(tmp_path / "nginx", "listen 8080", f"listen {port}", times=4)
    replace(tmp_path / "nginx", "127.0.0.1:8081", f"127.0.0.1:{free_port()}", times=2)
    commands = re.split(r" && |\n", re.sub(r" +#.*", "", example.code).strip())
    run_it = next(words for words in commands if "daemon off" in words)
    others = {words.rpartition(" ")[2]: words for words in commands if " -s " in words}
    environ = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    for check in (words for words in commands if " -t " in words):
        subprocess.run(check, shell=True, cwd=tmp_path, env=environ, check=True)
    process = subprocess.Popen(f"exec {run_it}", shell=True, cwd=tmp_path, env=environ)
    wait_for(lambda: accepts(("127.0.0.1", port)) or process.poll() is not None, "nginx")
    for words in (others.get("reload"), others.get("quit")):
        if words is not None:
            subprocess.run(words, shell=True, cwd=tmp_path, env=environ, check=True)
    if "quit" not in others:
        process.send_signal(signal.SIGQUIT)

    assert process.wait(STOP_S) == 0


# -- pages

BROWSER = """
// A page for an example: an EventSource that reads the service, and a backend of its own.
const realFetch = globalThis.fetch
globalThis.EventSource = class extends EventTarget {
  static CLOSED = 2
  readyState = 1
  constructor(url) {
    super()
    console.log(JSON.stringify({ opened: url }))
    this.read(new URL(url, process.env.SSE_PUSH))
  }
  async read(url) {
    const answer = await realFetch(url, { headers: { Accept: 'text/event-stream' } })
    let text = ''
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      text += piece
      for (let end; (end = text.indexOf('\\n\\n')) >= 0; text = text.slice(end + 2)) {
        const fields = text.slice(0, end).split('\\n').map(line => line.split(/: (.*)/s))
        const { event, data, id } = Object.fromEntries(fields)
        this.dispatchEvent(new MessageEvent(event, { data, lastEventId: id ?? '' }))
      }
    }
  }
  close() {}
}
globalThis.fetch = async (url, init) =>
  String(url).startsWith('/push-token')
    ? new Response(process.env.TOKEN)
    : Response.json({ asked: url, method: init?.method })
globalThis.show = value => console.log(JSON.stringify({ shown: value }))
globalThis.loadSeats = globalThis.load = () => show('loaded')
globalThis.location = { href: 'http://page.test/', assign() {} }
"""


async def lines_of_page(example: Example, service: Service, folder: Path, **environ: str) -> str:
    """Run a page's example in Node until it has shown something, and again after a notification."""
    code = "\n".join(re.findall(r"<script>(.*?)</script>", example.code, re.DOTALL)) or example.code
    if "import" not in code:
        code = f"import {{ onRefresh }} from 'sse-push-client'\n{code}"
    module = (ROOT / "client/index.js").as_uri()
    code = re.sub(r"(import .* from) '.*?'", rf"\1 '{module}'", code)
    (folder / "browser.mjs").write_text(BROWSER)
    (folder / "page.mjs").write_text(code)
    log = folder / "page.log"
    words = [program("node"), "--import", str(folder / "browser.mjs"), str(folder / "page.mjs")]
    with log.open("w") as out:
        environ = {**os.environ, "SSE_PUSH": service.url, **environ}
        page = subprocess.Popen(words, env=environ, stdout=out, stderr=out)
    backend = Publisher(service.url)
    try:
        await until(lambda: log.read_text().count("shown") == 1, "a first load", START_S)
        await backend.notify("42", topic="seats")
        await until(lambda: log.read_text().count("shown") == 2, "a load after the change")
    finally:
        await backend.close()
        page.kill()
        page.wait(STOP_S)
    return log.read_text()


@pytest.mark.parametrize("example", PAGES)
async def test_the_example_for_a_page_loads_at_first_and_after_a_change(
    service: Service, tmp_path: Path, example: Example
) -> None:
    printed = await lines_of_page(example, service, tmp_path)

    assert "merchant_id=42" in printed.splitlines()[0]
    assert ('"asked":"/seats"' in printed) == ("fetch" in example.code)


async def test_the_example_for_a_page_with_a_token_opens_with_the_token(
    service: Service, tmp_path: Path
) -> None:
    printed = await lines_of_page(PAGE_WITH_TOKEN, service, tmp_path, TOKEN="a-token")

    assert "token=a-token" in printed.splitlines()[0]
