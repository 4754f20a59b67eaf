from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.errors import EndReason, Occasion, Unauthorized
from sse_push.hub.hub import Hub, Pace, Subscription
from sse_push.hub.refresh import Refresh
from sse_push.notification import Change, Entry, EntryId, Notification
from tests.harness.clock import PACE, ManualClock, WatchList

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
        assert not self.ends, "nothing is offered to a client that was ended"
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
        return [refresh.id.ms for refresh in self.refreshes if refresh.id is not None]

    @property
    def refreshed_at(self) -> list[float]:
        return [at for at, frame in self.frames if frame]

    @property
    def heartbeats_at(self) -> list[float]:
        return [at for at, frame in self.frames if not frame]


class Service:
    """A hub with its clock and its source, and the clients that come to it."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.clock = ManualClock()
        self.source = WatchList()
        self.encoded = 0
        self.revocations = Revocations(KEEP_S, 5, lambda: self.clock.now)
        self.hub: Hub[Frame] = Hub(
            self.source,
            self.encode,
            HEARTBEAT,
            pace,
            self.clock,
            encode_expiring=lambda expires_in_s: (Refresh(-expires_in_s, None),),
            chance=random.Random(7),
            revocations=self.revocations,
            wall_clock=lambda: self.clock.now,
        )
        self.entries = itertools.count(1)

    def encode(self, merchant_id: str, refreshes: Sequence[Refresh]) -> Frame:
        assert merchant_id
        self.encoded += 1
        return tuple(refreshes)

    def join(
        self, merchant_id: str = "42", *, cost_s: float = 0, expires_in_s: float | None = None
    ) -> Client:
        """Come, and wait for the stream to be read."""
        client = Client(self, cost_s)
        expires_at = None if expires_in_s is None else self.clock.now + expires_in_s
        client.subscription = self.hub.subscribe(Grant(merchant_id, expires_at), client)
        return client

    def compare(self, client: Client) -> EntryId | None:
        if not client.subscription.merchant.is_armed:
            self.hub.armed(client.subscription.merchant.id, None)
        return self.hub.position(client.subscription)

    def open(
        self, merchant_id: str = "42", *, cost_s: float = 0, expires_in_s: float | None = None
    ) -> Client:
        """Come, compare, be owed nothing, and go live."""
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
        """Let Redis tell of one entry per topic; its ID is its number since the start."""
        entries = tuple(
            Entry(EntryId(next(self.entries), 0), Notification(merchant_id, topic, data, by))
            for topic in topics
        )
        self.hub.publish(Change(merchant_id, entries[-1].id, entries))

    def resync(self, merchant_id: str = "42", newest: EntryId | None = None) -> None:
        self.hub.publish(Change(merchant_id, newest, is_resync=True))


@pytest.fixture
def service() -> Service:
    return Service()


def told(refreshes: Iterable[Refresh]) -> list[tuple[int | None, str | None]]:
    return [(each.id.ms if each.id is not None else None, each.topic) for each in refreshes]


def refresh_of(number: int, topic: str | None = None, **fields: str) -> Refresh:
    return Refresh(number, EntryId(number, 0), topic, fields.get("data"), fields.get("by"))


# -- coming and going


def test_the_first_client_of_a_merchant_has_it_watched_and_the_last_one_dropped(
    service: Service,
) -> None:
    first = service.join()
    second = service.join()
    other = service.join("43")

    assert service.source.calls == [("watch", "42"), ("watch", "43")]
    assert (len(service.hub), service.hub.merchants) == (3, 2)

    service.hub.unsubscribe(first.subscription)
    service.hub.unsubscribe(other.subscription)
    service.hub.unsubscribe(second.subscription)

    assert service.source.calls[2:] == [("unwatch", "43"), ("unwatch", "42")]
    assert (len(service.hub), service.hub.merchants) == (0, 0)


def test_a_place_is_given_up_once(service: Service) -> None:
    client = service.open()

    assert service.hub.unsubscribe(client.subscription) is True
    assert service.hub.unsubscribe(client.subscription) is False
    assert len(service.hub) == 0
    assert service.source.calls == [("watch", "42"), ("unwatch", "42")]


def test_a_merchant_that_was_dropped_is_watched_again_from_the_beginning(
    service: Service,
) -> None:
    service.hub.unsubscribe(service.open().subscription)

    again = service.join()

    assert service.source.calls == [("watch", "42"), ("unwatch", "42"), ("watch", "42")]
    with pytest.raises(AssertionError, match="compared only with a stream that was read"):
        service.hub.position(again.subscription)
    service.hub.armed("42", EntryId(9, 0))
    assert service.hub.position(again.subscription) == EntryId(9, 0)


def test_a_merchant_is_kept_for_a_client_that_is_still_joining(service: Service) -> None:
    live = service.open()
    joining = service.join()

    service.hub.unsubscribe(live.subscription)
    service.change("a")
    service.compare(joining)
    service.hub.admit(joining.subscription, ())
    service.change("b")
    service.clock.advance(AFTER_INTERVAL_S)

    assert service.source.calls == [("watch", "42")]
    assert told(joining.refreshes) == [(2, "b")]


def test_a_client_hears_when_its_merchant_has_been_read(service: Service) -> None:
    client = service.join()
    calls: list[str] = []
    service.hub.when_armed(client.subscription, lambda: calls.append("first"))

    assert calls == []

    service.hub.armed("42", None)

    assert calls == ["first"]

    late = service.join()
    service.hub.when_armed(late.subscription, lambda: calls.append("at once"))

    assert calls == ["first", "at once"]


def test_all_that_wait_for_a_merchant_hear_once_that_it_has_been_read(service: Service) -> None:
    clients = [service.join() for _ in range(3)]
    calls: list[int] = []
    service.hub.when_armed(clients[0].subscription, lambda: calls.append(0))
    service.hub.when_armed(clients[2].subscription, lambda: calls.append(2))

    service.hub.armed("42", None)
    for client in clients:
        service.hub.unsubscribe(client.subscription)

    assert calls == [0, 2]


def test_a_client_that_ends_before_its_merchant_was_read_waits_no_longer(
    service: Service,
) -> None:
    client = service.join()
    calls: list[str] = []
    service.hub.when_armed(client.subscription, lambda: calls.append("ended"))

    service.hub.end(client.subscription, EndReason.SERVER_STOPPING)

    assert calls == ["ended"]
    assert client.subscription.is_ended


def test_a_client_that_has_ended_waits_for_nothing(service: Service) -> None:
    client = service.join()
    service.hub.unsubscribe(client.subscription)
    calls: list[str] = []

    service.hub.when_armed(client.subscription, lambda: calls.append("ended"))

    assert calls == ["ended"]


# -- comparing and going live


def test_a_client_compares_with_what_was_read(service: Service) -> None:
    first = service.join()
    service.hub.armed("42", EntryId(7, 1))

    assert service.hub.position(first.subscription) == EntryId(7, 1)

    service.change("a")
    service.resync(newest=None)

    assert service.hub.position(service.join().subscription) is None


def test_what_came_before_the_comparison_is_settled_by_it(service: Service) -> None:
    service.open()
    joining = service.join()
    service.change("a")

    assert joining.subscription.pending != {}
    assert service.compare(joining) == EntryId(1, 0)

    service.hub.admit(joining.subscription, ())

    assert service.hub.take(joining.subscription) is None
    assert joining.frames == []


def test_what_is_owed_goes_before_what_came_since(service: Service) -> None:
    joining = service.join()
    service.compare(joining)
    service.change("b", data="1")
    owed = [Refresh(0, EntryId(0, 5), "a", "2", "x", "missed")]

    service.hub.admit(joining.subscription, owed)
    frame = service.hub.take(joining.subscription)

    assert frame == (owed[0], Refresh(1, EntryId(1, 0), "b", "1"))
    assert service.hub.take(joining.subscription) is None
    assert joining.frames == []


def test_what_is_owed_and_what_came_since_are_one_if_they_are_of_one_topic(
    service: Service,
) -> None:
    joining = service.join()
    service.compare(joining)
    service.change("a", data="1", by="x")
    owed = [Refresh(0, EntryId(0, 5), "a", "2", "x", "missed")]

    service.hub.admit(joining.subscription, owed)

    assert service.hub.take(joining.subscription) == (
        Refresh(1, EntryId(1, 0), "a", None, "x", "missed"),
    )


def test_what_is_owed_may_be_offered_instead_of_taken(service: Service) -> None:
    joining = service.join()
    service.compare(joining)
    service.hub.admit(joining.subscription, [Refresh(0, None, reason="connected")])

    service.hub.drained(joining.subscription)

    assert joining.refreshes == [Refresh(0, None, reason="connected")]
    assert service.hub.take(joining.subscription) is None


def test_nothing_is_written_to_a_client_before_it_has_compared(service: Service) -> None:
    service.open()
    joining = service.join()
    service.hub.drained(joining.subscription)

    service.change("a")

    assert joining.frames == []


def test_a_client_that_ended_while_it_compared_does_not_go_live(service: Service) -> None:
    service.open()
    joining = service.join()
    service.compare(joining)
    service.hub.end(joining.subscription, EndReason.CONNECTION_AGE)

    service.hub.admit(joining.subscription, [Refresh(0, None, reason="connected")])
    service.hub.drained(joining.subscription)
    service.change("a")

    assert joining.frames == []
    assert not joining.subscription.is_flowing


def test_a_client_that_came_between_reading_and_writing_gets_it_once(service: Service) -> None:
    watching = service.open()
    service.change("a")
    service.change("b")  # read, and waiting for the pace
    joining = service.join()

    newest = service.compare(joining)
    service.hub.admit(
        joining.subscription, [Refresh(joining.subscription.version, newest, reason="missed")]
    )
    first = service.hub.take(joining.subscription)
    service.clock.advance(AFTER_INTERVAL_S)

    assert first is not None
    assert told(first) == [(2, None)]
    assert joining.frames == []
    assert told(watching.refreshes) == [(1, "a"), (2, "b")]


def test_what_was_read_while_a_client_came_is_settled_although_it_is_written_later(
    service: Service,
) -> None:
    service.open()
    service.change("a")
    joining = service.join()
    service.change("b")  # read, and waiting for the pace

    newest = service.compare(joining)
    service.hub.admit(joining.subscription, ())
    service.clock.advance(AFTER_INTERVAL_S)

    assert newest == EntryId(2, 0)
    assert joining.frames == []


def test_a_client_that_compared_before_it_was_read_gets_it_once(service: Service) -> None:
    service.open()
    joining = service.join()
    service.compare(joining)
    service.change("a")  # written to the other, and kept for this one
    service.hub.admit(joining.subscription, ())

    first = service.hub.take(joining.subscription)
    service.clock.advance(1)

    assert first is not None
    assert told(first) == [(1, "a")]
    assert joining.frames == []


def test_a_client_that_came_between_two_changes_of_one_fan_out_gets_the_newer_one(
    service: Service,
) -> None:
    watching = service.open()
    service.change("first")
    service.change("a")
    joining = service.open()
    service.change("b")

    service.clock.advance(AFTER_INTERVAL_S)

    assert told(watching.refreshes) == [(1, "first"), (2, "a"), (3, "b")]
    assert told(joining.refreshes) == [(3, "b")]


def test_a_client_that_came_between_two_changes_and_takes_nothing_gets_it_later(
    service: Service,
) -> None:
    service.open()
    service.change("first")
    service.change("a")
    joining = service.open()
    joining.is_taking = False
    service.change("b")

    service.clock.advance(AFTER_INTERVAL_S)
    joining.drained()

    assert joining.refused == 1
    assert told(joining.refreshes) == [(3, "b")]


def test_a_client_that_came_during_a_fan_out_is_not_one_of_its_recipients(
    service: Service,
) -> None:
    service.clock.cost_s = 0.003
    waiting = [service.open() for _ in range(40)]
    service.change("a")  # the first slice
    joining = service.open()

    service.clock.run_soon()

    assert sum(len(client.refreshes) for client in waiting) == 40
    assert joining.frames == []


# -- pace


def test_the_first_change_of_a_quiet_merchant_goes_out_at_once(service: Service) -> None:
    clients = [service.open() for _ in range(3)]

    service.change("seats", data='{"seat":"C7"}', by="tab-1")

    assert [client.refreshes for client in clients] == [
        [Refresh(1, EntryId(1, 0), "seats", '{"seat":"C7"}', "tab-1")]
    ] * 3


def test_a_frame_is_encoded_once_however_many_there_are(service: Service) -> None:
    for _ in range(100):
        service.open()

    service.change("a", "b")

    assert service.encoded == 1


def test_nobody_hears_of_another_merchant(service: Service) -> None:
    client, other = service.open("42"), service.open("43")

    service.change("a", merchant_id="42")

    assert len(client.refreshes) == 1
    assert other.frames == []


def test_a_busy_merchant_is_written_to_once_per_interval_and_the_last_change_always(
    service: Service,
) -> None:
    client = service.open()
    began_at = service.clock.now

    for _ in range(100):
        service.change("a")
        service.clock.advance(0.005)
    service.clock.advance(10)

    gaps = [late - early for early, late in itertools.pairwise(client.refreshed_at)]
    assert client.refreshed_at[0] == began_at
    assert min(gaps) >= INTERVAL_S - 1e-6
    assert len(client.refreshes) == 6
    assert client.ids[-1] == 100


def test_a_merchant_that_has_been_quiet_again_is_told_at_once(service: Service) -> None:
    client = service.open()
    service.change("a")
    service.clock.advance(AFTER_INTERVAL_S)

    service.change("b")

    assert client.ids == [1, 2]


def test_changes_that_wait_for_the_pace_go_out_topic_by_topic(service: Service) -> None:
    client = service.open()
    service.change("first")

    service.change("a", data="1")
    service.change("b", "a")
    service.clock.advance(AFTER_INTERVAL_S)

    assert client.refreshes[1:] == [
        Refresh(3, EntryId(3, 0), "b"),
        Refresh(4, EntryId(4, 0), "a"),
    ]


def test_a_change_of_which_no_entry_is_known_has_no_topic(service: Service) -> None:
    client = service.open()

    service.hub.publish(Change("42", EntryId(9, 0)))

    assert client.refreshes == [Refresh(1, EntryId(9, 0))]


def test_fan_outs_that_take_long_are_never_back_to_back(service: Service) -> None:
    clients = [service.open(cost_s=0.25) for _ in range(2)]
    began_at = service.clock.now
    service.change("a")
    service.change("b")
    ended_at = service.clock.now

    service.clock.advance(10)

    assert ended_at - began_at == 0.5
    # As long as it took, it rests.
    assert clients[0].refreshed_at[1] >= ended_at + 0.5
    assert [client.ids for client in clients] == [[1, 2], [1, 2]]


def test_a_long_fan_out_lets_the_loop_breathe(service: Service) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(100)]

    service.change("a")
    reached = [sum(bool(client.frames) for client in clients)]
    while service.clock.soon:
        service.clock.run_soon()
        reached.append(sum(bool(client.frames) for client in clients))

    assert reached == [32, 64, 96, 100]


def test_a_fan_out_that_is_quick_is_written_in_one_go(service: Service) -> None:
    clients = [service.open() for _ in range(1000)]

    service.change("a")

    assert all(client.frames for client in clients)
    assert not service.clock.soon


def test_merchants_that_fan_out_together_take_turns(service: Service) -> None:
    service.clock.cost_s = 0.003
    many = [service.open("many") for _ in range(200)]
    few = service.open("few")

    service.change("a", merchant_id="many")
    service.change("a", merchant_id="few")
    service.clock.run_soon()
    service.clock.run_soon()

    assert len(few.refreshes) == 1
    assert sum(bool(client.frames) for client in many) == 64


def test_a_merchant_has_one_fan_out_at_a_time(service: Service) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(70)]
    service.change("a")
    for _ in range(5):
        service.clock.now += 1  # the pace alone would allow the next
        service.change("b")

    service.clock.advance(10)

    assert all(told(client.refreshes) == [(1, "a"), (6, "b")] for client in clients)


def test_what_changes_during_a_fan_out_follows_as_soon_as_the_pace_allows(
    service: Service,
) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(70)]
    service.change("a")
    began_at = service.clock.now
    service.change("b")
    while service.clock.soon:
        service.clock.run_soon()
    service.clock.cost_s = 0

    service.clock.advance(2 * INTERVAL_S)

    assert all(client.ids == [1, 2] for client in clients)
    assert INTERVAL_S - 0.01 <= clients[0].refreshed_at[1] - began_at <= 2 * INTERVAL_S


def test_a_client_that_leaves_during_a_fan_out_is_passed_over(service: Service) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(70)]
    service.change("a")

    for client in clients[10:60]:
        service.hub.end(client.subscription, EndReason.CONNECTION_AGE)
    service.clock.advance(1)

    assert all(len(client.refreshes) == 1 for client in (*clients[:32], *clients[60:]))
    assert not any(client.frames for client in clients[32:60])


def test_a_merchant_whose_clients_all_leave_during_a_fan_out_is_forgotten(
    service: Service,
) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(70)]
    service.change("a")
    service.change("b")

    for client in clients:
        service.hub.unsubscribe(client.subscription)
    newcomer = service.open()
    service.clock.advance(1)

    assert service.encoded == 1
    assert newcomer.frames == []
    assert (len(service.hub), service.hub.merchants) == (1, 1)


def test_a_merchant_whose_clients_leave_while_a_change_waits_is_forgotten(
    service: Service,
) -> None:
    client = service.open()
    service.change("a")
    service.change("b")

    service.hub.unsubscribe(client.subscription)
    service.clock.advance(10)

    assert service.encoded == 1
    assert service.clock.timers == []


# -- clients that take nothing


def test_a_client_that_takes_nothing_keeps_the_newest_of_each_topic(service: Service) -> None:
    slow, quick = service.open(), service.open()
    slow.is_taking = False

    for topic in ("a", "b", "a"):
        service.change(topic, data="1")
        service.clock.advance(AFTER_INTERVAL_S)
    slow.drained()

    assert slow.refused == 1
    assert slow.frames[0][1] == (
        Refresh(2, EntryId(2, 0), "b", "1"),
        Refresh(3, EntryId(3, 0), "a"),
    )
    assert told(quick.refreshes) == [(1, "a"), (2, "b"), (3, "a")]


def test_a_client_that_drained_is_written_to_again(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    client.drained()
    service.clock.advance(AFTER_INTERVAL_S)

    service.change("b")

    assert client.ids == [1, 2]


def test_a_client_that_drained_and_takes_nothing_again_loses_nothing(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(1)

    service.hub.drained(client.subscription)
    service.change("b")

    assert client.refused == 2  # and not offered what is newer

    client.drained()

    assert client.ids == [1, 2]


def test_a_client_that_drained_and_takes_nothing_again_is_ended_in_the_end(
    service: Service,
) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(SEND_TIMEOUT_S - 1)
    service.hub.drained(client.subscription)
    blocked_at = service.clock.now

    service.clock.advance(60)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.STALLED
    assert SEND_TIMEOUT_S <= ended_at - blocked_at <= SEND_TIMEOUT_S + 2 * TICK_S


def test_a_client_that_drained_with_nothing_waiting_gets_nothing(service: Service) -> None:
    client = service.open()

    service.hub.drained(client.subscription)

    assert client.frames == []


def test_a_client_that_takes_nothing_while_it_joins_goes_live_when_it_drains(
    service: Service,
) -> None:
    client = service.join()
    client.is_taking = False
    service.clock.advance(HEARTBEAT_S)  # refused
    service.compare(client)
    service.hub.admit(client.subscription, [Refresh(0, None, reason="connected")])

    assert client.refused == 1
    assert not client.subscription.is_flowing

    client.drained()

    assert told(client.refreshes) == [(None, None)]


@pytest.mark.parametrize("moment_s", [0, 0.1, TICK_S])
def test_a_client_that_takes_nothing_for_too_long_is_ended(
    service: Service, moment_s: float
) -> None:
    client = service.open()
    client.is_taking = False
    service.clock.advance(moment_s)
    service.change("a")
    blocked_at = service.clock.now

    service.clock.advance(60)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.STALLED
    assert SEND_TIMEOUT_S <= ended_at - blocked_at <= SEND_TIMEOUT_S + 2 * TICK_S
    assert service.hub.merchants == 0


def test_a_client_that_drains_in_time_is_kept(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(SEND_TIMEOUT_S - 1)

    client.drained()
    service.clock.advance(60)

    assert client.ends == []
    assert client.ids == [1]


def test_a_client_that_takes_nothing_again_has_all_its_time_again(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(SEND_TIMEOUT_S - 1)
    client.drained()
    client.is_taking = False
    service.change("b")
    blocked_at = service.clock.now

    service.clock.advance(60)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.STALLED
    assert ended_at - blocked_at >= SEND_TIMEOUT_S


def test_a_client_that_refuses_a_heartbeat_is_ended_after_the_same_time(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    opened_at = service.clock.now

    service.clock.advance(60)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.STALLED
    assert ended_at - opened_at <= HEARTBEAT_S + SEND_TIMEOUT_S + 2 * TICK_S
    assert client.refused == 1


# -- losses in Redis


def test_a_resync_names_no_topic_and_may_have_no_id_or_a_lower_one(service: Service) -> None:
    client = service.open()
    service.change("a")

    for newest in (EntryId(0, 3), None):
        service.clock.advance(AFTER_INTERVAL_S)
        service.resync(newest=newest)

    assert client.refreshes[1:] == [
        Refresh(2, EntryId(0, 3), reason="resync"),
        Refresh(3, None, reason="resync"),
    ]


def test_a_few_resyncs_go_out_at_once(service: Service) -> None:
    clients = [service.open(f"m{number}") for number in range(50)]

    for number in range(50):
        service.resync(f"m{number}")

    assert all(client.refreshes for client in clients)


def test_many_resyncs_are_spread_over_three_seconds(service: Service) -> None:
    clients = [service.open(f"m{number}") for number in range(2000)]
    began_at = service.clock.now

    for number in range(2000):
        service.resync(f"m{number}")
    at_once = sum(bool(client.frames) for client in clients)
    service.clock.advance(3)

    tenths = Counter(math.floor((client.refreshed_at[0] - began_at) * 10) for client in clients)
    assert 90 <= at_once <= 110
    assert max(count for tenth, count in tenths.items() if tenth > 0) <= 120
    assert all(len(client.refreshes) == 1 for client in clients)


def test_resyncs_long_after_each_other_are_not_held_back(service: Service) -> None:
    for number in range(500):
        service.open(f"m{number}")
        service.resync(f"m{number}")
    service.clock.advance(10)
    client = service.open("late")

    service.resync("late")

    assert len(client.refreshes) == 1


def test_a_change_does_not_wait_for_a_resync_that_is_held_back(service: Service) -> None:
    clients = [service.open(f"m{number}") for number in range(1000)]
    for number in range(1000):
        service.resync(f"m{number}")
    last = clients[-1]
    assert last.frames == []

    service.change("a", merchant_id="m999")
    service.clock.advance(10)

    assert last.refreshes == [Refresh(2, EntryId(1, 0), reason="resync")]
    assert last.refreshed_at == [1000.0]


def test_a_resync_that_would_be_held_back_goes_with_a_change_that_is_due_before(
    service: Service,
) -> None:
    client = service.open("m999")
    service.change("a", merchant_id="m999")
    service.change("b", merchant_id="m999")
    for number in range(999):
        service.open(f"m{number}")
        service.resync(f"m{number}")

    service.resync("m999", EntryId(2, 0))
    service.clock.advance(AFTER_INTERVAL_S)

    assert client.refreshes[1:] == [Refresh(3, EntryId(2, 0), reason="resync")]


# -- heartbeats


@pytest.mark.parametrize("moment_s", [0, 0.1])
def test_an_idle_client_is_never_silent_for_longer_than_a_heartbeat(
    service: Service, moment_s: float
) -> None:
    service.clock.advance(moment_s)
    opened_at = service.clock.now
    clients = [service.open() for _ in range(200)]

    service.clock.advance(200)

    for client in clients:
        heard_at = [opened_at, *client.heartbeats_at, service.clock.now]
        gaps = [late - early for early, late in itertools.pairwise(heard_at)]
        assert max(gaps) <= HEARTBEAT_S + 1e-6
        assert min(gaps[:-1]) >= 0.8 * HEARTBEAT_S - 2 * TICK_S
        assert client.refreshes == []


def test_clients_that_came_together_have_their_heartbeats_apart(service: Service) -> None:
    clients = [service.open() for _ in range(200)]

    service.clock.advance(100)

    together = Counter(at for client in clients for at in client.heartbeats_at)
    assert max(together.values()) <= 40


def test_a_client_that_is_written_to_anyway_gets_no_heartbeat(service: Service) -> None:
    busy, idle = service.open("busy"), service.open("idle")

    for _ in range(20):
        service.change("a", merchant_id="busy")
        service.clock.advance(10)

    assert busy.heartbeats_at == []
    assert len(busy.refreshes) == 20
    assert len(idle.heartbeats_at) >= 13


def test_a_heartbeat_follows_the_last_refresh_and_not_the_last_heartbeat(
    service: Service,
) -> None:
    client = service.open()
    service.clock.advance(10)
    service.change("a")
    told_at = service.clock.now

    service.clock.advance(60)

    gap_s = client.heartbeats_at[0] - told_at
    assert 0.8 * HEARTBEAT_S - 2 * TICK_S <= gap_s <= HEARTBEAT_S


def test_the_first_write_counts_for_the_heartbeat(service: Service) -> None:
    client = service.join()
    service.clock.advance(10)
    service.compare(client)
    service.hub.admit(client.subscription, [Refresh(0, None, reason="connected")])
    service.hub.take(client.subscription)
    taken_at = service.clock.now

    service.clock.advance(60)

    gap_s = client.heartbeats_at[0] - taken_at
    assert 0.8 * HEARTBEAT_S - 2 * TICK_S <= gap_s <= HEARTBEAT_S


def test_what_a_client_took_after_it_drained_counts_for_the_heartbeat(service: Service) -> None:
    client = service.open()
    service.clock.advance(5)
    client.is_taking = False
    service.change("a")
    service.clock.advance(8)
    client.drained()
    drained_at = service.clock.now

    service.clock.advance(30)

    assert client.heartbeats_at[0] - drained_at >= 0.8 * HEARTBEAT_S - 2 * TICK_S


def test_a_client_that_waits_for_redis_gets_heartbeats(service: Service) -> None:
    client = service.join()

    service.clock.advance(60)

    assert len(client.heartbeats_at) >= 4


def test_a_client_that_waits_for_redis_gets_heartbeats_while_the_others_are_written_to(
    service: Service,
) -> None:
    service.open()
    joining = service.join()

    for _ in range(30):
        service.change("a")
        service.clock.advance(2)

    assert len(joining.heartbeats_at) >= 4


def test_a_client_that_was_blocked_for_a_moment_gets_its_heartbeats_again() -> None:
    service = Service(PATIENT)
    client = service.open()
    client.is_taking = False
    service.change("a")
    client.drained()
    heard_at = [service.clock.now]

    service.clock.advance(100)

    heard_at += [*client.heartbeats_at, service.clock.now]
    gaps = [late - early for early, late in itertools.pairwise(heard_at)]
    assert max(gaps) <= HEARTBEAT_S


def test_a_client_that_was_blocked_for_a_moment_is_moved_on_at_its_age() -> None:
    service = Service(PATIENT)
    client = service.open()
    service.clock.advance(150)
    client.is_taking = False
    service.change("a")
    client.drained()

    service.clock.advance(100)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]


@pytest.mark.parametrize("is_drained", [True, False])
def test_a_client_that_was_blocked_and_has_left_is_left_alone(
    service: Service, *, is_drained: bool
) -> None:
    client = service.open()
    service.clock.advance(5)
    client.is_taking = False
    service.change("a")
    if is_drained:
        client.drained()
    service.hub.unsubscribe(client.subscription)
    client.is_taking = True

    service.clock.advance(60)

    assert client.heartbeats_at == []
    assert client.refused == 1
    assert service.clock.timers == []


def test_no_timer_runs_once_nobody_is_there(service: Service) -> None:
    clients = [service.open() for _ in range(3)]
    service.clock.advance(30)

    for client in clients:
        service.hub.unsubscribe(client.subscription)
    service.clock.advance(HEARTBEAT_S)

    assert service.clock.timers == []


def test_heartbeats_begin_again_with_the_next_client(service: Service) -> None:
    service.hub.unsubscribe(service.open().subscription)
    service.clock.advance(1000)

    client = service.open()
    opened_at = service.clock.now
    service.clock.advance(HEARTBEAT_S)

    assert len(client.heartbeats_at) == 1
    assert client.heartbeats_at[0] - opened_at >= 0.8 * HEARTBEAT_S - 2 * TICK_S


# -- age


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_connection_is_moved_on_at_its_age_give_or_take_a_fifth(
    service: Service, *, is_busy: bool
) -> None:
    opened_at = service.clock.now
    clients = [service.open() for _ in range(100)]

    while service.hub.merchants:
        if is_busy:
            service.change("a")
        service.clock.advance(5)

    ages = [client.ends[0][0] - opened_at for client in clients]
    assert {client.ends[0][1] for client in clients} == {EndReason.CONNECTION_AGE}
    assert min(ages) >= 0.8 * AGE_S
    assert max(ages) <= 1.2 * AGE_S + 2 * TICK_S
    assert max(ages) - min(ages) > 0.3 * AGE_S


def test_a_connection_that_ends_gives_its_place_up_before_its_last_words(
    service: Service,
) -> None:
    client, _ = service.open(), service.open()

    service.hub.end(client.subscription, EndReason.CONNECTION_AGE)
    service.hub.end(client.subscription, EndReason.STALLED)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]
    assert client.connections_at_end == [1]


# -- draining


def test_draining_ends_everybody(service: Service) -> None:
    clients = [service.open(f"m{number % 7}") for number in range(500)]
    joining = service.join("m0")

    assert not service.hub.is_draining

    service.hub.drain()
    service.clock.advance(DRAIN_S)

    assert service.hub.is_draining
    assert all(
        [reason for _, reason in client.ends] == [EndReason.SERVER_STOPPING]
        for client in (*clients, joining)
    )
    assert (len(service.hub), service.hub.merchants) == (0, 0)


def test_draining_a_few_takes_no_longer_than_it_must(service: Service) -> None:
    clients = [service.open() for _ in range(50)]
    began_at = service.clock.now

    service.hub.drain()
    service.clock.advance(DRAIN_S)

    together = Counter(client.ends[0][0] for client in clients)
    assert max(together) - began_at <= 0.5
    assert set(together.values()) == {5}


def test_draining_many_is_spread_over_its_time(service: Service) -> None:
    clients = [service.open() for _ in range(4000)]
    began_at = service.clock.now

    service.hub.drain()
    service.clock.advance(DRAIN_S / 2)
    half = sum(bool(client.ends) for client in clients)
    service.clock.advance(DRAIN_S / 2)

    together = Counter(client.ends[0][0] for client in clients)
    assert 1950 <= half <= 2050
    assert max(together.values()) <= 10
    assert max(together) - began_at <= DRAIN_S


def test_draining_picks_nobody_by_the_order_of_coming(service: Service) -> None:
    clients = [service.open() for _ in range(1000)]

    service.hub.drain()
    service.clock.advance(5)

    ended = [number for number, client in enumerate(clients) if client.ends]
    assert 400 <= sum(ended) / len(ended) <= 600


def test_a_client_hears_of_every_change_until_its_turn(service: Service) -> None:
    clients = [service.open() for _ in range(100)]
    service.hub.drain()

    for _ in range(5):
        service.change("a")
        service.clock.advance(0.2)
    service.clock.advance(DRAIN_S)

    for client in clients:
        ended_at = client.ends[0][0]
        assert len(client.refreshes) == sum(1000 + 0.2 * number < ended_at for number in range(5))


def test_draining_again_changes_nothing(service: Service) -> None:
    clients = [service.open() for _ in range(50)]
    service.hub.drain()

    service.hub.drain()

    assert sum(bool(client.ends) for client in clients) == 5


def test_draining_without_anybody_is_done_at_once(service: Service) -> None:
    service.hub.drain()

    assert service.hub.is_draining
    assert service.clock.timers == []


def test_draining_in_no_time_ends_all_at_once() -> None:
    service = Service(dataclasses.replace(PACE, drain_s=0))
    clients = [service.open() for _ in range(500)]

    service.hub.drain()

    assert all(client.ends for client in clients)


def test_a_client_that_leaves_before_its_turn_is_not_told_goodbye(service: Service) -> None:
    clients = [service.open() for _ in range(50)]
    service.hub.drain()
    gone = [client for client in clients if not client.ends][:10]

    for client in gone:
        service.hub.unsubscribe(client.subscription)
    service.clock.advance(DRAIN_S)

    assert not any(client.ends for client in gone)
    assert sum(bool(client.ends) for client in clients) == 40


def test_chance_is_our_own_if_none_is_given() -> None:
    clock = ManualClock()
    hub: Hub[Frame] = Hub(WatchList(), lambda _, refreshes: tuple(refreshes), (), PACE, clock)

    assert isinstance(hub._chance, random.Random)
    assert len(hub) == 0


# -- what is counted


def counted(service: Service) -> tuple[int, int, int]:
    tally = service.hub.tally
    return tally.written, tally.merged, tally.skipped


def test_every_connection_is_counted_as_it_comes_and_as_it_goes(service: Service) -> None:
    clients = [service.open() for _ in range(5)]
    service.hub.unsubscribe(clients[0].subscription)
    service.hub.end(clients[1].subscription, EndReason.STALLED)
    service.hub.end(clients[2].subscription, EndReason.CONNECTION_AGE)
    for client in clients:
        service.hub.unsubscribe(client.subscription)  # as each task does in the end
        service.hub.end(client.subscription, EndReason.SERVER_STOPPING)

    assert service.hub.tally.opened == 5
    assert service.hub.tally.closed == dict.fromkeys(EndReason.on(Occasion.END), 0) | {
        EndReason.CLIENT_DISCONNECTED: 3,
        EndReason.STALLED: 1,
        EndReason.CONNECTION_AGE: 1,
    }


def test_refreshes_are_counted_for_each_connection_that_they_are_handed_to(
    service: Service,
) -> None:
    for _ in range(40):
        service.open()
    service.open("another")

    service.change("a")  # at once
    service.change("b")
    service.change("c")
    service.change("b")  # merged before it is written
    service.clock.advance(AFTER_INTERVAL_S)

    assert counted(service) == (40 + 2 * 40, 1, 0)


def test_what_is_left_in_a_slot_is_counted_as_skipped_and_later_as_written(
    service: Service,
) -> None:
    slow, _quick = service.open(), service.open()
    joining = service.join()
    slow.is_taking = False

    service.change("a")
    assert counted(service) == (1, 0, 2)  # the slow one is offered it, the joining one is not

    service.clock.advance(AFTER_INTERVAL_S)
    service.change("a")
    assert counted(service) == (2, 2, 4)  # merged in both slots

    slow.drained()
    assert counted(service) == (3, 2, 4)

    service.hub.admit(joining.subscription, [refresh_of(0, "b"), refresh_of(0, "a")])
    assert counted(service) == (3, 3, 4)

    assert service.hub.take(joining.subscription) is not None
    assert counted(service) == (5, 3, 4)


def test_who_has_left_is_neither_written_to_nor_skipped(service: Service) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(64)]

    service.change("a")  # is written to 32 in its first slice
    service.hub.unsubscribe(clients[-1].subscription)
    service.clock.advance(1)

    assert counted(service) == (63, 0, 0)


def test_who_joined_between_two_changes_of_a_fan_out_is_counted_for_the_later_one(
    service: Service,
) -> None:
    service.open()
    service.change("first")
    service.change("a")
    service.open()
    service.compare(service.join())
    service.change("b")

    service.clock.advance(AFTER_INTERVAL_S)

    assert counted(service) == (1 + 2 + 1, 0, 1)


def test_a_fan_out_tells_its_newest_entry_as_it_begins_once() -> None:
    begun: list[tuple[int, int]] = []
    service = Service()
    clients = [service.open() for _ in range(100)]
    service.hub._on_fan_out = lambda newest: begun.append((newest.ms, len(clients[0].frames)))

    service.change("a")
    service.change("b")
    service.change("c")
    service.clock.advance(AFTER_INTERVAL_S)

    assert begun == [(1, 0), (3, 1)]


@pytest.mark.parametrize("newest", [None, EntryId(3, 0)])
def test_a_loss_of_history_has_no_age(newest: EntryId | None) -> None:
    begun: list[EntryId] = []
    service = Service()
    service.hub._on_fan_out = begun.append
    service.open()

    service.resync(newest=newest)
    service.clock.advance(AFTER_INTERVAL_S)
    service.hub.publish(Change("42", EntryId(9, 0)))  # more than were read one by one

    assert begun == [EntryId(9, 0)]


# -- tokens that expire


def tellings(client: Client) -> list[tuple[float, int]]:
    """Return when a client was told that its token expires, and in how many seconds."""
    return [
        (at, -refresh.version)
        for at, frame in client.frames
        for refresh in frame
        if refresh.version < 0
    ]


def test_a_client_is_told_of_its_tokens_end_and_ended_in_time(service: Service) -> None:
    client, other = service.open(expires_in_s=100), service.open()

    service.clock.advance(100)
    service.change("late")
    service.clock.advance(1)

    ((told_at, said),) = tellings(client)
    ((ended_at, reason),) = client.ends
    assert 1069.5 <= told_at <= 1070
    assert said == 30
    assert 1099.5 <= ended_at <= 1100
    assert reason is EndReason.TOKEN_EXPIRED
    assert client.subscription.grant == ("42", 1100, None, None, None)
    assert "late" not in [refresh.topic for refresh in client.refreshes]
    assert "late" in [refresh.topic for refresh in other.refreshes]
    assert (tellings(other), other.ends) == ([], [])


def test_age_may_end_a_client_before_its_token_does() -> None:
    service = Service(dataclasses.replace(PACE, max_connection_age_s=60))
    client = service.open(expires_in_s=100)

    service.clock.advance(200)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]
    assert service.clock.timers == []


def test_a_client_that_leaves_leaves_no_plan_behind(service: Service) -> None:
    client = service.open(expires_in_s=100)

    service.hub.unsubscribe(client.subscription)
    service.clock.advance(200)

    assert client.subscription.expiry is None
    assert (client.frames, client.ends, service.clock.timers) == ([], [], [])


def test_a_client_that_takes_no_bytes_is_told_when_it_does() -> None:
    service = Service(PATIENT)
    client = service.open(expires_in_s=50)
    service.clock.advance(10)
    client.is_taking = False
    service.clock.advance(20)
    refused = client.refused
    client.drained()
    service.clock.advance(1)

    ((told_at, said),) = tellings(client)
    assert refused <= 2  # it is not asked again and again
    assert 1030 <= told_at <= 1030.5
    assert said == 20


def test_a_client_that_refuses_the_word_of_its_tokens_end_is_blocked(service: Service) -> None:
    client = service.open(expires_in_s=50)
    service.clock.advance(24)
    client.is_taking = False
    service.clock.advance(1)
    assert client.subscription.blocked_at is not None

    service.clock.advance(20)

    assert [reason for _, reason in client.ends] == [EndReason.STALLED]


def test_a_blocked_client_ends_when_its_token_expires(service: Service) -> None:
    client = service.open(expires_in_s=20)
    service.clock.advance(9)
    client.is_taking = False
    service.change("seats")

    service.clock.advance(11)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.TOKEN_EXPIRED
    assert 1019.5 <= ended_at <= 1020


def test_a_client_that_is_joining_ends_when_its_token_expires(service: Service) -> None:
    client = service.join(expires_in_s=5)
    client.is_taking = False

    service.clock.advance(5)

    assert [reason for _, reason in client.ends] == [EndReason.TOKEN_EXPIRED]


def test_a_hub_that_has_no_word_for_it_ends_in_time_all_the_same() -> None:
    clock = ManualClock()
    hub: Hub[Frame] = Hub(
        WatchList(), lambda _, refreshes: tuple(refreshes), (), PACE, clock, wall_clock=clock.time
    )
    client = Client(Service(), 0)
    client.subscription = hub.subscribe(Grant("42", clock.now + 10), client)

    clock.advance(9)
    assert client.ends == []
    clock.advance(1)

    assert [reason for _, reason in client.ends] == [EndReason.TOKEN_EXPIRED]


# -- revocations


def come(service: Service, grant: Grant) -> Client:
    """Come by a token, and go live."""
    client = Client(service, 0)
    client.subscription = service.hub.subscribe(grant, client)
    service.compare(client)
    service.hub.admit(client.subscription, ())
    return client


def by_token(
    merchant_id: str = "42", *, iat: float | None = 900.0, sub: str = "u", jti: str = "t"
) -> Grant:
    return Grant(merchant_id, 2000.0, sub, jti, iat)


def ends(*clients: Client) -> list[list[EndReason]]:
    return [[reason for _, reason in client.ends] for client in clients]


REVOKED = [EndReason.REVOKED]


def test_a_merchant_s_revocation_ends_its_streams_and_no_other_one(service: Service) -> None:
    old, none, new = (come(service, by_token(iat=iat)) for iat in (900.0, None, 999.5))
    other = come(service, by_token("43"))

    service.hub.revoke(Revocation("42"), 999.0)

    assert ends(old, none, new, other) == [REVOKED, REVOKED, [], []]
    assert len(service.hub) == 2


@pytest.mark.parametrize(
    ("revocation", "is_ended"),
    [
        (Revocation("42", "t"), [True, False, False]),
        (Revocation("42", None, "u"), [True, True, False]),
        (Revocation("42", "s", "v"), [False, True, True]),
        (Revocation("43", "t", "u"), [False, False, False]),
    ],
)
def test_a_revocation_of_a_token_or_a_subject_ends_what_has_it(
    service: Service, revocation: Revocation, is_ended: list[bool]
) -> None:
    clients = [
        come(service, by_token(jti="t", sub="u")),
        come(service, by_token(jti="s", sub="u")),
        come(service, by_token(jti="s2", sub="v")),
    ]

    service.hub.revoke(revocation, 1000.0)

    assert ends(*clients) == [REVOKED if each else [] for each in is_ended]


def test_who_comes_after_its_revocation_is_refused_and_leaves_no_trace(service: Service) -> None:
    service.hub.revoke(Revocation("42", "t"), 1000.0)

    with pytest.raises(Unauthorized, match="expected a token that was not revoked") as refusal:
        come(service, by_token())

    assert refusal.value.challenge == 'Bearer error="invalid_token"'
    assert (len(service.hub), service.hub.merchants, service.source.calls) == (0, 0, [])
    come(service, by_token(jti="another"))


def test_who_was_asked_before_and_comes_after_is_refused(service: Service) -> None:
    """A revocation between a first look and the place in the hub is not overlooked."""
    service.hub.refuse_revoked(by_token())
    service.hub.revoke(Revocation("42"), 1000.0)

    with pytest.raises(Unauthorized):
        come(service, by_token())


def test_it_is_remembered_before_a_stream_ends(service: Service) -> None:
    """Whoever comes back at once, from within its end, is refused."""
    came_back: list[bool] = []

    class Eager(Client):
        def end(self, reason: EndReason) -> None:
            super().end(reason)
            with pytest.raises(Unauthorized):
                service.hub.subscribe(by_token(), self)
            came_back.append(False)

    client = Eager(service, 0)
    client.subscription = service.hub.subscribe(by_token(), client)

    service.hub.revoke(Revocation("42"), 1000.0)

    assert came_back == [False]


def test_a_token_that_was_given_after_it_is_let_in_and_stays(service: Service) -> None:
    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.advance(1)
    client = come(service, by_token(iat=1001.0))

    service.hub.revoke(Revocation("42"), 1000.0)  # read again

    assert ends(client) == [[]]


def test_without_a_token_a_merchant_s_streams_end_and_come_back(service: Service) -> None:
    client, other = service.open(), service.open("43")

    service.hub.revoke(Revocation("42"), 1000.0)
    again = service.open()
    service.hub.revoke(Revocation("42"), 1000.0)  # read again

    assert ends(client, other, again) == [REVOKED, [], []]

    service.clock.advance(1)
    service.hub.revoke(Revocation("42"), 1001.0)

    assert ends(other, again) == [[], REVOKED]


def test_a_token_s_revocation_is_nothing_to_who_has_none(service: Service) -> None:
    client = service.open()

    service.hub.revoke(Revocation("42", "t", "u"), 1000.0)

    assert ends(client) == [[]]


def test_who_is_joining_or_blocked_is_ended_too(service: Service) -> None:
    joining = Client(service, 0)
    joining.subscription = service.hub.subscribe(by_token(), joining)
    blocked = come(service, by_token())
    blocked.is_taking = False
    service.change("a")

    service.hub.revoke(Revocation("42"), 1000.0)

    assert ends(joining, blocked) == [REVOKED, REVOKED]


def test_nothing_is_offered_after_it_though_a_fan_out_was_under_way(service: Service) -> None:
    clients = [come(service, by_token()) for _ in range(100)]
    clients[0].cost_s = 0.01  # longer than a slice
    service.change("a")
    assert service.hub._active

    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.run_soon()

    assert ends(*clients) == [REVOKED] * 100
    assert not clients[-1].frames


def test_many_streams_end_in_slices_and_the_loop_goes_on_between(service: Service) -> None:
    clients = [come(service, by_token()) for _ in range(100)]
    gone = clients[50]
    service.clock.cost_s = 0.001

    service.hub.revoke(Revocation("42"), 1000.0)
    first = len(service.hub)
    service.hub.unsubscribe(gone.subscription)
    service.clock.run_soon()
    second = len(service.hub)
    while service.clock.soon:
        service.clock.run_soon()

    assert 100 > first > second > 0
    assert len(service.hub) == 0
    assert [client for client in clients if ends(client) != [REVOKED]] == [gone]


def test_it_is_forgotten_when_no_token_is_left_that_it_covers(service: Service) -> None:
    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.advance(100)
    service.hub.revoke(Revocation("43"), 1100.0)

    service.clock.advance(KEEP_S - 101)
    with pytest.raises(Unauthorized):
        come(service, by_token(iat=None))
    service.clock.advance(61)
    come(service, by_token(iat=None))
    assert len(service.revocations) == 1

    service.clock.advance(100)
    assert len(service.revocations) == 0
    service.clock.advance(60)
    assert [timer for timer in service.clock.timers if timer.callback == service.hub._forget] == []


@pytest.mark.parametrize("seed", range(50))
def test_no_one_who_is_revoked_is_ever_live(seed: int) -> None:
    """Comings, first looks, revocations and slices, in random orders."""
    chance = random.Random(seed)
    service = Service()
    service.clock.cost_s = 0.0007
    live: list[tuple[Grant, Client]] = []
    asked: list[Grant] = []

    def ask() -> None:
        iat = chance.choice([None, service.clock.now - chance.uniform(0, 5)])
        grant = by_token(
            chance.choice("ab"), iat=iat, sub=chance.choice("uv"), jti=chance.choice("st")
        )
        with contextlib.suppress(Unauthorized):
            service.hub.refuse_revoked(grant)
            asked.append(grant)

    def enter() -> None:
        if asked:
            grant = asked.pop(chance.randrange(len(asked)))
            is_revoked = service.revocations.revokes(grant)
            try:
                live.append((grant, come(service, grant)))
                assert not is_revoked
            except Unauthorized:
                assert is_revoked

    def revoke() -> None:
        revocation = Revocation(
            chance.choice("ab"), chance.choice([None, "s"]), chance.choice([None, "u"])
        )
        service.hub.revoke(revocation, service.clock.now - chance.uniform(0, 2))

    for _ in range(300):
        chance.choice([ask, enter, ask, enter, ask, enter, service.clock.run_soon, revoke])()
        service.clock.now += 0.1
        if not service.clock.soon:
            for grant, client in live:
                assert service.revocations.revokes(grant) is (ends(client) == [REVOKED])
