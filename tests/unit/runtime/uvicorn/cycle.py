"""A cycle and a protocol of uvicorn, on a transport that keeps what is written."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sse_push.runtime.uvicorn import SEND_SCOPE_KEY


class OwnTransport(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = asyncio.Event()
        self.limits: tuple[int | None, int | None] | None = None
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_closed.is_set()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def close(self) -> None:
        self.is_closed.set()

    def abort(self) -> None:
        self.is_closed.set()


class CycleOfAnotherKind(RequestResponseCycle):
    """A cycle that may work differently."""


async def no_app(_scope: object, _receive: object, _send: object) -> None:
    """An application that is never called."""


def uvicorn_protocol(transport: OwnTransport) -> HttpToolsProtocol:
    config = uvicorn.Config(cast("Any", no_app), http="httptools", ws="none", log_config=None)
    protocol = HttpToolsProtocol(config, ServerState(), {})
    protocol.connection_made(transport)
    return protocol


def uvicorn_cycle(
    kind: type[RequestResponseCycle] = RequestResponseCycle, http_version: str = "1.1"
) -> tuple[RequestResponseCycle, Scope]:
    transport = OwnTransport()
    transport.protocol = uvicorn_protocol(transport)
    scope: Any = {"type": "http", "method": "GET", "http_version": http_version}
    cycle = kind(
        scope=scope,
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    scope[SEND_SCOPE_KEY] = cycle.send
    return cycle, scope
