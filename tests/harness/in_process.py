"""The service in the process of the tests, by any of uvicorn's protocols."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import uvicorn

from sse_push.http.app import create_app
from sse_push.server import listening_socket
from sse_push.settings import Settings
from tests.harness.waiting import until


@contextmanager
def sigterm_ignored() -> Generator[None]:
    """Leave SIGTERM to the service: the process of the tests must survive it."""
    original = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, original)


@asynccontextmanager
async def serving_here(
    redis_url: str, folder: Path, *, http: Literal["httptools", "h11"] = "httptools", **more: object
) -> AsyncGenerator[str]:
    """Serve from this process, where SIGTERM begins the drain and the server goes on."""
    settings = Settings.load(
        port=0,
        redis_url=redis_url,
        notify_keys="none",
        **{"subscribe_auth": "none", "probe_interval_s": 0.1, **more},
    )
    with listening_socket(settings) as sock, sigterm_ignored():
        config = uvicorn.Config(
            create_app(settings, folder),
            http=http,
            ws="none",
            lifespan="on",
            log_config=None,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([sock]))
        await until(lambda: server.started, "the server")
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
