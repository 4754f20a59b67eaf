"""The examples in README and the other documents, run as they stand."""

from __future__ import annotations

import asyncio
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
START = "sse_push/docs/start.md"
LANGUAGES = ("sh", "python", "php", "js", "html")
SWOOLE = "sse_push/docs/swoole.md"

NOTIFY = [
    Example("README.md", "sh", 1),
    *(Example(BACKENDS, language) for language in ("sh", "python", "php", "js")),
]
XADD = Example(BACKENDS, "sh", 1)
KEYS, TOKENS, SIGN = Example(ACCESS, "sh"), Example(ACCESS, "sh", 1), Example(ACCESS, "python")
REVOKE = Example(ACCESS, "sh", 2)
SERVE = [Example("README.md", "sh", 2), Example("sse_push/docs/operations.md", "sh")]
NGINX = [Example("README.md", "sh", 3), Example("nginx/README.md", "sh")]
PAGES = [
    *(Example("README.md", "js"), Example(CLIENT, "js"), Example(CLIENT, "html")),
    Example(SWOOLE, "js"),
]
PAGE_WITH_TOKEN, PAGE_OF_SEVERAL = (Example(CLIENT, "js", number) for number in (1, 3))
IN_TEST_SWOOLE = [Example(SWOOLE, "sh"), Example(SWOOLE, "php"), Example(SWOOLE, "sh", 1)]

RUN = {
    *IN_TEST_SWOOLE,
    *(*NOTIFY, *SERVE, *NGINX, *PAGES),
    *(XADD, KEYS, TOKENS, SIGN, REVOKE, PAGE_WITH_TOKEN, PAGE_OF_SEVERAL),
}
OTHERS = {"sse_push/docs/deploy.md"}
"""Documents whose examples are run by a file of tests of their own."""
NOT_RUN = {
    Example("README.md", "sh", 0): "installs the package; its parts are in test_package, test_demo",
    Example("README.md", "sh", 4): "the gate, which runs this test",
    Example("sse_push/docs/scale.md", "sh", 0): "a measure, in test_bench",
    Example("sse_push/docs/reference.md", "sh", 0): "completion, in test_completion",
    **{
        Example("sse_push/docs/troubleshooting.md", "sh", number): "test_troubleshooting"
        for number in range(5)
    },
    Example(CLIENT, "js", 2): "run by tests/browser/test_share.py",
    Example("tests/README.md", "sh", 0): "the gate, which runs this test",
    Example("tests/README.md", "sh", 1): "parts of the gate",
    **{
        example: "run by tests/browser/test_start.py"
        for example in examples(*LANGUAGES)
        if example.document == START
    },
    **{
        example: "the same code as in other documents, which test_docs compares"
        for example in examples(*LANGUAGES)
        if example.document == "sse_push/docs/zh.md"
    },
}


def test_every_example_is_run_or_has_a_reason() -> None:
    found = {each for each in examples(*LANGUAGES) if each.document not in OTHERS}

    assert found == RUN | NOT_RUN.keys()


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


def attempt(words: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program, with the ``sse-push`` of these tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        words,
        env={**clean_environ(), "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SECOND,
    )


def run(words: list[str], **environ: str) -> str:
    """Run a program that succeeds, and return what it printed."""
    done = attempt(words, **environ)
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

        printed = run(command(example, tmp_path), SSE_PUSH_URL=service.url, SSE_PUSH_NOTIFY_KEY=KEY)
        (entry_id,) = re.findall(r"[0-9]{13}-[0-9]+\.[0-9a-f]{8}", printed)

        await until(lambda: stream.refreshes[-1].id == entry_id, "a refresh with the ID printed")


REFUSED = {
    "a wrong key": ({"SSE_PUSH_NOTIFY_KEY": "k" * 32}, "401", "unauthorized"),
    "another path": ({"SSE_PUSH_URL": "/elsewhere"}, "404", "not_found"),
}


@pytest.mark.parametrize("example", NOTIFY[1:])
@pytest.mark.parametrize("what", REFUSED)
def test_the_example_for_a_backend_shows_the_reason_of_the_service(
    service: Service, tmp_path: Path, example: Example, what: str
) -> None:
    environ, status, code = REFUSED[what]
    url = service.url + environ.get("SSE_PUSH_URL", "")

    done = attempt(
        command(example, tmp_path), **{"SSE_PUSH_NOTIFY_KEY": KEY, **environ, "SSE_PUSH_URL": url}
    )

    assert done.returncode != 0
    assert status in done.stderr
    assert f'{{"error":"{code}","detail":"' in done.stdout + done.stderr


@pytest.mark.parametrize("example", [each for each in NOTIFY if each.language in ("python", "php")])
async def test_the_example_for_a_backend_tries_again_where_that_can_help(
    tmp_path: Path, example: Example
) -> None:
    """At first nothing answers but a connection that closes, then a limit, and then a 200."""
    answers = [
        b"",
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"id":"7"}',
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answers.pop(0))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        words = command(example, tmp_path)
        printed = await asyncio.to_thread(run, words, SSE_PUSH_URL=url, SSE_PUSH_NOTIFY_KEY=KEY)

    assert printed == "7\n"
    assert answers == []


async def test_the_example_for_redis_reaches_a_browser(redis: Redis, service: Service) -> None:
    async with open_stream(service.url, "42") as stream:
        await stream.next("refresh")

        entry_id, expires, heard = shell(XADD.code, SSE_PUSH_REDIS_URL=redis.url).split()

        await until(
            lambda: stream.refreshes[-1].id.startswith(f"{entry_id}."), "a refresh with its ID"
        )
    assert (expires, heard) == ("1", "0"), "nobody is subscribed where Redis announces"


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
    monkeypatch.setenv("SSE_PUSH_TOKEN_KEYS", secret)
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
            shell(REVOKE.code, SSE_PUSH_URL=service.url, SSE_PUSH_NOTIFY_KEY=KEY)

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
        process = subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=out, stderr=out)

    with Service(process, log, log, port) as service:
        service.wait_ready()

        assert "secrets in flags" not in service.log
        assert "may read the env file" not in service.log
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
    this.read(new URL(url, process.env.SSE_PUSH_URL))
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
    ? new Response(process.env.TOKEN, { status: process.env.TOKEN ? 200 : 401 })
    : Response.json({ asked: url, method: init?.method })
globalThis.show = value => console.log(JSON.stringify({ shown: value }))
globalThis.loadSeats = globalThis.load = () => show('loaded')
globalThis.loadShop = merchantId => show(merchantId)
globalThis.location = {
  href: 'http://page.test/',
  assign: url => console.log(JSON.stringify({ went: url })),
}
"""


def start_page(
    example: Example, service: Service, folder: Path, **environ: str
) -> subprocess.Popen[bytes]:
    """Run a page's example in Node; ``page.log`` in the folder has what it prints."""
    code = "\n".join(re.findall(r"<script>(.*?)</script>", example.code, re.DOTALL)) or example.code
    if "import" not in code:
        code = f"import {{ onRefresh }} from 'sse-push-client'\n{code}"
    module = (ROOT / "client/index.js").as_uri()
    code = re.sub(r"(import .* from) '.*?'", rf"\1 '{module}'", code)
    (folder / "browser.mjs").write_text(BROWSER)
    (folder / "page.mjs").write_text(code)
    words = [program("node"), "--import", str(folder / "browser.mjs"), str(folder / "page.mjs")]
    with (folder / "page.log").open("w") as out:
        environ = {**os.environ, "SSE_PUSH_URL": service.url, **environ}
        return subprocess.Popen(words, env=environ, stdout=out, stderr=out)


async def lines_of_page(
    example: Example, service: Service, folder: Path, first: int = 1, **environ: str
) -> str:
    """Run a page's example until its first loads have shown something, and after a change of 42."""
    page, log = start_page(example, service, folder, **environ), folder / "page.log"
    backend = Publisher(service.url)
    try:
        await until(lambda: log.read_text().count("shown") == first, "first loads", START_S)
        await backend.notify("42", topic="seats")
        await until(lambda: log.read_text().count("shown") == first + 1, "a load after the change")
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


async def test_the_example_for_a_page_of_several_merchants_loads_the_one_that_has_changed(
    service: Service, tmp_path: Path
) -> None:
    opened, *loaded = (await lines_of_page(PAGE_OF_SEVERAL, service, tmp_path, 2)).splitlines()

    assert "merchant_id=42&merchant_id=43" in opened
    assert sorted(loaded[:2]) == ['{"shown":"42"}', '{"shown":"43"}']
    assert loaded[2:] == ['{"shown":"42"}']


async def test_the_example_for_a_page_with_a_token_opens_with_the_token(
    service: Service, tmp_path: Path
) -> None:
    printed = await lines_of_page(PAGE_WITH_TOKEN, service, tmp_path, TOKEN="a-token")

    assert "token=a-token" in printed.splitlines()[0]


def test_the_example_for_a_page_with_a_token_undoes_everything_and_goes_to_the_login(
    service: Service, tmp_path: Path
) -> None:
    """The backend gives no token. Node ends, as no timer, request or listener is left."""
    page = start_page(PAGE_WITH_TOKEN, service, tmp_path, TOKEN="")

    try:
        assert page.wait(START_S) == 0
    finally:
        page.kill()
    assert (tmp_path / "page.log").read_text() == '{"went":"/login"}\n'
