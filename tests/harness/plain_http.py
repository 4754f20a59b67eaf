"""HTTP without TLS, as tests ask a service: clients that load no certificates.

httpx2 loads those of the system for each client, which takes 25 ms of CPU; a service that starts is
asked a hundred times whether it is ready.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx2

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates: every server with TLS is refused."""


class Client(httpx2.Client):
    """``httpx2.Client`` for addresses that begin with ``http:``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"verify": TRUSTS_NOBODY, **options})


class AsyncClient(httpx2.AsyncClient):
    """``httpx2.AsyncClient`` for addresses that begin with ``http:``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"verify": TRUSTS_NOBODY, **options})


def at_socket(uds: Path) -> AsyncClient:
    """Return a client of the service that listens at a Unix socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(uds), verify=TRUSTS_NOBODY)
    return AsyncClient(transport=transport, base_url="http://push")


def get(url: httpx2.URL | str, **options: Any) -> httpx2.Response:
    """As ``httpx2.get``."""
    return httpx2.get(url, verify=TRUSTS_NOBODY, **options)


def post(url: httpx2.URL | str, **options: Any) -> httpx2.Response:
    """As ``httpx2.post``."""
    return httpx2.post(url, verify=TRUSTS_NOBODY, **options)
