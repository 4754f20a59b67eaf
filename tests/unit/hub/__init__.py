"""A hub with a manual clock, a source and clients, for the tests of its modules."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Sequence

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason
from sse_push.hub import Hub, Pace, Refresh, Subscription
from sse_push.notification import Change, Entry, EntryId, EventId, Notification
from tests.harness.clock import PACE, ManualClock, WatchList
from tests.harness.ids import HISTORY, at

Frame = tuple[Refresh, ...]

HEARTBEAT: Frame = ()
HEARTBEAT_S = PACE.heartbeat_s
INTERVAL_S = PACE.refresh_interval_s
SEND_TIMEOUT_S = PACE.send_timeout_s
AGE_S = PACE.max_connection_age_s
DRAIN_S = PACE.drain_s
PATIENT = dataclasses.replace(PACE, send_timeout_s=300, max_connection_age_s=200)
TICK_S = HEARTBEAT_S / 60
AFTER_INTERVAL_S = INTERVAL_S + 0.001
KEEP_S = 500.0


class Client:
    """A sink with its subscription: what was written, when, and how it ended."""

    subscription: Subscription[Frame]

    def __init__(self, service: Service, cost_s: float) -> None:
        self.service = service
        self.cost_s = cost_s
        self.is_taking = True
        self.frames: list[tuple[float, Frame]] = []
        self.refused = 0
        self.ends: list[tuple[float, EndReason]] = []
        self.connections_at_end: list[int] = []

    def offer(self, frame: Frame) -> bool:
        assert not self.ends, "no frame is offered to a client that was ended"
        self.service.clock.now += self.cost_s
        if not self.is_taking:
            self.refused += 1
            return False
        self.frames.append((self.service.clock.now, frame))
        return True

    def end(self, reason: EndReason) -> None:
        self.ends.append((self.service.clock.now, reason))
        self.connections_at_end.append(len(self.service.hub))

    def drained(self) -> None:
        self.is_taking = True
        self.service.hub.drained(self.subscription)

    @property
    def refreshes(self) -> list[Refresh]:
        return [refresh for _, frame in self.frames for refresh in frame]

    @property
    def ids(self) -> list[int]:
        return [refresh.id.entry_id.ms for refresh in self.refreshes if refresh.id is not None]

    @property
    def refreshed_at(self) -> list[float]:
        return [at for at, frame in self.frames if frame]

    @property
    def heartbeats_at(self) -> list[float]:
        return [at for at, frame in self.frames if not frame]


class Service:
    """A hub with its clock, its source and its clients."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.clock = ManualClock()
        self.source = WatchList()
        self.encoded = 0
        self.revocations = Revocations(KEEP_S, 5, lambda: self.clock.now)
        self.hub: Hub[Frame] = Hub(
            encode=self.encode,
            encode_expiring=lambda expires_in_s: (Refresh(-expires_in_s, None),),
            heartbeat=HEARTBEAT,
            pace=pace,
            revocations=self.revocations,
            clock=self.clock,
            wall_clock=lambda: self.clock.now,
            chance=random.Random(7),
        )
        self.hub.source = self.source
        self.entries = itertools.count(1)

    def encode(self, merchant_id: str, refreshes: Sequence[Refresh]) -> Frame:
        assert merchant_id
        self.encoded += 1
        return tuple(refreshes)

    def join(
        self, merchant_id: str = "42", *, cost_s: float = 0, expires_in_s: float | None = None
    ) -> Client:
        """Subscribe a client, which waits for its merchant to be read."""
        client = Client(self, cost_s)
        expires_at = None if expires_in_s is None else self.clock.now + expires_in_s
        client.subscription = self.hub.subscribe(Grant(merchant_id, expires_at), client)
        return client

    def compare(self, client: Client) -> EventId | None:
        if not client.subscription.merchant.is_armed:
            self.hub.armed(client.subscription.merchant.id, None)
        return self.hub.settle(client.subscription)

    def open(
        self, merchant_id: str = "42", *, cost_s: float = 0, expires_in_s: float | None = None
    ) -> Client:
        """Subscribe a client, and admit it with nothing owed."""
        client = self.join(merchant_id, cost_s=cost_s, expires_in_s=expires_in_s)
        self.compare(client)
        self.hub.admit(client.subscription, ())
        return client

    def change(
        self,
        *topics: str | None,
        merchant_id: str = "42",
        data: str | None = None,
        by: str | None = None,
    ) -> None:
        """Publish one entry per topic; IDs count the entries since the start."""
        entries = tuple(
            Entry(EntryId(next(self.entries), 0), Notification(merchant_id, topic, data, by))
            for topic in topics
        )
        self.hub.publish(Change(merchant_id, entries[-1].id, entries), HISTORY)

    def resync(self, merchant_id: str = "42", newest: EventId | None = None) -> None:
        newest_id = None if newest is None else newest.entry_id
        self.hub.publish(Change(merchant_id, newest_id, is_resync=True), HISTORY)


def ids_and_topics(refreshes: Iterable[Refresh]) -> list[tuple[int | None, str | None]]:
    return [
        (each.id.entry_id.ms if each.id is not None else None, each.topic) for each in refreshes
    ]


def refresh_of(number: int, topic: str | None = None, **fields: str) -> Refresh:
    return Refresh(number, at(number), topic, fields.get("data"), fields.get("by"))
