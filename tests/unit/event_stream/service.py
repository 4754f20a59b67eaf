"""The event streams of a process without Redis and sockets, and the clients behind them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from starlette.types import Message, Scope

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason
from sse_push.event_stream import EventStreams, Gaps, Listening, open_event_stream
from sse_push.event_stream.transport import State, TransportStream
from sse_push.event_stream.wire import HEARTBEAT, Frame, encode_expiring, encode_refreshes
from sse_push.hub import Hub, Subscription
from sse_push.notification import Change, Entry, EntryId, EventId, Notification
from sse_push.runtime.timer_wheel import Clock
from tests.harness.chunks import Dechunker
from tests.harness.clock import PACE, ManualClock, WatchList
from tests.harness.ids import HISTORY
from tests.harness.waiting import SECOND
from tests.simulation.browsers import ModelCycle

READY = (
    b'retry: 0\nevent: ready\ndata: {"merchant_id":"42","heartbeat_s":15,"connection_id":"?"}\n\n'
)
READY_AT_7 = READY.replace(b"event", b"id: 7-0.0a1b2c3d\nevent", 1)
CONNECTED = b'event: refresh\ndata: {"merchant_id":"42","reason":"connected"}\n\n'
CONNECTED_AT_7 = b"id: 7-0.0a1b2c3d\n" + CONNECTED
MISSED_AT_7 = b'id: 7-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","reason":"missed"}\n\n'
REFRESH_8 = b'id: 8-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"seats"}\n\n'
BEAT = b"event: heartbeat\ndata: {}\n\n"


def entry(number: int, topic: str | None = None, **fields: str) -> Entry:
    notification = Notification("42", topic, fields.get("data"), fields.get("by"))
    return Entry(EntryId(number, 0), notification)


def goodbye(reason: str) -> bytes:
    return b'retry: 0\nevent: goodbye\ndata: {"reason":"%b"}\n\n' % reason.encode()


def masked(body: bytes) -> bytes:
    """Hide what differs from connection to connection."""
    return re.sub(rb'"connection_id":"[0-9a-f]{8}-[0-9]+"', b'"connection_id":"?"', body)


def listening_to(
    positions: Mapping[str, str | None], expires_at: float | None = None, *, is_named: bool = True
) -> Listening:
    grants = tuple(Grant(each, expires_at) for each in positions)
    return Listening(grants, tuple(positions.values()), is_named)


async def turns(count: int = 20) -> None:
    """Let each task run as far as it can."""
    for _ in range(count):
        await asyncio.sleep(0)


class Shelf:
    """An archive that answers when the test opens it."""

    def __init__(self) -> None:
        self.entries: tuple[Entry, ...] | None = None
        self.asked: list[tuple[str, EntryId, EntryId]] = []
        self.error: Exception | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        self.asked.append((merchant_id, start, end))
        await self.is_open.wait()
        if self.error is not None:
            raise self.error
        return self.entries


class Service:
    """What event streams share, with a clock and a Redis that are moved by hand."""

    def __init__(
        self,
        *,
        retry_ms: int = 0,
        send_timeout_s: float = 15,
        arm_timeout_s: float = 0,
        clock: Clock | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.source = WatchList()
        self.shelf = Shelf()
        self.tasks: list[asyncio.Task[None]] = []
        self.hub: Hub[Frame] = Hub(
            encode=encode_refreshes,
            encode_expiring=encode_expiring,
            heartbeat=HEARTBEAT,
            pace=PACE,
            revocations=Revocations(3600, 5),
            clock=clock or self.clock,
        )
        self.hub.source = self.source
        self.streams = EventStreams(
            hub=self.hub,
            gaps=Gaps(self.shelf),
            heartbeat_s=15,
            retry_ms=retry_ms,
            soft_retry_min_ms=5000,
            soft_retry_max_ms=5003,
            send_timeout_s=send_timeout_s,
            send_buffer_bytes=16_384,
            poll_interval_s=10,
            arm_timeout_s=arm_timeout_s,
        )

    @property
    def subscriptions(self) -> list[Subscription[Frame]]:
        return [
            subscription
            for merchant in self.hub._merchants.values()
            for subscription in merchant.subscriptions
        ]

    def armed(self, newest: EventId | None, merchant_id: str = "42") -> None:
        self.hub.armed(merchant_id, newest)

    def change(self, number: int, topic: str | None = "seats", *, merchant_id: str = "42") -> None:
        changed = entry(number, topic)
        self.hub.publish(Change(merchant_id, changed.id, (changed,)), HISTORY)

    def end(self, reason: EndReason) -> None:
        for subscription in self.subscriptions:
            self.hub.end(subscription, reason)

    def begin(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start to answer one request, as a server does."""
        self.tasks.append(asyncio.create_task(call))
        return self.tasks[-1]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Cycle(ModelCycle):
    """A cycle of uvicorn's that also keeps the head, and messages that come before the end."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.head: Mapping[str, Any] = {}
        self.aborted = asyncio.Event()
        self.incoming: deque[dict[str, Any]] = deque()

    async def send(self, message: Mapping[str, Any]) -> None:
        await super().send(message)
        if message["type"] == "http.response.start":
            self.head = message

    async def receive(self) -> dict[str, Any]:
        return self.incoming.popleft() if self.incoming else await super().receive()

    def pause(self) -> None:
        """Let the kernel take no more; ``deliver`` makes it take bytes again."""
        self.flow.write_paused = True
        self.flow.is_writable.clear()

    def abort(self) -> None:
        self.aborted.set()
        super().abort()


class RecordedStream(TransportStream):
    """Remembers its states."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.states = [self.state]

    def _become(self, state: State) -> None:
        super()._become(state)
        self.states.append(state)


class Browser:
    """A client of the fast way, and the bytes that its socket has received."""

    def __init__(
        self,
        service: Service,
        last_event_id: str | None = None,
        cycle: Cycle | None = None,
        expires_at: float | None = None,
        *,
        is_named: bool = False,
        listening: Listening | None = None,
    ) -> None:
        self.cycle = cycle or Cycle(10**6)
        listening = listening or listening_to({"42": last_event_id}, expires_at, is_named=is_named)
        self.stream = RecordedStream(service.streams, listening, self.cycle)
        call = self.stream({}, cast("Any", self.cycle.receive), cast("Any", self.cycle.send))
        self.task = service.begin(call)
        self._dechunker = Dechunker()
        self._received = b""

    @property
    def received(self) -> bytes:
        self._received += self._dechunker.feed(self.cycle.deliver(10**6))
        return masked(self._received)

    @property
    def is_complete(self) -> bool:
        return self.cycle.is_complete

    async def done(self) -> None:
        async with asyncio.timeout(5 * SECOND):
            await self.task


class Server:
    """An ASGI server that is not uvicorn, and the client behind it."""

    def __init__(
        self,
        service: Service,
        last_event_id: str | None = None,
        *,
        method: str = "GET",
        expires_at: float | None = None,
        is_named: bool = False,
        listening: Listening | None = None,
    ) -> None:
        self.scope: Scope = {"type": "http", "method": method, "http_version": "1.1"}
        self.messages: list[Message] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_gone = asyncio.Event()
        listening = listening or listening_to({"42": last_event_id}, expires_at, is_named=is_named)
        self.stream = open_event_stream(service.streams, self.scope, listening)
        self.task = service.begin(self.stream(self.scope, self.receive, self.send))

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.messages.append(message)

    async def receive(self) -> Message:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    @property
    def received(self) -> bytes:
        return masked(b"".join(message["body"] for message in self.messages[1:]))

    @property
    def is_complete(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("more_body") is False

    async def done(self) -> None:
        async with asyncio.timeout(5 * SECOND):
            await self.task

    async def leave(self) -> None:
        self.is_gone.set()
        await self.done()


Serve = Callable[..., Service]


class Neighbor:
    """Another connection of the merchant, so that the merchant stays."""

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, _reason: EndReason) -> None:
        """Accept the end."""


def revoke(service: Service) -> None:
    service.hub.revoke(Revocation("42"), time.time())
