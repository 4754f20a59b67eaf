"""The service for an ASGI server of your own: ``sse_push.asgi:app``, by its settings.

Knows what of the settings is left to that server. Does not know any server; ``sse-push serve`` does
without this module, and with limits that need its own server.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from sse_push.errors import ConfigError, Refusal
from sse_push.http.app import create_app
from sse_push.runtime.log_pace import LogPace
from sse_push.runtime.logs import configure_logging
from sse_push.runtime.run_folder import run_folder
from sse_push.runtime.variables import PREFIX
from sse_push.server import file_limit, tune_process, warn_of_trust, within_file_limit
from sse_push.settings import Settings

logger = logging.getLogger(__name__)

_REQUIRED = ("redis_url", "subscribe_auth", "notify_keys")


class Application:
    """The service from the startup of its server to the shutdown; before and after, an error.

    The settings are read at the startup, so that importing this module reads nothing.
    """

    def __init__(self) -> None:
        self._service: ASGIApp | None = None
        self._pace = LogPace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if self._service is not None:
            await self._service(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._refuse(send)
        else:
            await send({"type": "websocket.close"})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            try:
                settings = _settings()
                folder = stack.enter_context(run_folder("sse_push", settings.run_folder))
                configure_logging(settings.log_level, settings.log_format)
                tune_process()
                settings = within_file_limit(settings, file_limit())
                warn_of_trust(settings, listens=False)
                self._service = service = create_app(settings, folder)
            except ConfigError as exc:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            try:
                await service(scope, receive, send)
            finally:
                self._service = None

    async def _refuse(self, send: Send) -> None:
        """Answer a request to a service that was never started, or has ended."""
        detail = "expected a server that runs the lifespan of ASGI, got a request without it"
        if count := self._pace.count("refused"):
            logger.error("request without a lifespan, not served count=%d", count)
        headers = [(b"content-type", b"application/json")]
        status = Refusal.INTERNAL.status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = json.dumps(Refusal.INTERNAL.body(detail)).encode()
        await send({"type": "http.response.body", "body": body})


def _settings() -> Settings:
    """Read the settings.

    Raises:
        ConfigError: a setting is wrong or missing.
    """
    settings = Settings.load()
    missing = [name for name in _REQUIRED if getattr(settings, name) is None]
    if missing:
        names = ", ".join(f"{name} ({PREFIX}{name.upper()})" for name in missing)
        raise ConfigError(f"expected these settings too: {names}")
    if settings.workers != 1:
        raise ConfigError(
            "workers: expected 1, since each worker of your server is a service of its own, "
            f"got {settings.workers}"
        )
    return settings


app = Application()
"""What a server is given: ``uvicorn sse_push.asgi:app``."""
