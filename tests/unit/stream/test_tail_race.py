"""Both sides of the race between reading a stream, adding to it, and comparing with it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason
from sse_push.hub import Hub, Refresh
from sse_push.notification import EntryId, EventId, Notification
from sse_push.stream.tail import Tail
from tests.harness.clock import PACE, ManualClock
from tests.simulation.model import ModelFollower, ModelRedis
from tests.unit.stream.followed import MOST


class Client:
    """What one browser has received, which joined while its merchant's stream was read."""

    def __init__(self) -> None:
        self.received: list[EventId | None] = []

    def offer(self, frame: Sequence[Refresh]) -> bool:
        self.received += [refresh.id for refresh in frame]
        return True

    def end(self, reason: EndReason) -> None:
        raise AssertionError(f"not ended here, got {reason}")


class Race:
    """A model of Redis, the tail, the hub and one joining browser, taken step by step."""

    def __init__(self, *, is_overtaken: bool) -> None:
        self.is_overtaken = is_overtaken
        self.redis = ModelRedis(random.Random(1))
        self.redis.is_ordered = True
        self.clock = ManualClock()
        self.hub: Hub[Sequence[Refresh]] = Hub(
            encode=lambda _, refreshes: refreshes,
            encode_expiring=lambda _: (),
            heartbeat=(),
            pace=PACE,
            revocations=Revocations(3600, 5),
            clock=self.clock,
        )
        self.follower = self.hub.source = ModelFollower(self.redis, Tail, self.hub)
        self.client = Client()
        self.compared: EventId | None = None

    def add(self) -> EntryId | None:
        return self.redis.xadd(Notification("42", "seats"), max_entries=100)

    def subscribe(self) -> None:
        self.subscription = self.hub.subscribe(Grant("42"), self.client)

    def send(self) -> None:
        self.follower.send(MOST)

    def serve(self) -> None:
        while self.follower.sent:
            self.follower.serve_one()

    def overtake(self) -> None:
        """Let an announcement come before the reply, as it may on two connections."""
        if self.is_overtaken:
            self.redis.out.rotate(1)

    def receive(self) -> None:
        while self.redis.out:
            self.follower.receive_one()

    def compare(self) -> None:
        self.compared = self.hub.settle(self.subscription)

    def admit(self) -> None:
        self.hub.admit(self.subscription, ())
        self.hub.drained(self.subscription)

    def rest(self) -> None:
        for _ in range(3):
            self.send()
            self.serve()
            self.receive()
        self.clock.advance(1)

    STEPS = (subscribe, send, serve, overtake, receive, compare, admit, rest)


@pytest.mark.parametrize("is_overtaken", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("moment", range(len(Race.STEPS)))
def test_an_entry_is_either_compared_with_or_delivered_whenever_it_is_added(
    moment: int, *, is_first: bool, is_overtaken: bool
) -> None:
    race = Race(is_overtaken=is_overtaken)
    race.follower.connect()
    if not is_first:
        race.add()

    for step in Race.STEPS[:moment]:
        step(race)
    added = race.add()
    for step in Race.STEPS[moment:]:
        step(race)

    known = [each and each.entry_id for each in [race.compared, *race.client.received]]
    assert known.count(added) == 1
    assert known[-1] == added
