"""HTTP without TLS, as tests ask a service: clients that load no certificates, and that give up.

httpx2 loads those of the system for each client, which takes 25 ms of CPU; a service that starts is
asked a hundred times whether it is ready. Its time limits are of a silence, and a stream has none.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import httpx2

from tests.harness.machine import unit

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates: every server with TLS is refused."""

WHOLE_S = 20 * unit()
"""How long an answer may take that is not asked for as a stream."""


class Client(httpx2.Client):
    """``httpx2.Client`` for addresses that begin with ``http:``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"verify": TRUSTS_NOBODY, **options})

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        answer, began_at = super().send(request, **{**options, "stream": True}), time.monotonic()
        if not options.get("stream"):
            body = b""
            for piece in answer.iter_bytes():
                body += piece
                assert time.monotonic() - began_at < WHOLE_S, _ended(request, f", got {body!r}")
            answer._content = body
        return answer


class AsyncClient(httpx2.AsyncClient):
    """``httpx2.AsyncClient`` for addresses that begin with ``http:``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"verify": TRUSTS_NOBODY, **options})

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(None if options.get("stream") else WHOLE_S):
                return await super().send(request, **options)
        except TimeoutError as exc:
            raise AssertionError(_ended(request)) from exc


def at_socket(uds: Path) -> AsyncClient:
    """Return a client of the service that listens at a Unix socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(uds), verify=TRUSTS_NOBODY)
    return AsyncClient(transport=transport, base_url="http://push")


def get(url: httpx2.URL | str, **options: Any) -> httpx2.Response:
    """As ``httpx2.get``."""
    with Client(trust_env=options.pop("trust_env", True)) as client:
        return client.get(url, **options)


def post(url: httpx2.URL | str, **options: Any) -> httpx2.Response:
    """As ``httpx2.post``."""
    with Client(trust_env=options.pop("trust_env", True)) as client:
        return client.post(url, **options)


def _ended(request: httpx2.Request, got: str = "") -> str:
    return f"expected the end of the answer to {request.method} {request.url} in {WHOLE_S} s{got}"
