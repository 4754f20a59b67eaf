"""HTTP/2 connections that send whatever a test wants, valid or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.harness.nginx import Nginx
from tests.harness.waiting import until

_GOAWAY = 7


class Http2:
    """An HTTP/2 connection: it sends any headers, valid or not, and records what arrives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.reader = reader
        self.writer = writer
        self.statuses: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.limits: dict[int, int] = {}
        self.is_leaving = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, nginx: Nginx) -> AsyncGenerator[Http2]:
        trust = nginx.trust()
        trust.set_alpn_protocols(["h2"])
        http2 = cls(*await asyncio.open_connection("127.0.0.1", nginx.port, ssl=trust))
        http2.connection.initiate_connection()
        http2.flush()
        pumping = asyncio.create_task(http2.pump())
        try:
            await until(lambda: bool(http2.limits), "the settings")
            yield http2
        finally:
            http2.writer.transport.abort()
            await pumping

    def ask(self, method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> int:
        number = self.connection.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "shop.test:8443"),
            (":path", path),
        ]
        self.connection.send_headers(number, [*pseudo, *headers], end_stream=not body)
        if body:
            self.connection.send_data(number, body, end_stream=True)
        self.flush()
        return number

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def pump(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                head = await self.reader.readexactly(9)
                frame = head + await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                if frame[3] == _GOAWAY:
                    self.is_leaving = True  # the library would take no more of open streams
                    continue
                for event in self.connection.receive_data(frame):
                    self.take(event)
                self.flush()

    def take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self.limits |= {
                    int(code): changed.new_value for code, changed in event.changed_settings.items()
                }
            case h2.events.ResponseReceived():
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            case h2.events.DataReceived():
                got = self.bodies.get(event.stream_id, b"")
                self.bodies[event.stream_id] = got + event.data
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self.ended.add(event.stream_id)
            case _:
                pass

    async def body_to(self, number: int, text: bytes) -> None:
        await until(lambda: text in self.bodies.get(number, b""), f"{text!r} of {self.bodies}")
