"""Where a Redis is, and as whom we come: what a URL says, and how to get there.

Knows TCP, TLS and Unix sockets. Does not know what is said on a connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

from redis.asyncio.connection import parse_url

from sse_push.stream.failures import RedisConnectionError

_PORT = 6379

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A server that is silent for 30 s, and then for three questions at intervals of 5 s, is away."""

_CERT_REQS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

_NO_FILES = ("ssl_cert_reqs", "ssl_check_hostname", "ssl_password")

P = TypeVar("P", bound=asyncio.Protocol)


class Place(NamedTuple):
    """Where other servers say that a server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One server: ``path`` is its Unix socket, else it is at ``host`` and ``port``.

    Without ``user`` and ``password`` there is no question who we are. ``tls`` has the options of
    TLS by their names in the URL; None: no TLS.
    """

    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    connect_timeout_s: float | None = None
    tls: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the address of a URL that ``settings`` has accepted."""
        options: dict[str, Any] = {**parse_url(url)}
        options.pop("connection_class", None)
        return cls(
            host=options.pop("host", "localhost"),
            port=options.pop("port", _PORT),
            path=options.pop("path", None),
            db=options.pop("db", 0),
            user=options.pop("username", ""),
            password=options.pop("password", ""),
            connect_timeout_s=options.pop("socket_connect_timeout", None),
            tls=options if url.startswith("rediss:") else None,
        )

    @property
    def needs_primary(self) -> bool:
        """Whether a replica there is certainly the wrong server."""
        return False

    @property
    def is_of_cluster(self) -> bool:
        """Whether the server there is to be a node of a cluster."""
        return False

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    async def reach(self, protocol: Callable[[], P], *, within_s: float) -> P:
        """Connect, and return the protocol that serves the connection.

        Raises:
            RedisConnectionError: nobody is there, or not within ``within_s``, or what the URL says
                in ``socket_connect_timeout``, if that is less.
        """
        if self.connect_timeout_s is not None:
            within_s = min(within_s, self.connect_timeout_s)
        try:
            async with asyncio.timeout(within_s):
                return await self._reach(protocol)
        except TimeoutError as exc:
            text = f"expected a connection to {self} within {within_s:g} s, got none: timed out"
            raise RedisConnectionError(text) from exc
        except (OSError, ValueError) as exc:  # ValueError: no name of a host, no path
            raise RedisConnectionError(self._error(exc)) from exc

    async def _reach(self, protocol: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(protocol, self.path))[1]
        context = None if self.tls is None else _tls_context(self.tls)
        transport, reached = await loop.create_connection(
            protocol, self.host, self.port, ssl=context
        )
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # pragma: no branch (Linux has all of them)
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return reached

    def _error(self, exc: OSError | ValueError) -> str:
        number = getattr(exc, "errno", None)
        if number is None or isinstance(exc, ssl.SSLError):
            return f"Error connecting to {self}. {exc}"
        text = os.strerror(number) if number > 0 else getattr(exc, "strerror", exc)
        return f"Error {number} connecting to {self}. {text}."


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return what a connection needs for TLS, from files that may have changed since the last."""
    context = ssl.create_default_context()
    required = _CERT_REQS[options.get("ssl_cert_reqs", "required")]
    is_checked = options.get("ssl_check_hostname", True)
    context.check_hostname = is_checked and required is not ssl.CERT_NONE
    context.verify_mode = required
    try:
        _load_files(context, options)
    except OSError as exc:
        names = ", ".join(name for name in options if name not in _NO_FILES)
        raise ValueError(f"expected files of TLS in {names}, got: {exc}") from exc
    return context


def _load_files(context: ssl.SSLContext, options: Mapping[str, Any]) -> None:
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if certificate is not None:
        context.load_cert_chain(certificate, key, options.get("ssl_password"))
    elif key is not None:
        raise ValueError("expected ssl_certfile beside ssl_keyfile, got none")
    authorities = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    if any(authorities):
        context.load_verify_locations(*authorities)
