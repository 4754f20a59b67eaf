"""A merchant, several browsers and a Redis, in one process, in any order of events.

The code under test is the real one, from ``Tail`` to the bytes of ``TransportStream``. What stands
around it is a model: of Redis (``tests/integration/test_model.py`` holds it against a real one), of
sockets that take and lose bytes, of pages that know what they have not been told. Chance decides
what happens next; a seed makes it the same again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason
from sse_push.event_stream import EventStreams, wire
from sse_push.event_stream.transport import TransportStream
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Subscription
from sse_push.notification import Change, Entry, EntryId, Notification
from sse_push.sse_client import Event, Parser
from sse_push.stream.reads import NEW_ENTRIES, Read, entries_between
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Watch
from tests.harness.chunks import Dechunker
from tests.harness.clock import PACE, ManualClock

CALM = dataclasses.replace(PACE, send_timeout_s=1000, max_connection_age_s=100_000, drain_s=1)
"""No connection ends by itself while a history runs."""


# -- a model of Redis

REFUSED = object()
"""An error reply that says nothing of the stream."""

NEVER = EntryId(0, 0)


@dataclass
class ModelStream:
    entries: list[Entry] = field(default_factory=list)
    last: EntryId = NEVER
    is_other_type: bool = False


def copied(streams: dict[str, ModelStream]) -> dict[str, ModelStream]:
    return {
        merchant_id: ModelStream(list(stream.entries), stream.last, stream.is_other_type)
        for merchant_id, stream in streams.items()
    }


class ModelRedis:
    """Streams, and the announcement of their changes to one tracked connection.

    Replies and announcements come in the order in which they were made (RESP3), or each kind in
    its own order only (RESP2, with announcements redirected to a second connection).
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.is_ordered = chance.random() < 0.7
        self.streams: dict[str, ModelStream] = {}
        self.tracked: set[str] | None = None
        self.out: deque[tuple[str, Any]] = deque()
        self.time_ms = 1_000_000
        self.epoch = 0
        self.planted = 0
        self.takes_writes = True
        """False: nothing is planted. Notifications are, so that there is something to tell."""
        self.run_id = 1
        self.is_refusing = False

    def tick(self) -> None:
        """Let time pass. In each epoch its own last digits: no lost ID is given by coincidence."""
        self.time_ms = (self.time_ms // 64 + 1) * 64 + self.epoch % 64

    def connect(self) -> None:
        self.tracked = set()
        self.out = deque()

    def disconnect(self) -> None:
        self.tracked = None
        self.out = deque()

    def take_out(self) -> tuple[str, Any]:
        if not self.is_ordered:
            kind = self.chance.choice(self.out)[0]
            first = next(number for number, each in enumerate(self.out) if each[0] == kind)
            self.out.rotate(-first)
            taken = self.out.popleft()
            self.out.rotate(first)
            return taken
        return self.out.popleft()

    def changed(self, merchant_id: str) -> None:
        if self.tracked is not None and merchant_id in self.tracked:
            self.tracked.remove(merchant_id)
            self.out.append(("announcement", merchant_id))

    def xadd(
        self,
        notification: Notification,
        *,
        max_entries: int,
        entry_id: EntryId | None = None,
        planted: int = 0,
    ) -> EntryId | None:
        """Add an entry, with an ID of the caller's own if that is higher than all before."""
        stream = self.streams.setdefault(notification.merchant_id, ModelStream())
        if stream.is_other_type:
            return None
        if entry_id is None:
            entry_id = EntryId(self.time_ms, 0)
            if entry_id <= stream.last:
                entry_id = EntryId(stream.last.ms, stream.last.seq + 1)
        assert entry_id > stream.last, "Redis refuses an ID that is not higher"
        stream.last = entry_id
        fingerprint = hash((notification, planted))
        stream.entries.append(Entry(entry_id, notification, fingerprint, planted > 0))
        del stream.entries[:-max_entries]
        self.changed(notification.merchant_id)
        return entry_id

    def plant(self, merchant_id: str, *, is_if_missing: bool) -> None:
        """Add an entry that says nothing; without scripts whether the stream is missing or not."""
        stream = self.streams.get(merchant_id)
        if self.takes_writes and (stream is None or not is_if_missing):
            self.tick()
            self.planted += 1
            self.xadd(Notification(merchant_id), max_entries=1000, planted=self.planted)

    def trim(self, merchant_id: str, keep: int, *, is_announced: bool) -> None:
        stream = self.streams.get(merchant_id)
        if stream is not None and len(stream.entries) > keep:
            del stream.entries[: len(stream.entries) - keep]
            if is_announced:
                self.changed(merchant_id)

    def delete(self, merchant_id: str) -> None:
        if self.streams.pop(merchant_id, None) is not None:
            self.changed(merchant_id)

    def set_other_type(self, merchant_id: str) -> None:
        self.streams[merchant_id] = ModelStream(is_other_type=True)
        self.changed(merchant_id)

    def flush(self) -> None:
        self.streams = {}
        if self.tracked is not None:
            self.tracked = set()
            self.out.append(("announcement", None))

    def answer(self, read: Read, *, arms: bool = True) -> list[Entry] | object | None:
        """Return what ``read`` does, or a refusal."""
        return REFUSED if self.is_refusing else self.read(read, arms=arms)

    def read(self, read: Read, *, arms: bool = True) -> list[Entry] | None:
        if arms and self.tracked is not None:
            self.tracked.add(read.merchant_id)
        stream = self.streams.get(read.merchant_id, ModelStream())
        if stream.is_other_type:
            return None
        if read.start is None:
            return stream.entries[-1:]
        found = [
            entry
            for entry in stream.entries
            if entry.id >= read.start and (read.end is None or entry.id <= read.end)
        ]
        return found[: NEW_ENTRIES + 1]


class Listener(Protocol):
    """Receives what the tail finds."""

    def on_armed(self, merchant_id: str, newest: EntryId | None) -> None: ...

    def on_change(self, change: Change) -> None: ...


class ModelFollower:
    """``stream.follow.Follower`` with its connection cut into single steps."""

    def __init__(self, redis: ModelRedis, tail: type[Tail], hub: Listener) -> None:
        self.redis = redis
        self.has_scripts = redis.chance.random() < 0.5
        self.planted_share = redis.chance.choice([0, 0.5, 1])
        self.tail = tail(hub.on_armed, hub.on_change, may_plant=self.may_plant)
        self.sent: deque[tuple[Read, Watch | asyncio.Future[list[Entry] | None]]] = deque()
        self.takers: deque[Watch | asyncio.Future[list[Entry] | None]] = deque()
        self.asked: deque[tuple[Read, asyncio.Future[list[Entry] | None]]] = deque()
        self.server_id = 0
        self.is_connected = False

    def watch(self, merchant_id: str) -> None:
        self.tail.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        self.tail.unwatch(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        if not self.is_connected:
            return None
        reply: asyncio.Future[list[Entry] | None] = asyncio.get_running_loop().create_future()
        self.asked.append((Read(merchant_id, start, end), reply))
        entries = await reply
        return None if entries is None else entries_between(start, end, entries)

    def connect(self) -> None:
        self.redis.connect()
        self.is_connected = True
        self.tail.connected(has_history=self.server_id == self.redis.run_id)
        self.server_id = self.redis.run_id

    def cut(self) -> None:
        self.redis.disconnect()
        self.is_connected = False
        waiting = [*self.takers, *(taker for _, taker in self.sent), *(f for _, f in self.asked)]
        self.sent.clear()
        self.takers.clear()
        self.asked.clear()
        for taker in waiting:
            if isinstance(taker, asyncio.Future) and not taker.done():
                taker.set_result(None)

    def send(self, most: int) -> None:
        while self.asked:
            read, reply = self.asked.popleft()
            self.sent.append((read, reply))
        for watch, read in self.tail.reads(most):
            self.sent.append((read, watch))

    def serve_one(self) -> None:
        if self.sent:
            read, taker = self.sent.popleft()
            self.takers.append(taker)
            self.redis.out.append(("reply", self.execute(read)))

    def execute(self, read: Read) -> list[Entry] | object | None:
        if read.is_planting:
            self.redis.plant(read.merchant_id, is_if_missing=self.has_scripts)
        return self.redis.answer(read)

    def may_plant(self, _merchant_id: str) -> bool:
        return self.redis.chance.random() < self.planted_share

    def receive_one(self) -> None:
        if not self.redis.out:
            return
        kind, value = self.redis.take_out()
        if kind == "announcement":
            self.tail.announced(value)
            return
        taker = self.takers.popleft()
        if isinstance(taker, asyncio.Future):
            if not taker.done():
                taker.set_result(None if value is REFUSED else value)
        elif value is REFUSED:
            self.tail.refused(taker)
        else:
            self.take(taker, value)

    def take(self, watch: Watch, entries: list[Entry] | None) -> None:
        if entries is None:
            self.tail.failed(watch)
        else:
            self.tail.answered(watch, entries)


# -- a model of a socket and of uvicorn's side of it


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


# -- pages


@dataclass
class Accepted:
    """A notification that Redis took; the page needs to hear of it."""

    serial: int
    topic: str | None
    by: str | None
    is_lost: bool = False
    """Redis took it, told its ID, and lost it."""
    used_again: str = ""
    """Its ID, if another entry had that before."""


class Page:
    """One browser window: what it has not been told of yet, and its connection."""

    def __init__(self, merchant_id: str, name: str) -> None:
        self.merchant_id = merchant_id
        self.name = name
        self.last_event_id = ""
        self.opened_with = ""
        """The last event ID that the connection was opened with."""
        self.response: TransportStream | None = None
        self.missing: list[Accepted] = [Accepted(-1, None, None)]  # rendered some time ago
        self.cycle: ModelCycle | None = None
        self.task: asyncio.Task[None] | None = None
        self.parser = Parser()
        self.dechunker = Dechunker()
        self.highest: tuple[int, int] = (0, 0)

    def hear(self, most: int) -> None:
        assert self.cycle is not None, "heard only while connected"
        for event in self.parser.feed(self.dechunker.feed(self.cycle.deliver(most))):
            previous, self.last_event_id = self.last_event_id, event.id
            if event.type == "refresh":
                self.refresh(event, has_id=event.id != previous)

    def refresh(self, event: Event, *, has_id: bool) -> None:
        said = json.loads(event.data)
        assert said["merchant_id"] == self.merchant_id, "none hears of another merchant"
        if said.get("reason") == "resync":
            self.highest = (0, 0)  # another history, or none
        elif has_id:
            entry_id = EntryId.parse(event.id)
            assert entry_id >= self.highest, "IDs rise on a connection, but for a resync"
            self.highest = entry_id
        if said.get("by") == self.name and "reason" not in said:
            return  # its own change, which it shows already
        if "data" in said:  # applied as it is, nothing is fetched
            self.missing = [each for each in self.missing if each.serial != said["data"]]
        elif "topic" in said:  # fetched: whatever was accepted until now is seen
            self.missing = [each for each in self.missing if each.topic != said["topic"]]
        else:
            self.missing = []


class Simulation:
    """One run: build, let chance act, come to rest, and see whom nobody told."""

    merchants = ("m1", "m2")

    def __init__(
        self,
        seed: int,
        *,
        tail: type[Tail] = Tail,
        hub: type[Hub[Frame]] = Hub,
        follower: type[ModelFollower] = ModelFollower,
        stream: type[TransportStream] = TransportStream,
    ) -> None:
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.clock.cost_s = self.chance.choice([0, 0, 0.0007, 0.003])
        self.redis = ModelRedis(self.chance)
        self.follower = follower(self.redis, tail, self)
        self.tail = self.follower.tail
        self.hub: Hub[Frame] = hub(
            encode=wire.encode_refreshes,
            encode_expiring=wire.encode_expiring,
            heartbeat=wire.HEARTBEAT,
            pace=CALM,
            revocations=Revocations(3600, 5),
            clock=self.clock,
            chance=self.chance,
        )
        self.hub.source = self.follower
        self.hub_settle = self.hub.settle
        self.hub.settle = self.settle  # type: ignore[method-assign]
        self.stream = stream
        self.event_streams = EventStreams(
            hub=self.hub,
            archive=self.follower,
            heartbeat_s=15,
            retry_ms=100,
            soft_retry_min_ms=100,
            soft_retry_max_ms=100,
            send_timeout_s=1000,
            send_buffer_bytes=4096,
            # Redis in time, or so late that ``ready`` goes first: chance decides.
            arm_timeout_s=self.chance.choice([0, 1000]),
        )
        self.topics = [None, "a", "b", "c"] + (
            [f"t{number}" for number in range(40)] if self.chance.random() < 0.1 else []
        )
        self.pages = [
            Page(merchant_id, f"{merchant_id}-{number}")
            for merchant_id in self.merchants
            for number in range(self.chance.choice([1, 1, 2, 3]))
        ]
        # Enough that one fan-out takes more than one slice.
        self.extras = [
            Page("m1", f"extra-{number}") for number in range(self.chance.choice([0, 0, 0, 40]))
        ]
        self.pages += self.extras
        self.serial = 0
        self.max_entries = self.chance.choice([3, 100, 100])
        self.snapshot: dict[str, ModelStream] = {}
        self.history: list[str] = []

    def on_armed(self, merchant_id: str, newest: EntryId | None) -> None:
        self.hub.armed(merchant_id, newest)

    def on_change(self, change: Change) -> None:
        self.hub.publish(change)

    # -- what can happen

    def notify(self) -> None:
        merchant_id = self.chance.choice(self.merchants)
        for _ in range(self.chance.choice([1, 1, 1, 1, 1, 1, 2, 2, 3, 40])):
            self.notify_once(merchant_id)

    def notify_once(self, merchant_id: str) -> None:
        self.serial += 1
        by = self.chance.choice([None, None, *(page.name for page in self.pages[:3])])
        accepted = Accepted(self.serial, self.chance.choice(self.topics), by)
        data = str(self.serial) if self.chance.random() < 0.7 else None
        notification = Notification(merchant_id, accepted.topic, data, by)
        self.redis.tick()
        if self.redis.xadd(notification, max_entries=self.max_entries) is not None:
            self.accepted(merchant_id, accepted)  # else refused

    def accepted(self, merchant_id: str, accepted: Accepted) -> None:
        for page in self.pages:
            if page.merchant_id == merchant_id and page.name != accepted.by:
                page.missing.append(accepted)

    def use_again(self) -> None:
        """Delete a stream, and give its newest ID again, as within one millisecond."""
        merchant_id = self.chance.choice(self.merchants)
        stream = self.redis.streams.get(merchant_id)
        if stream is None or not stream.entries:
            return
        entry_id = stream.entries[-1].id
        self.redis.delete(merchant_id)
        self.serial += 1
        notification = Notification(merchant_id, data=str(self.serial))
        self.redis.xadd(notification, max_entries=self.max_entries, entry_id=entry_id)
        self.accepted(merchant_id, Accepted(self.serial, None, None, used_again=str(entry_id)))

    def open(self) -> None:
        page = self.chance.choice(self.pages)
        if page.task is None:
            self.connect(page)

    def connect(self, page: Page) -> None:
        page.cycle = ModelCycle(self.chance.choice([50, 400, 10**6]))
        page.parser.reset()
        page.dechunker = Dechunker()
        page.highest = (0, 0)
        page.opened_with = page.last_event_id
        response = self.stream(
            self.event_streams,
            Grant(page.merchant_id),
            page.last_event_id or None,
            cast("Any", page.cycle),
        )
        page.response = response
        call = response({}, cast("Any", page.cycle.receive), cast("Any", page.cycle.send))
        page.task = asyncio.ensure_future(call)

    def settle(self, subscription: Subscription[Frame]) -> EntryId | None:
        """Compare a page's last event ID; and forgive what that ID can't show."""
        newest = self.hub_settle(subscription)
        page = next(page for page in self.pages if page.response is subscription.sink)
        if known := page.opened_with:
            stream = self.redis.streams.get(page.merchant_id, ModelStream())
            if known in [str(entry.id) for entry in stream.entries]:
                # Redis was rolled back, but not past what this page knows: of what was lost after
                # that, while it was away, there is no trace: promise 4 in operations.md.
                page.missing = [each for each in page.missing if not each.is_lost]
            # A last event ID does not tell which of two entries it stands for.
            page.missing = [each for each in page.missing if each.used_again != known]
        return newest

    def leave(self) -> None:
        """Cut a connection: whatever was on its way is lost."""
        page = self.chance.choice(self.pages)
        if page.cycle is not None:
            page.cycle.lose()

    def goodbye(self) -> None:
        subscriptions = [
            subscription
            for merchant in self.hub._merchants.values()
            for subscription in merchant.subscriptions
        ]
        if subscriptions:
            self.hub.end(self.chance.choice(subscriptions), EndReason.CONNECTION_AGE)

    def hear(self) -> None:
        for page in self.pages:
            if page.cycle is not None and not page.cycle.disconnected:
                page.hear(self.chance.choice([0, 10, 100, 10**6]))

    def hear_all(self) -> None:
        for page in self.pages:
            if page.cycle is not None and not page.cycle.disconnected:
                page.hear(10**6)

    def mark_lost(self) -> None:
        for page in self.pages:
            for each in page.missing:
                each.is_lost = True

    def plant(self) -> None:
        """Plant as another process does, which has found no stream a while ago."""
        merchant_id = self.chance.choice(self.merchants)
        is_if_missing = self.chance.random() < 0.5
        self.redis.plant(merchant_id, is_if_missing=is_if_missing)

    def fill_up(self) -> None:
        self.redis.takes_writes = not self.redis.takes_writes

    def sweep(self) -> None:
        self.tail.sweep()

    def trim(self) -> None:
        merchant_id = self.chance.choice(self.merchants)
        is_announced = self.chance.random() < 0.5
        self.redis.trim(merchant_id, self.chance.choice([0, 1, 2, 5]), is_announced=is_announced)

    def delete(self) -> None:
        self.redis.delete(self.chance.choice(self.merchants))

    def flush(self) -> None:
        self.redis.flush()

    def other_type(self) -> None:
        self.redis.set_other_type(self.chance.choice(self.merchants))

    def refuse(self) -> None:
        """Begin to refuse reads, or end it: a right is withdrawn, a script runs."""
        self.redis.is_refusing = not self.redis.is_refusing

    def retry(self) -> None:
        self.tail.retry(self.chance.choice([1, 10]))

    def save(self) -> None:
        self.snapshot = copied(self.redis.streams)

    def restart(self) -> None:
        """Come back with all, nothing, or an older state, and maybe an older clock."""
        self.follower.cut()
        self.redis.run_id += 1
        kind = self.chance.choice(["all", "nothing", "older", "without the newest"])
        if kind != "all":
            self.mark_lost()
            self.redis.epoch += 1
            if kind != "without the newest":
                self.redis.streams = copied(self.snapshot) if kind == "older" else {}
            for stream in self.redis.streams.values() if kind == "without the newest" else ():
                del stream.entries[-1:]
                stream.last = stream.entries[-1].id if stream.entries else NEVER
            if self.chance.random() < 0.5:
                self.redis.time_ms -= 6400

    def cut(self) -> None:
        self.follower.cut()

    def reconnect(self) -> None:
        if not self.follower.is_connected:
            self.follower.connect()

    def send(self) -> None:
        if self.follower.is_connected:
            self.follower.send(self.chance.choice([1, 10]))

    def serve(self) -> None:
        if self.follower.is_connected:
            self.follower.serve_one()

    def receive(self) -> None:
        if self.follower.is_connected:
            self.follower.receive_one()

    def pump(self) -> None:
        """Let Redis be quick: all that is wanted is sent, served and received."""
        for _ in range(3):
            self.send()
            while self.follower.sent:
                self.follower.serve_one()
            while self.redis.out:
                self.follower.receive_one()

    def loop(self) -> None:
        self.clock.run_soon()

    def wait(self) -> None:
        self.clock.advance(self.chance.choice([0.01, 0.05, 0.2, 4]))

    PLUMBING = (
        ("notify", 9),
        ("open", 5),
        ("leave", 2),
        ("goodbye", 0.5),
        ("hear", 8),
        ("reconnect", 4),
        ("send", 7),
        ("serve", 9),
        ("receive", 9),
        ("loop", 5),
        ("wait", 5),
        ("pump", 4),
        ("retry", 3),
    )
    DISASTERS = (
        ("trim", 2),
        ("delete", 1),
        ("plant", 2),
        ("fill_up", 0.3),
        ("sweep", 0.5),
        ("use_again", 2),
        ("flush", 0.5),
        ("other_type", 1),
        ("save", 0.5),
        ("restart", 1),
        ("cut", 1),
        ("refuse", 1),
    )

    # -- a run

    async def run(self, actions: int) -> None:
        # Some runs are calm, so that a history grows long; in some everything breaks.
        roughness = self.chance.choice([0, 0.3, 1, 3])
        weighted = [*self.PLUMBING, *((name, roughness * each) for name, each in self.DISASTERS)]
        names = [name for name, _ in weighted]
        weights = [weight for _, weight in weighted]
        self.follower.connect()
        for page in self.extras:
            self.connect(page)
        for name in self.chance.choices(names, weights, k=actions):
            self.history.append(name)
            getattr(self, name)()
            for _ in range(self.chance.choice([0, 1, 3])):
                await asyncio.sleep(0)
            self.reap()
        await self.rest()
        self.judge()

    def reap(self) -> None:
        for page in self.pages:
            if page.task is not None and page.task.done():
                page.task.result()
                page.task = page.cycle = None

    async def rest(self) -> None:
        """Let everything that is on its way arrive, and everybody come back."""
        for merchant_id in self.merchants:
            stream = self.redis.streams.get(merchant_id)
            if stream is not None and stream.is_other_type:
                self.redis.delete(merchant_id)
        self.redis.is_refusing = False
        self.reconnect()
        for _ in range(14):
            for page in self.pages:
                if page.task is None:
                    self.connect(page)
            for _ in range(6):
                await asyncio.sleep(0)
                self.tail.retry(10)
                self.pump()
            self.clock.advance(0.5)
            self.hear_all()
            for _ in range(3):
                await asyncio.sleep(0)
            self.reap()

    def judge(self) -> None:
        assert not self.redis.out, "at rest, nothing is on its way"
        for page in self.pages:
            assert page.task is not None, f"{page.name} is connected at rest"
            assert not page.missing, f"{page.name} was never told of {page.missing[:3]}"

    async def close(self) -> None:
        for page in self.pages:
            if page.task is not None:
                page.task.cancel()
        tasks = [page.task for page in self.pages if page.task is not None]
        if tasks:
            await asyncio.wait(tasks)
