"""Two merchants, several browsers and a Redis, in one process, in any order of events.

The code under test is the real one, from ``Tail`` to the bytes of ``TransportStream``. What stands
around it is a model: of Redis and the connection to it (``model``), of sockets that take and lose
bytes and of pages that know what they do not show yet (``browsers``). Chance decides what happens
next; a seed makes it the same again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Sequence
from typing import Any, Protocol, cast

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason
from sse_push.event_stream import EventStreams, Gaps, Listening, resume, wire
from sse_push.event_stream.resume import Archive
from sse_push.event_stream.transport import TransportStream
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Subscription
from sse_push.hub.state import Source
from sse_push.notification import EntryId, EventId, Notification
from sse_push.stream.histories import history_of
from sse_push.stream.tail import Tail
from tests.harness.chunks import Dechunker
from tests.harness.clock import PACE, ManualClock
from tests.harness.keys import KEYS
from tests.simulation.browsers import Accepted, ModelCycle, Page, WidePage
from tests.simulation.model import NEVER, ModelFollower, ModelRedis, ModelStream, copied

CALM = dataclasses.replace(PACE, send_timeout_s=1000, max_connection_age_s=100_000, drain_s=1)
"""No connection ends by itself while a history runs."""


def stream_of(subscription: Subscription[Frame]) -> TransportStream:
    """Return the response, also of a page whose IDs are named on the way to it."""
    return cast("TransportStream", getattr(subscription.sink, "_sink", subscription.sink))


class Following(Source, Archive, Protocol):
    """What follows Redis, as the hub and the responses know it."""


class Simulation:
    """One run: build, let chance act, come to rest, and see which page shows old data."""

    merchants = ("m1", "m2")
    redis_type: type[ModelRedis] = ModelRedis

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
        self.redis = self.redis_type(self.chance)
        self.hub: Hub[Frame] = hub(
            encode=wire.encode_refreshes,
            encode_expiring=wire.encode_expiring,
            heartbeat=wire.HEARTBEAT,
            pace=CALM,
            revocations=Revocations(3600, 5),
            clock=self.clock,
            chance=self.chance,
        )
        self.planted_share = self.chance.choice([0, 0.5, 1])
        source = self.hub.source = self.begin(follower, tail)
        self.hub_settle = self.hub.settle
        self.hub.settle = self.settle  # type: ignore[method-assign]
        self.stream = stream
        self.event_streams = EventStreams(
            hub=self.hub,
            gaps=Gaps(source, now=lambda: self.clock.now),
            heartbeat_s=15,
            retry_ms=100,
            soft_retry_min_ms=100,
            soft_retry_max_ms=100,
            send_timeout_s=1000,
            send_buffer_bytes=4096,
            poll_interval_s=10,
            # Redis in time, or so late that ``ready`` goes first: chance decides.
            arm_timeout_s=self.chance.choice([0, 1000]),
        )
        self.topics = [None, "a", "b", "c"] + (
            [f"t{number}" for number in range(40)] if self.chance.random() < 0.1 else []
        )
        self.pages = [
            Page(merchant_id, f"{merchant_id}-{number}", is_named=self.chance.random() < 0.3)
            for merchant_id in self.merchants
            for number in range(self.chance.choice([1, 1, 2, 3]))
        ]
        # Enough that one fan-out takes more than one slice.
        self.extras = [
            Page("m1", f"extra-{number}") for number in range(self.chance.choice([0, 0, 0, 40]))
        ]
        self.pages += self.extras
        # By a chance of their own: the other histories stay what they were.
        wide = random.Random(seed + 0.5)
        if wide.random() < 0.3:
            self.pages.append(WidePage(self.merchants, "wide", is_bare=wide.random() < 0.5))
        self.serial = 0
        self.max_entries = self.chance.choice([3, 100, 100])
        self.snapshot: dict[str, ModelStream] = {}
        self.history: list[str] = []

    def begin(self, follower: type[ModelFollower], tail: type[Tail]) -> Following:
        """Begin to follow Redis; return what the hub and the responses ask."""
        self.follower = follower(self.redis, tail, self.hub, self.may_plant)
        self.tail = self.follower.tail
        return self.follower

    @property
    def servers(self) -> Sequence[ModelRedis]:
        """All servers."""
        return (self.redis,)

    def may_plant(self, _merchant_id: str) -> bool:
        return self.chance.random() < self.planted_share

    # -- what can happen

    def notify(self) -> None:
        merchant_id = self.chance.choice(self.merchants)
        for _ in range(self.chance.choice([1, 1, 1, 1, 1, 1, 2, 2, 3, 40])):
            self.notify_once(merchant_id)

    def notify_twins(self) -> None:
        """Notify both merchants in one millisecond: their entries have the same ID."""
        for merchant_id in self.merchants:
            self.notify_once(merchant_id, is_twin=merchant_id != self.merchants[0])

    def notify_once(self, merchant_id: str, *, is_twin: bool = False) -> None:
        self.serial += 1
        by = self.chance.choice([None, None, *(page.name for page in self.pages[:3])])
        accepted = Accepted(self.serial, self.chance.choice(self.topics), by)
        data = str(self.serial) if self.chance.random() < 0.7 else None
        notification = Notification(merchant_id, accepted.topic, data, by)
        if not is_twin:
            self.redis.tick()
        if self.add(notification) is not None:
            self.accepted(merchant_id, accepted)  # else refused

    def add(self, notification: Notification) -> EntryId | None:
        return self.redis.xadd(notification, max_entries=self.max_entries)

    def accepted(self, merchant_id: str, accepted: Accepted) -> None:
        for page in self.pages:
            page.accepted(merchant_id, accepted)

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
        event_id = EventId(entry_id, history_of(self.redis.server_id, KEYS.prefix))
        self.accepted(merchant_id, Accepted(self.serial, None, None, used_again=str(event_id)))

    def open(self) -> None:
        page = self.chance.choice(self.pages)
        if page.task is None:
            self.connect(page)

    def connect(self, page: Page) -> None:
        page.cycle = ModelCycle(self.chance.choice([50, 400, 10**6]))
        page.parser.reset()
        page.dechunker = Dechunker()
        page.highest = {}
        positions = {
            each: resume.position_of(each, page.places, is_named=page.is_named)
            for each in page.merchants
        }
        page.opened_with = positions
        grants = tuple(map(Grant, positions))
        listening = Listening(grants, tuple(positions.values()), page.is_named)
        response = self.stream(self.event_streams, listening, cast("Any", page.cycle))
        page.response = response
        call = response({}, cast("Any", page.cycle.receive), cast("Any", page.cycle.send))
        page.task = asyncio.ensure_future(call)

    def settle(self, subscription: Subscription[Frame]) -> EventId | None:
        """Compare a page's last event ID; and forgive what that ID can't show."""
        newest = self.hub_settle(subscription)
        response = stream_of(subscription)
        page = next(page for page in self.pages if page.response is response)
        merchant_id = subscription.merchant.id
        if known := page.opened_with[merchant_id]:
            # A last event ID does not tell which of two entries it stands for.
            missing = page.missing_of[merchant_id]
            page.missing_of[merchant_id] = [each for each in missing if each.used_again != known]
        return newest

    def leave(self) -> None:
        """Cut a page's connection, maybe within an event; the bytes on their way are lost."""
        page = self.chance.choice(self.pages)
        if page.cycle is not None and not page.cycle.disconnected:
            page.receive(self.chance.choice([0, 0, 10, 100, 200]))
            page.cycle.lose()

    def switch(self) -> None:
        """Change the cookie of a page: it comes back to another merchant, maybe the first one."""
        page = self.chance.choice(self.pages)
        if not page.is_named or len(page.merchants) > 1:
            return
        if self.chance.random() < 0.3:
            self.notify_twins()
            self.pump()
            self.clock.advance(0.2)
            self.deliver_all()
        if page.cycle is not None:
            page.cycle.lose()
        page.become(self.chance.choice(self.merchants))

    def goodbye(self) -> None:
        subscriptions = [
            subscription
            for merchant in self.hub._merchants.values()
            for subscription in merchant.subscriptions
        ]
        if subscriptions:
            self.hub.end(self.chance.choice(subscriptions), EndReason.CONNECTION_AGE)

    def deliver(self) -> None:
        for page in self.pages:
            if page.cycle is not None and not page.cycle.disconnected:
                page.receive(self.chance.choice([0, 10, 100, 10**6]))

    def deliver_all(self) -> None:
        for page in self.pages:
            if page.cycle is not None and not page.cycle.disconnected:
                page.receive(10**6)

    def plant(self) -> None:
        """Plant as another process does, which has found no stream a while ago.

        A notification may have come first since.
        """
        missing = [each for each in self.merchants if each not in self.redis.streams]
        merchant_id = self.chance.choice(missing or self.merchants)
        if self.chance.random() < 0.5:
            self.notify_once(merchant_id)
        is_if_missing = self.chance.random() < 0.5
        self.redis.plant(merchant_id, is_if_missing=is_if_missing)

    def fill_up(self) -> None:
        self.redis.takes_writes = not self.redis.takes_writes

    def sweep(self) -> None:
        self.tail.turns.sweep()

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

    def grow(self) -> None:
        """Add an entry that is too large."""
        merchant_id = self.chance.choice(self.merchants)
        self.redis.large.add(merchant_id)
        self.notify_once(merchant_id)

    def shrink(self) -> None:
        """Delete the entries that are too large."""
        merchant_id = self.chance.choice(self.merchants)
        if merchant_id in self.redis.large:
            self.redis.large.remove(merchant_id)
            self.redis.changed(merchant_id)

    def read_aside(self) -> None:
        if self.follower.is_connected:
            self.follower.read_aside()

    def refuse(self) -> None:
        """Begin to refuse reads, or end it: a right is withdrawn, a script runs."""
        self.redis.is_refusing = not self.redis.is_refusing

    def retry(self) -> None:
        self.tail.turns.retry(self.chance.choice([1, 10]))

    def forget(self) -> None:
        """Redis tracks too many keys: it forgets one, and announces it. Often several times."""
        merchant_id = self.chance.choice(self.merchants)
        for _ in range(self.chance.choice([1, 6])):
            self.redis.changed(merchant_id)
            self.pump()

    def collect(self) -> None:
        self.tail.turns.collect()

    def save(self) -> None:
        self.snapshot = copied(self.redis.streams)

    def restart(self) -> None:
        """Restart Redis with all entries, some or none of them; maybe with an older clock.

        Often the outage takes the pages with it, which come back after the follower has.
        """
        self.follower.cut()
        if self.chance.random() < 0.3:
            for page in self.pages:
                if page.cycle is not None:
                    page.cycle.lose()
        self.redis.run_id += 1
        kind = self.chance.choice(["all", "nothing", "older", *["without the newest"] * 3])
        if kind != "all":
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
        """Let Redis be quick: all reads that are due are sent, served and received."""
        for _ in range(3):
            self.send()
            while self.follower.sent:
                self.follower.serve_one()
            while self.redis.out:
                self.follower.receive_one()
            while self.follower.aside:
                self.follower.read_aside()

    def loop(self) -> None:
        self.clock.run_soon()

    def wait(self) -> None:
        self.clock.advance(self.chance.choice([0.01, 0.05, 0.2, 4]))

    plumbing: tuple[tuple[str, float], ...] = (
        ("notify", 9),
        ("open", 5),
        ("leave", 2),
        ("switch", 2),
        ("goodbye", 0.5),
        ("deliver", 8),
        ("reconnect", 4),
        ("send", 7),
        ("serve", 9),
        ("receive", 9),
        ("loop", 5),
        ("wait", 5),
        ("pump", 4),
        ("retry", 3),
        ("collect", 3),
        ("read_aside", 5),
    )
    disasters: tuple[tuple[str, float], ...] = (
        ("trim", 2),
        ("delete", 2),
        ("plant", 3),
        ("forget", 1),
        ("fill_up", 0.3),
        ("sweep", 0.5),
        ("use_again", 2),
        ("flush", 0.5),
        ("other_type", 1),
        ("grow", 0.7),
        ("shrink", 0.7),
        ("save", 0.5),
        ("restart", 2),
        ("cut", 1),
        ("refuse", 1),
    )

    # -- a run

    async def run(self, actions: int) -> None:
        # Some runs are calm, so that a history grows long; in some everything breaks.
        roughness = self.chance.choice([0, 0.3, 1, 3])
        weighted = [*self.plumbing, *((name, roughness * each) for name, each in self.disasters)]
        names = [name for name, _ in weighted]
        weights = [weight for _, weight in weighted]
        self.follower.connect()
        for page in self.extras:
            self.connect(page)
        for name in self.chance.choices(names, weights, k=actions):
            self.history.append(name)
            self.act(name)
            for _ in range(self.chance.choice([0, 1, 3])):
                await asyncio.sleep(0)
            self.reap()
        await self.rest()
        self.judge()
        if isinstance(self.pages[-1], WidePage):
            await self.come_back()
            self.judge()

    def act(self, name: str) -> None:
        getattr(self, name)()

    def reap(self) -> None:
        for page in self.pages:
            if page.task is not None and page.task.done():
                page.task.result()
                page.task = page.cycle = None

    async def come_back(self) -> None:
        """Cut all pages at once. The wide one is back first: no merchant has been read then."""
        for page in self.pages:
            assert page.cycle is not None, "connected at rest"
            page.cycle.lose()
        for _ in range(8):
            await asyncio.sleep(0)
        self.reap()
        self.connect(self.pages[-1])
        for _ in range(8):  # until its ``ready`` is written, where Redis is late
            await asyncio.sleep(0)
        await self.rest(rounds=3)

    async def rest(self, rounds: int = 14) -> None:
        """Let everything on its way arrive, and every page come back."""
        for server in self.servers:
            server.is_refusing = False
            for merchant_id in self.merchants:
                stream = server.streams.get(merchant_id)
                if stream is not None and stream.is_other_type:
                    server.delete(merchant_id)
        for _ in range(rounds):
            self.look_around()
            for page in self.pages:
                if page.task is None:
                    self.connect(page)
            for _ in range(6):
                await asyncio.sleep(0)
                self.catch_up()
            self.clock.advance(0.5)
            self.deliver_all()
            for _ in range(3):
                await asyncio.sleep(0)
            self.reap()

    def look_around(self) -> None:
        """Look for what no server announces."""

    def catch_up(self) -> None:
        """Read whatever may be read."""
        self.tail.turns.retry(10)
        self.tail.turns.collect()
        self.reconnect()
        self.pump()

    def judge(self) -> None:
        assert not self.redis.out, "at rest, nothing is on its way"
        for page in self.pages:
            assert page.task is not None, f"{page.name} is connected at rest"
            for each in page.merchants:
                missing = page.missing_of[each]
                assert not missing, f"{page.name} was never refreshed after {missing[:3]} of {each}"
            assert not (isinstance(page, WidePage) and page.waits_for), (
                "all that is pending is told"
            )

    async def close(self) -> None:
        for page in self.pages:
            if page.task is not None:
                page.task.cancel()
        tasks = [page.task for page in self.pages if page.task is not None]
        if tasks:
            await asyncio.wait(tasks)
