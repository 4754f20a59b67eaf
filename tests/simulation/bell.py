"""The simulation where Redis announces nothing, and those who add entries publish messages.

``Ringer`` and ``Hearing`` are the real ones. The model is that of two connections, one for reads
and one that is subscribed: what arrives on one says nothing of the order on the other. Three
appenders add entries: two processes, which number their messages, and a backend, which does not.
Redis loses some messages of the processes. Those of a backend are lost only with the subscription,
since nothing but the sweep finds one that Redis loses.
"""

from __future__ import annotations

import random
from collections import deque
from functools import partial

from sse_push.notification import Notification
from sse_push.stream.bell import NOBODY, Hearing, Ringer
from sse_push.stream.keys import probe_merchant
from sse_push.stream.reads import ProbeEntry
from tests.harness.keys import KEYS
from tests.simulation.model import ModelFollower, ModelRedis
from tests.simulation.simulation import Simulation

PROBE = ProbeEntry(probe_merchant("1"))


class BellRedis(ModelRedis):
    """Announces no change, and hands a message on to the connection that is subscribed."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.is_ordered = False
        self.is_subscribed = False

    def disconnect(self) -> None:
        super().disconnect()
        self.is_subscribed = False

    def changed(self, merchant_id: str) -> None:
        pass

    def flush(self) -> None:
        self.streams = {}

    def publish(self, message: str) -> None:
        if self.is_subscribed:
            self.out.append(("announcement", message))


class BellFollower(ModelFollower):
    """Reads begin when the subscription is confirmed, and both connections end together."""

    redis: BellRedis
    hearing_type: type[Hearing] = Hearing
    is_subscribing = False

    def connect(self) -> None:
        """Ask for the subscription; often the answer is there at once."""
        self.is_subscribing = True
        if self.redis.chance.random() < 0.7:
            self.confirmed()

    def confirmed(self) -> None:
        super().connect()
        self.subscribed()

    def subscribed(self) -> None:
        self.is_subscribing = False
        self.redis.is_subscribed = True
        self.hearing = self.hearing_type()

    def cut(self) -> None:
        super().cut()
        self.is_subscribing = False

    def lose_subscription(self) -> None:
        self.cut()

    def unwatch(self, merchant_id: str) -> None:
        self.tail.unwatch(merchant_id)

    def announced(self, message: str | None) -> None:
        assert message is not None, "only tracking announces that all has changed"
        names = self.hearing.heard(message.encode())
        if names is None:
            self.tail.announced(None)
        for name in names or ():
            self.tail.announced(name)


class Process:
    """An appender that numbers its messages."""

    def __init__(self) -> None:
        self.ringer = Ringer(KEYS.bell, rings=True)

    def message(self, record: Notification | ProbeEntry) -> str:
        ((_, _, message),) = self.ringer.commands([record])
        return str(message)

    def lost(self) -> None:
        """Redis has not received, or has not handed on, the last message."""


class BellSimulation(Simulation):
    """One run in which changes are heard by messages."""

    redis: BellRedis
    follower: BellFollower
    redis_type = BellRedis
    process_type = Process
    disasters = (*Simulation.disasters, ("lose_subscription", 1))
    plumbing = (*Simulation.plumbing, ("probe", 2), ("arrive_late", 2))

    def __init__(self, seed: int, *, follower: type[BellFollower] = BellFollower) -> None:
        super().__init__(seed, follower=follower)
        self.processes = [self.process_type(), self.process_type()]
        self.writers = self.processes if self.chance.random() < 0.7 else []
        """Those that add before the run comes to rest: else their first messages are numbers 1."""
        self.lost_share = self.chance.choice([0, 0.1, 0.7])
        self.late: deque[tuple[str, str]] = deque()
        """Notifications that were sent on a connection which their process has given up."""

    def notify_once(self, merchant_id: str, *, is_twin: bool = False) -> None:
        appender = self.chance.choice([*self.writers, None])
        if appender is None:
            self.carry_out(merchant_id, f"{NOBODY} 0 {merchant_id}", is_twin=is_twin)
            return
        message = appender.message(Notification(merchant_id))
        if self.chance.random() < 0.1:
            self.late.append((merchant_id, message))
            return
        is_lost = self.chance.random() < self.lost_share
        if is_lost:
            appender.lost()
        self.carry_out(merchant_id, message, is_twin=is_twin, is_lost=is_lost)

    def carry_out(
        self, merchant_id: str, message: str, *, is_twin: bool = False, is_lost: bool = False
    ) -> None:
        """Carry out XADD and PUBLISH; commands of others may come between."""
        adds = partial(super().notify_once, merchant_id, is_twin=is_twin)
        first, then = self.in_order(adds, partial(self.publish, message, is_lost=is_lost))
        first()
        if self.chance.random() < 0.3:
            self.pump()
        then()

    def in_order(
        self, adds: partial[None], publishes: partial[None]
    ) -> tuple[partial[None], partial[None]]:
        return adds, publishes

    def publish(self, message: str, *, is_lost: bool = False) -> None:
        if not is_lost:
            self.redis.publish(message)

    def use_again(self) -> None:
        """Delete a stream, and give its newest ID again, as a backend that publishes it."""
        super().use_again()
        self.publish(f"{NOBODY} 0 {' '.join(self.merchants)}")

    def probe(self) -> None:
        """Let each process add its probe."""
        for process in self.writers:
            self.publish(process.message(PROBE))

    def arrive_late(self) -> None:
        if self.late:
            self.carry_out(*self.late.popleft())

    def lose_subscription(self) -> None:
        if self.follower.is_connected:
            self.follower.lose_subscription()

    def reconnect(self) -> None:
        if self.follower.is_subscribing:
            self.follower.confirmed()
        else:
            super().reconnect()

    async def rest(self, rounds: int = 14) -> None:
        """Let each process add one more probe, which shows what was lost."""
        while self.late:
            self.arrive_late()
        for _ in range(2):
            self.reconnect()
        for process in self.processes:
            self.publish(process.message(PROBE))
        await super().rest(rounds)
