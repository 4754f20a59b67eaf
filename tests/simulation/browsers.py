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
        self.opened_with: dict[str, str | None] = {}
        """The last event ID that the connection was opened with, by merchant."""
        self.response: TransportStream | None = None
        self.missing_of: dict[str, list[Accepted]] = {}
        self.become(merchant_id)
        self.cycle: ModelCycle | None = None
        self.task: asyncio.Task[None] | None = None
        self.parser = Parser()
        self.dechunker = Dechunker()
        self.highest: dict[str, tuple[int, int]] = {}
        """The highest ID of this connection, by merchant."""

    def become(self, merchant_id: str) -> None:
        """Show another merchant, or this one at first: as it was rendered some time ago."""
        self.merchant_id = merchant_id
        self.missing_of.setdefault(merchant_id, [Accepted(-1, None, None)])

    @property
    def merchants(self) -> tuple[str, ...]:
        """The merchants that its connection is for."""
        return (self.merchant_id,)

    @property
    def places(self) -> list[list[str]]:
        """Its last event IDs, in each place of its next request."""
        return [[self.last_event_id]]

    def accepted(self, merchant_id: str, accepted: Accepted) -> None:
        """Lack a notification, if the page was ever of its merchant."""
        if accepted.by != self.name and merchant_id in self.missing_of:
            self.missing_of[merchant_id].append(accepted)

    def receive(self, most: int) -> None:
        assert self.cycle is not None, "a page receives only while it is connected"
        for event in self.parser.feed(self.dechunker.feed(self.cycle.deliver(most))):
            previous, self.last_event_id = self.last_event_id, event.id
            if event.type == "ready":
                self.ready(json.loads(event.data))
            elif event.type == "position":
                self.position(json.loads(event.data)["merchant_id"], event.id)
            elif event.type == "refresh":
                self.refresh(event, has_id=event.id != previous)

    def ready(self, told: dict[str, Any]) -> None:
        """Begin a connection: a page of one merchant reads nothing from this."""
        assert told["merchant_id"] == self.merchant_id

    def position(self, merchant_id: str, text: str) -> None:
        """Stand at an ID of this merchant."""
        assert merchant_id in self.merchants, "a page is told of its own merchants"
        name, _, text = text.rpartition("@")
        assert name == (merchant_id if self.is_named else ""), "IDs name the merchant"
        entry_id = EventId.parse(text).entry_id
        highest = self.highest.get(merchant_id, (0, 0))
        assert entry_id >= highest, "IDs rise on a connection, but for a resync"
        self.highest[merchant_id] = entry_id

    def refresh(self, event: Event, *, has_id: bool) -> None:
        refresh = json.loads(event.data)
        merchant_id = refresh["merchant_id"]
        assert merchant_id in self.merchants, "a page is told of its own merchants"
        if refresh.get("reason") == "resync":
            self.highest.pop(merchant_id, None)  # another history, or none
        if has_id:
            self.position(merchant_id, event.id)
        if refresh.get("by") == self.name and "reason" not in refresh:
            return  # its own change, which it shows already
        missing = self.missing_of[merchant_id]
        if "data" in refresh:  # applied as it is, nothing is fetched
            missing = [each for each in missing if each.serial != refresh["data"]]
        elif "topic" in refresh:  # fetched: whatever was accepted until now is seen
            missing = [each for each in missing if each.topic != refresh["topic"]]
        else:
            missing = []
        self.missing_of[merchant_id] = missing


class WidePage(Page):
    """A page of several merchants on one connection.

    It remembers where it stands at each, as the browser module does; or only the last ID, as a bare
    EventSource does.
    """

    def __init__(self, merchants: tuple[str, ...], name: str, *, is_bare: bool) -> None:
        super().__init__(merchants[0], name, is_named=True)
        self.missing_of = {each: [Accepted(-1, None, None)] for each in merchants}
        self.is_bare = is_bare
        self.positions: dict[str, str] = {}
        self.waits_for: set[str] = set()
        """The merchants that ``ready`` has left open, or owes a refresh of."""

    @property
    def merchants(self) -> tuple[str, ...]:
        return tuple(self.missing_of)

    @property
    def places(self) -> list[list[str]]:
        return [[self.last_event_id]] if self.is_bare else [[*self.positions.values()]]

    def ready(self, told: dict[str, Any]) -> None:
        assert tuple(told["merchants"]) == self.merchants
        self.waits_for = {*self.merchants}
        for merchant_id, standing in told["merchants"].items():
            assert len(standing) == 1, "a merchant is said one thing of"
            if "id" in standing:
                self.position(merchant_id, standing["id"])

    def position(self, merchant_id: str, text: str) -> None:
        super().position(merchant_id, text)
        self.positions[merchant_id] = text
        self.waits_for.discard(merchant_id)

    def refresh(self, event: Event, *, has_id: bool) -> None:
        super().refresh(event, has_id=has_id)
        self.waits_for.discard(json.loads(event.data)["merchant_id"])
