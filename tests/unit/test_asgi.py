"""The application for other servers, called as one would; with uvicorn: ``integration``."""

from __future__ import annotations

import json
import logging

import pytest
from starlette.types import Message, Scope

from sse_push.asgi import Application
from tests.harness.programs import variables

FINE = {"redis_url": "redis://127.0.0.1:1", "subscribe_auth": "none", "notify_keys": "none"}
HTTP: Scope = {"type": "http", "path": "/healthz", "headers": []}


async def answers(app: Application, scope: Scope) -> list[Message]:
    """Call the application once; of the lifespan, only the startup is told."""
    sent = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, text in variables(FINE).items():
        monkeypatch.setenv(name, text)
    return monkeypatch


async def test_a_request_without_a_lifespan_gets_an_error_that_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application()
    with caplog.at_level(logging.ERROR):
        start, body = await answers(app, HTTP)
        for _ in range(5):
            await answers(app, HTTP)

    assert start["status"] == 500
    assert (b"content-type", b"application/json") in start["headers"]
    assert json.loads(body["body"]) == {
        "error": "internal",
        "detail": "expected a server that runs the lifespan of ASGI, got a request without it",
    }
    assert caplog.messages == ["request without a lifespan, not served count=1"]


async def test_a_websocket_without_a_lifespan_is_closed() -> None:
    assert await answers(Application(), {"type": "websocket"}) == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"redis_url": "http://redis"}, "redis_url (SSE_PUSH_REDIS_URL): expected redis://"),
        (
            {
                "redis_url": "redis://127.0.0.1:1",
                "subscribe_auth": "none",
                "notify_keys": "none",
                "run_folder": "/proc",
            },
            "expected to make a folder for temporary files below /proc",
        ),
        ({"workers": 2}, "workers: expected 1, since each worker of your server is a service"),
    ],
)
async def test_a_startup_with_a_wrong_setting_fails_in_a_sentence(
    environ: pytest.MonkeyPatch, given: dict[str, object], text: str
) -> None:
    for name, value in variables(given).items():
        environ.setenv(name, value)

    (failed,) = await answers(Application(), {"type": "lifespan"})

    assert failed["type"] == "lifespan.startup.failed"
    assert text in failed["message"]


async def test_a_startup_without_settings_names_all_that_are_missing() -> None:
    (failed,) = await answers(Application(), {"type": "lifespan"})

    assert failed["message"] == (
        "expected these settings too: redis_url (SSE_PUSH_REDIS_URL), "
        "subscribe_auth (SSE_PUSH_SUBSCRIBE_AUTH), notify_keys (SSE_PUSH_NOTIFY_KEYS)"
    )
