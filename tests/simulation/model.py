"""A model of Redis, and of the follower's connection to it, in single steps.

``test_model`` holds the model of Redis against a real one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sse_push.notification import Entry, EntryId, Notification
from sse_push.stream.histories import NamesHistory
from sse_push.stream.leftovers import Leftovers
from sse_push.stream.listener import Listener
from sse_push.stream.reads import NEW_ENTRIES, Read, entries_between
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Watch
from tests.harness.keys import KEYS

REFUSED = object()
"""An error reply that says nothing of the stream."""

TOO_LARGE = object()
"""A reply that can't be read to its end."""

ARMED = object()
"""The reply to a read that returns no entry."""

NEVER = EntryId(0, 0)

Recipient = Watch | asyncio.Future[list[Entry] | None]
"""What waits for the reply to a read."""


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
        self.planted = 0
        self.takes_writes = True
        """False: nothing is planted. Notifications are, so that there is something to tell."""
        self.run_id = 1
        self.has_name = chance.random() < 0.3
        """Its runs have IDs."""
        self.is_refusing = False
        self.large: set[str] = set()
        """Merchants with an entry that is too large."""

    @property
    def server_id(self) -> bytes:
        return b"run_id:%d" % self.run_id if self.has_name else b""

    def tick(self) -> None:
        """Let time pass."""
        self.time_ms += 64

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

    def forget(self, merchant_id: str) -> None:
        """Forget that a key is tracked, if its stream is missing, and announce that."""
        if merchant_id not in self.streams:
            self.changed(merchant_id)

    def trim(self, merchant_id: str, keep: int, *, is_announced: bool) -> None:
        stream = self.streams.get(merchant_id)
        if stream is not None and len(stream.entries) > keep:
            del stream.entries[: len(stream.entries) - keep]
            if is_announced:
                self.changed(merchant_id)

    def delete(self, merchant_id: str) -> None:
        self.large.discard(merchant_id)
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

    def read(self, read: Read, *, arms: bool = True) -> list[Entry] | object | None:
        if arms and self.tracked is not None:
            self.tracked.add(read.merchant_id)
        stream = self.streams.get(read.merchant_id, ModelStream())
        if stream.is_other_type:
            return None
        if stream.entries and read.merchant_id in self.large:
            return TOO_LARGE
        if read.start is None:
            return stream.entries[-1:]
        found = [
            entry
            for entry in stream.entries
            if entry.id >= read.start and (read.end is None or entry.id <= read.end)
        ]
        return found[: NEW_ENTRIES + 1]


class ModelFollower:
    """``stream.follow.Follower`` with its connection cut into single steps."""

    def __init__(
        self,
        redis: ModelRedis,
        tail: type[Tail],
        listener: Listener,
        may_plant: Callable[[str], bool] = lambda _merchant_id: False,
    ) -> None:
        self.redis = redis
        self.history = NamesHistory(listener, KEYS.prefix)
        self.tail = tail(self.history.armed, self.history.publish, may_plant=may_plant)
        self.has_scripts = redis.chance.random() < 0.5
        self.leftovers = Leftovers(redis.chance.choice([0, 0, 1]))
        self.sent: deque[tuple[Read, Recipient | None]] = deque()
        """Without a recipient it is no read, but the wish that its key is forgotten."""
        self.recipients: deque[tuple[Read, Recipient]] = deque()
        self.apart: set[str] = set()
        """Merchants whose streams are only armed on the tracked connection."""
        self.aside: deque[tuple[Read, Watch]] = deque()
        """Reads that go over a connection of their own, now that the key is armed."""
        self.asked: deque[tuple[Read, asyncio.Future[list[Entry] | None]]] = deque()
        self.is_connected = False

    def watch(self, merchant_id: str) -> None:
        self.leftovers.discard(merchant_id)
        self.tail.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        if self.tail.unwatch(merchant_id).held is None:
            self.leftovers.left(merchant_id)

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        if not self.is_connected or merchant_id in self.apart:
            return None
        reply: asyncio.Future[list[Entry] | None] = asyncio.get_running_loop().create_future()
        self.asked.append((Read(merchant_id, start, end), reply))
        entries = await reply
        return None if entries is None else entries_between(start, end, entries)

    def connect(self) -> None:
        self.redis.connect()
        self.is_connected = True
        is_continued = self.history.connected(self.redis.server_id)
        if not is_continued:
            self.leftovers.clear()
        self.tail.connected(has_history=is_continued)

    def cut(self) -> None:
        self.redis.disconnect()
        self.is_connected = False
        on_their_way = [*self.recipients, *self.sent]
        self.apart |= {
            read.merchant_id for read, _ in on_their_way if self.redis.chance.random() < 0.5
        }
        waiting = [each for _, each in (*on_their_way, *self.asked)]
        self.aside.clear()
        self.sent.clear()
        self.recipients.clear()
        self.asked.clear()
        for recipient in waiting:
            if isinstance(recipient, asyncio.Future) and not recipient.done():
                recipient.set_result(None)

    def send(self, most: int) -> None:
        for merchant_id in self.leftovers.take(most):
            self.sent.append((Read(merchant_id), None))
        while self.asked:
            read, reply = self.asked.popleft()
            self.sent.append((read, reply))
        for watch, read in self.tail.reads(most):
            self.sent.append((read, watch))

    def serve_one(self) -> None:
        if self.sent:
            read, recipient = self.sent.popleft()
            if recipient is None:
                self.redis.forget(read.merchant_id)
                return
            self.recipients.append((read, recipient))
            self.redis.out.append(("reply", self.execute(read)))

    def execute(self, read: Read) -> list[Entry] | object | None:
        if read.is_planting:
            self.redis.plant(read.merchant_id, is_if_missing=self.has_scripts)
        is_apart = read.end is None and read.merchant_id in self.apart
        return self.arm(read) if is_apart else self.redis.answer(read)

    def arm(self, read: Read) -> object | None:
        answer = self.redis.answer(read)
        return ARMED if isinstance(answer, list) else ARMED if answer is TOO_LARGE else answer

    def read_aside(self) -> None:
        if not self.aside:
            return
        read, watch = self.aside.popleft()
        value = self.redis.answer(read, arms=False)
        if value is not TOO_LARGE and self.redis.chance.random() < 0.5:
            self.apart.discard(read.merchant_id)
        self.reply(watch, value)

    def receive_one(self) -> None:
        if not self.redis.out:
            return
        kind, value = self.redis.take_out()
        if kind == "announcement":
            self.announced(value)
            return
        read, recipient = self.recipients.popleft()
        if value is TOO_LARGE:
            # On the connection that all share: the rest of the reply is in the way of the others.
            self.cut()
            self.apart.add(read.merchant_id)
            if isinstance(recipient, asyncio.Future) and not recipient.done():
                recipient.set_result(None)
        elif isinstance(recipient, asyncio.Future):
            if not recipient.done():
                recipient.set_result(value if isinstance(value, list) else None)
        elif value is ARMED:
            self.aside.append((read, recipient))
        else:
            self.reply(recipient, value)

    def announced(self, merchant_id: str | None) -> None:
        if merchant_id is None:
            self.leftovers.clear()
        else:
            self.leftovers.discard(merchant_id)
        self.tail.announced(merchant_id)

    def reply(self, watch: Watch, value: Any) -> None:
        if value is REFUSED:
            self.tail.refused(watch)
        elif value is TOO_LARGE:
            self.tail.failed(watch, "too_large")
        else:
            self.process(watch, value)

    def process(self, watch: Watch, entries: list[Entry] | None) -> None:
        if entries is None:
            self.tail.failed(watch)
        else:
            self.tail.answered(watch, entries)
