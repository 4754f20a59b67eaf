"""The browser module with tokens that expire or are refused, and a page that is left.

The service here is a fake: its tokens are plain names, which the test refuses or lets expire. Its
responses, and the requests of the module, are the same as with sse-push.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from playwright.async_api import Browser, Error, Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.harness.browsers import open_blank_page, open_window
from tests.harness.waiting import SECOND, program, until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

CLIENT = Path(__file__).parents[2] / "client"
WAIT_BASE_MS = 20
REFUSED = "status of 40[13]"

LISTEN = """async ([waitBaseMs, hasTokens]) => {
    const { onRefresh } = await import('/client/index.js')
    const errors = []
    addEventListener('error', event => {
        event.preventDefault()
        errors.push(event.message)
    })
    window.listen = () => {
        Object.assign(window, { calls: [], states: [], errors, openedAt: Infinity })
        onRefresh('/events?merchant_id=42', ({ topics, reason }) => calls.push([topics, reason]), {
            token: hasTokens ? async () => (await fetch('/token')).text() : undefined,
            firstCallMs: Infinity,
            onState: state => {
                states.push(state)
                openedAt = Date.now()
            },
            waitBaseMs,
            waitCapMs: waitBaseMs,
        })
    }
    listen()
}"""


class StreamRequest(NamedTuple):
    """A request for the event stream, and the status of its response."""

    method: str
    token: str | None
    last_event_id: str | None
    status: int


class FakeService:
    """The events of one merchant, for requests with a valid token: t1, t2 and so on."""

    def __init__(self) -> None:
        self.requests: list[StreamRequest] = []
        self.tokens_given = 0
        self.refusals: dict[str, int] = {}
        self.status_of_new_tokens = 200
        self.may_give_tokens = asyncio.Event()
        self.may_give_tokens.set()
        self.before_next_stream: Callable[[], object] = bool
        self._newest = 1
        self._topic = ""
        self._streams: set[asyncio.Queue[str | None]] = set()
        self.app = Starlette(
            routes=[
                Route("/events", self._events),
                Route("/token", self._token),
                Mount("/client", StaticFiles(directory=CLIENT)),
            ]
        )

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def notify(self, topic: str) -> None:
        self._newest += 1
        self._topic = topic
        self._send(f"id: {self._newest}-0\n{_event('refresh', topic=topic)}")

    def announce_expiry(self) -> None:
        self._send(_event("expiring", expires_in_s=30))

    def expire(self, token: str) -> None:
        """End the streams as sse-push does at the token's ``exp``."""
        self.refusals[token] = 401
        self._send(f"retry: 20\n{_event('goodbye', reason='token_expired')}")
        self.cut()

    def cut(self) -> None:
        """End the streams without a ``goodbye``."""
        self._send(None)
        self._streams.clear()

    def _send(self, text: str | None) -> None:
        for stream in self._streams:
            stream.put_nowait(text)

    async def _token(self, _: Request) -> Response:
        await self.may_give_tokens.wait()
        self.tokens_given += 1
        token = f"t{self.tokens_given}"
        self.refusals.setdefault(token, self.status_of_new_tokens)
        return PlainTextResponse(token)

    async def _events(self, request: Request) -> Response:
        token = request.query_params.get("token")
        last_event_id = request.query_params.get("last_event_id")
        last_event_id = request.headers.get("last-event-id", last_event_id)
        status = self.refusals.get(token or "", 401)
        self.requests.append(StreamRequest(request.method, token, last_event_id, status))
        if status != 200:
            return Response(status_code=status)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        self.before_next_stream()
        self.before_next_stream = bool
        return StreamingResponse(self._stream(last_event_id), media_type="text/event-stream")

    async def _stream(self, last_event_id: str | None) -> AsyncGenerator[str]:
        newest = f"id: {self._newest}-0\n"
        ready = _event("ready", merchant_id="42", heartbeat_s=15)
        if f"{self._newest}-0" == last_event_id:
            first = newest + ready
        elif last_event_id is None:
            first = ready + newest + _event("refresh", reason="connected")
        else:
            first = ready + newest + _event("refresh", reason="missed", topic=self._topic)
        stream: asyncio.Queue[str | None] = asyncio.Queue()
        self._streams.add(stream)
        try:
            yield f"retry: 20\n{first}"
            while (text := await stream.get()) is not None:
                yield text
        finally:
            self._streams.discard(stream)


def _event(kind: str, **said: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(said)}\n\n"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to pytest, in whose loop this server runs."""
        yield


@asynccontextmanager
async def serve(service: FakeService) -> AsyncGenerator[str]:
    """Serve on a free port in this loop, and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = _Server(uvicorn.Config(service.app, lifespan="off", log_level="warning"))
        task = asyncio.create_task(server.serve(sockets=[sock]), name="service")
        try:
            await until(lambda: server.started, "the service")
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            service.cut()
            server.should_exit = True
            await asyncio.wait_for(task, 15 * SECOND)


@asynccontextmanager
async def listening_page(
    browser: Browser, service: FakeService, tolerated: str = "(?!)", *, has_tokens: bool = True
) -> AsyncGenerator[Page]:
    async with serve(service) as url, open_window(browser, tolerated=tolerated) as page:
        page.set_default_timeout(15_000 * SECOND)
        await open_blank_page(page, url)
        await page.evaluate(LISTEN, [WAIT_BASE_MS, has_tokens])
        yield page


async def calls_of(page: Page, count: int) -> list[object]:
    """Wait for ``count`` calls, and return the topics and the reason of each."""
    await page.wait_for_function("count => calls.length >= count", arg=count)
    calls: list[object] = await page.evaluate("calls")
    return calls


async def states_of(page: Page, last: str, count: int) -> list[str]:
    await page.wait_for_function(
        "([last, count]) => states.length >= count && states.at(-1) === last", arg=[last, count]
    )
    states: list[str] = await page.evaluate("states")
    return states


async def has_lasted(page: Page) -> None:
    """Wait until the end of the stream does not count as a failure any more."""
    await page.wait_for_function(
        "ms => states.at(-1) === 'open' && Date.now() - openedAt > ms", arg=5 * WAIT_BASE_MS
    )


async def test_an_expiring_token_is_replaced_and_no_refresh_is_lost_or_doubled(
    browser: Browser,
) -> None:
    service = FakeService()
    async with listening_page(browser, service) as page:
        await calls_of(page, 1)
        await has_lasted(page)

        service.may_give_tokens.clear()
        service.announce_expiry()
        service.notify("on the old stream")
        await calls_of(page, 2)
        service.before_next_stream = lambda: service.notify("between the streams")
        service.may_give_tokens.set()
        await calls_of(page, 3)
        states = await states_of(page, "open", 4)
        await until(lambda: service.open_streams == 1, "the end of the old stream")
        service.notify("on the new stream")
        calls = await calls_of(page, 4)
        errors = await page.evaluate("errors")

    assert calls == [
        [None, "connected"],
        [["on the old stream"], None],
        [["between the streams"], "missed"],
        [["on the new stream"], None],
    ]
    assert service.requests == [
        StreamRequest("GET", "t1", None, 200),
        StreamRequest("GET", "t2", "2-0", 200),
    ]
    assert states == ["connecting", "open"] * 2
    assert errors == []


async def test_an_expired_token_is_replaced_and_not_sent_again(browser: Browser) -> None:
    service = FakeService()
    async with listening_page(browser, service) as page:
        await calls_of(page, 1)
        await has_lasted(page)

        service.expire("t1")
        await states_of(page, "open", 4)
        await has_lasted(page)
        service.expire("t2")
        states = await states_of(page, "open", 6)
        service.notify("after it")
        calls = await calls_of(page, 2)

    assert calls == [[None, "connected"], [["after it"], None]]
    assert service.requests == [
        StreamRequest("GET", "t1", None, 200),
        StreamRequest("GET", "t2", "1-0", 200),
        StreamRequest("GET", "t3", "1-0", 200),
    ]
    assert states == ["connecting", "open"] * 3


async def test_a_token_that_expires_while_the_browser_is_away_is_replaced(browser: Browser) -> None:
    service = FakeService()
    async with listening_page(browser, service, REFUSED) as page:
        await calls_of(page, 1)

        service.refusals["t1"] = 401
        service.cut()
        service.notify("meanwhile")
        await calls_of(page, 2)
        states = await states_of(page, "open", 4)
        service.notify("after it")
        calls = await calls_of(page, 3)
        errors = await page.evaluate("errors")

    assert calls == [
        [None, "connected"],
        [["meanwhile"], "missed"],
        [["after it"], None],
    ]
    by_the_browser, by_head = (
        StreamRequest("GET", "t1", "1-0", 401),
        StreamRequest("HEAD", "t1", "1-0", 401),
    )
    assert service.requests == [
        StreamRequest("GET", "t1", None, 200),
        by_the_browser,
        by_head,
        StreamRequest("GET", "t2", "1-0", 200),
    ]
    assert states == ["connecting", "open"] * 2
    assert errors == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_replaced_once_and_the_second_refusal_is_final(
    browser: Browser, status: int
) -> None:
    service = FakeService()
    service.status_of_new_tokens = status
    async with listening_page(browser, service, REFUSED) as page:
        states = await states_of(page, "refused", 2)
        await page.evaluate("""async () => {
            for (const type of ['online', 'pageshow']) dispatchEvent(new Event(type))
            document.dispatchEvent(new Event('visibilitychange'))
            dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))
        }""")
        # The longest wait is over, and each request sent meanwhile has its response.
        await page.wait_for_function("ms => Date.now() - openedAt > ms", arg=5 * WAIT_BASE_MS)
        await page.evaluate(
            "async () => { for (const _ of '123') await fetch('/client/index.js') }"
        )
        refused = list(service.requests)
        tokens_given = service.tokens_given
        errors = await page.evaluate("errors")

        service.status_of_new_tokens = 200
        await page.evaluate("listen()")
        calls = await calls_of(page, 1)

    assert refused == [
        StreamRequest("GET", "t1", None, status),
        StreamRequest("HEAD", "t1", None, status),
        StreamRequest("GET", "t2", None, status),
        StreamRequest("HEAD", "t2", None, status),
    ]
    assert tokens_given == 2
    assert states == ["connecting", "refused"]
    assert errors == [f"Uncaught Error: event stream refused: {status}"]
    assert calls == [[None, "connected"]]
    assert service.requests[4:] == [StreamRequest("GET", "t3", None, 200)]


async def test_a_page_without_tokens_that_is_refused_twice_gets_to_its_login(
    browser: Browser,
) -> None:
    service = FakeService()
    async with listening_page(browser, service, REFUSED, has_tokens=False) as page:
        states = await states_of(page, "refused", 2)
        errors = await page.evaluate("errors")

    assert (
        service.requests
        == [
            StreamRequest("GET", None, None, 401),
            StreamRequest("HEAD", None, None, 401),
        ]
        * 2
    )
    assert states == ["connecting", "refused"]
    assert errors == ["Uncaught Error: event stream refused: 401"]


async def test_a_page_out_of_the_back_forward_cache_has_a_stream_again() -> None:
    service = FakeService()
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program("chromium"),
            args=flags,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        async with listening_page(browser, service, "status of 404") as page:
            await calls_of(page, 1)
            await page.goto(page.url.replace("/blank", "/client/README.md"))
            await until(lambda: service.open_streams == 0, "the end of the stream")
            service.notify("meanwhile")
            with contextlib.suppress(Error):  # the page that says so is gone
                await page.evaluate("history.back()")
            # A page that was loaded anew would not listen: the test had it begin.
            await until(lambda: len(service.requests) == 2, "a request of the page that is back")
        await browser.close()

    assert service.requests[1] == StreamRequest("GET", "t2", "1-0", 200)


async def test_answers_other_than_401_and_403_are_not_final(browser: Browser) -> None:
    service = FakeService()
    service.status_of_new_tokens = 503
    async with listening_page(browser, service, "status of 503") as page:
        await until(lambda: service.tokens_given >= 6, "six tokens", 15 * SECOND)
        service.status_of_new_tokens = 200
        calls = await calls_of(page, 1)
        states = await states_of(page, "open", 2)
        errors = await page.evaluate("errors")

    assert calls == [[None, "connected"]]
    assert states == ["connecting", "open"]
    assert errors == []
