"""The way to the server, below HTTP: the name, the connection, TLS, and HTTP/2.

Knows sockets, TLS, and the first frame of an HTTP/2 server. Does not know what is asked.

https://www.rfc-editor.org/rfc/rfc9113#name-http-2-connection-preface
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from sse_push.doctor.target import Address, Target

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""What a client begins with: the magic text, and settings without a change."""

_SETTINGS = 4
_MAX_CONCURRENT_STREAMS = 3
_FRAME_LIMIT_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Network:
    """What was seen below HTTP; ``trouble``: why there is no connection."""

    trouble: str = ""
    addresses: tuple[str, ...] = ()
    took_s: float = 0.0
    certificate_trouble: str = ""
    tls: str = ""
    expires_in_s: float = 0.0
    is_http2: bool = False
    streams: int | None = None
    """How many requests a browser may have at once in its connection; None: it was not told."""


async def reach(target: Target) -> Network:
    """Resolve the name, connect, and agree on TLS and on a version of HTTP, as browsers do."""
    found: list[str] = []
    try:
        return await asyncio.wait_for(_look(target, found), target.timeout_s)
    except ssl.SSLCertVerificationError as exc:
        return Network(addresses=tuple(found), certificate_trouble=exc.verify_message)
    except TimeoutError:
        return Network(f"no answer within {target.timeout_s:g} s", tuple(found))
    except (OSError, ValueError) as exc:  # ValueError: a name that can't be one
        return Network(str(exc) or type(exc).__name__, tuple(found))


async def _look(target: Target, found: list[str]) -> Network:
    """Resolve the name into ``found``, and connect."""
    address = target.address
    trust = target.trust("h2", "http/1.1") if address.is_tls else None
    resolved = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )
    found += dict.fromkeys(str(each[4][0]) for each in resolved)
    return await _connect(address, trust, tuple(found), time.monotonic())


async def _connect(
    address: Address, trust: ssl.SSLContext | None, addresses: tuple[str, ...], began_at: float
) -> Network:
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=trust)
    try:
        took_s = time.monotonic() - began_at
        secured: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        if secured is None:
            return Network("", addresses, took_s)
        certificate = secured.getpeercert() or {}
        expires_at = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        is_http2 = secured.selected_alpn_protocol() == "h2"
        return Network(
            addresses=addresses,
            took_s=took_s,
            tls=secured.version() or "",
            expires_in_s=expires_at - time.time(),
            is_http2=is_http2,
            streams=await _streams(reader, writer) if is_http2 else None,
        )
    finally:
        writer.transport.abort()


async def _streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
    """Return what the first frame of the server says of the number of streams."""
    writer.write(_PREFACE)
    with suppress(asyncio.IncompleteReadError):
        head = await reader.readexactly(9)
        length = int.from_bytes(head[:3], "big")
        if head[3] == _SETTINGS and length <= _FRAME_LIMIT_BYTES:
            return dict(_settings(await reader.readexactly(length))).get(_MAX_CONCURRENT_STREAMS)
    return None


def _settings(payload: bytes) -> Iterator[tuple[int, int]]:
    whole = len(payload) - len(payload) % 6
    yield from struct.iter_unpack(">HI", payload[:whole])
