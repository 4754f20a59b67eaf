"""Models of a socket, of uvicorn's side of it, and of the page at its other end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sse_push.event_stream.transport import TransportStream
from sse_push.notification import EventId
from sse_push.sse_client import Event, Parser
from tests.harness.chunks import Dechunker


class ModelFlow:
    def __init__(self) -> None:
        self.write_paused = False
        self.is_writable = asyncio.Event()
        self.is_writable.set()


class ModelCycle:
    """What ``TransportStream`` uses of uvicorn's ``RequestResponseCycle``; its own transport."""

    def __init__(self, capacity: int) -> None:
        self.flow = ModelFlow()
        self.transport = self
        self.capacity = capacity
        self.wire = bytearray()
        self.disconnected = False
        self.is_complete = False
        self.is_gone = asyncio.Event()

    def write(self, data: bytes) -> None:
        assert not self.disconnected, "nothing is written to a client that has gone"
        assert not self.is_complete, "nothing is written after the last chunk"
        assert not self.flow.write_paused, "nothing is written while flow control is closed"
        self.put(data)

    def put(self, data: bytes) -> None:
        self.wire += data
        if len(self.wire) > self.capacity:
            self.flow.write_paused = True
            self.flow.is_writable.clear()

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0, "what the kernel does not take waits in the slot"

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        self.lose()

    def lose(self) -> None:
        self.disconnected = True
        self.flow.write_paused = False
        self.flow.is_writable.set()
        self.is_gone.set()

    async def send(self, message: Mapping[str, Any]) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.is_writable.wait()
        if self.disconnected:
            return
        assert not self.is_complete, "nothing is sent after the last chunk"
        if message["type"] == "http.response.body":
            body = message["body"]
            self.put(b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            if not message["more_body"]:
                self.put(b"0\r\n\r\n")
                self.is_complete = True
                self.is_gone.set()

    async def receive(self) -> dict[str, Any]:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    def deliver(self, most: int) -> bytes:
        data = bytes(self.wire[:most])
        del self.wire[:most]
        if self.flow.write_paused and not self.wire and not self.disconnected:
            self.flow.write_paused = False
            self.flow.is_writable.set()
        return data


@dataclass
class Accepted:
    """A notification that Redis has stored; the page needs a refresh for it."""

    serial: int
    topic: str | None
    by: str | None
    used_again: str = ""
    """Its ID, if another entry had that before."""


class Page:
    """One browser window: the changes that it does not show yet, and its connection."""

    def __init__(self, merchant_id: str, name: str, *, is_named: bool = False) -> None:
        self.name = name
        self.is_named = is_named
        """Its URL names no merchant, but its cookie does; so its IDs do."""
        self.last_event_id = ""
        self.opened_with = ""
        """The last event ID that the connection was opened with."""
        self.response: TransportStream | None = None
        self.missing_of: dict[str, list[Accepted]] = {}
        self.become(merchant_id)
        self.cycle: ModelCycle | None = None
        self.task: asyncio.Task[None] | None = None
        self.parser = Parser()
        self.dechunker = Dechunker()
        self.highest: tuple[int, int] = (0, 0)

    def become(self, merchant_id: str) -> None:
        """Show another merchant, or this one at first: as it was rendered some time ago."""
        self.merchant_id = merchant_id
        self.missing_of.setdefault(merchant_id, [Accepted(-1, None, None)])

    @property
    def missing(self) -> list[Accepted]:
        """What it does not show yet of its merchant."""
        return self.missing_of[self.merchant_id]

    @missing.setter
    def missing(self, accepted: list[Accepted]) -> None:
        self.missing_of[self.merchant_id] = accepted

    def accepted(self, merchant_id: str, accepted: Accepted) -> None:
        """Lack a notification, if the page was ever of its merchant."""
        if accepted.by != self.name and merchant_id in self.missing_of:
            self.missing_of[merchant_id].append(accepted)

    def receive(self, most: int) -> None:
        assert self.cycle is not None, "a page receives only while it is connected"
        for event in self.parser.feed(self.dechunker.feed(self.cycle.deliver(most))):
            previous, self.last_event_id = self.last_event_id, event.id
            if event.type == "refresh":
                self.refresh(event, has_id=event.id != previous)

    def refresh(self, event: Event, *, has_id: bool) -> None:
        refresh = json.loads(event.data)
        assert refresh["merchant_id"] == self.merchant_id, "a page is of one merchant"
        if refresh.get("reason") == "resync":
            self.highest = (0, 0)  # another history, or none
        elif has_id:
            name, _, text = event.id.rpartition("@")
            assert name == (self.merchant_id if self.is_named else ""), "IDs name the merchant"
            event_id = EventId.parse(text)
            assert event_id.entry_id >= self.highest, "IDs rise on a connection, but for a resync"
            self.highest = event_id.entry_id
        if refresh.get("by") == self.name and "reason" not in refresh:
            return  # its own change, which it shows already
        if "data" in refresh:  # applied as it is, nothing is fetched
            self.missing = [each for each in self.missing if each.serial != refresh["data"]]
        elif "topic" in refresh:  # fetched: whatever was accepted until now is seen
            self.missing = [each for each in self.missing if each.topic != refresh["topic"]]
        else:
            self.missing = []
