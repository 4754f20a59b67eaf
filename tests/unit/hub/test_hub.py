from __future__ import annotations

import random

import pytest

from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason, Occasion
from sse_push.hub import Hub, Refresh, State
from sse_push.notification import Change, EntryId
from tests.harness.clock import PACE, ManualClock
from tests.harness.ids import HISTORY, at
from tests.unit.hub import (
    AFTER_INTERVAL_S,
    HEARTBEAT_S,
    KEEP_S,
    Frame,
    Service,
    ids_and_topics,
)

# -- joining and leaving


def test_a_place_is_given_up_once(service: Service) -> None:
    client = service.open()

    assert service.hub.unsubscribe(client.subscription) is True
    assert service.hub.unsubscribe(client.subscription) is False
    assert len(service.hub) == 0
    assert service.source.calls == [("watch", "42"), ("unwatch", "42")]


def test_a_client_is_called_when_its_merchant_has_been_read(service: Service) -> None:
    client = service.join()
    calls: list[str] = []
    service.hub.when_armed(client.subscription, lambda: calls.append("first"))

    assert calls == []

    service.hub.armed("42", None)

    assert calls == ["first"]

    late = service.join()
    service.hub.when_armed(late.subscription, lambda: calls.append("at once"))

    assert calls == ["first", "at once"]


def test_clients_that_wait_for_a_merchant_are_called_once(service: Service) -> None:
    clients = [service.join() for _ in range(3)]
    calls: list[int] = []
    service.hub.when_armed(clients[0].subscription, lambda: calls.append(0))
    service.hub.when_armed(clients[2].subscription, lambda: calls.append(2))

    service.hub.armed("42", None)
    for client in clients:
        service.hub.unsubscribe(client.subscription)

    assert calls == [0, 2]


def test_a_client_that_ends_before_its_merchant_is_read_is_called_then(
    service: Service,
) -> None:
    client = service.join()
    calls: list[str] = []
    service.hub.when_armed(client.subscription, lambda: calls.append("ended"))

    service.hub.end(client.subscription, EndReason.SERVER_STOPPING)

    assert calls == ["ended"]
    assert client.subscription.state is State.ENDED


def test_a_client_that_has_ended_is_called_at_once(service: Service) -> None:
    client = service.join()
    service.hub.unsubscribe(client.subscription)
    calls: list[str] = []

    service.hub.when_armed(client.subscription, lambda: calls.append("ended"))

    assert calls == ["ended"]


def test_a_connection_gives_its_place_up_before_its_response_ends(
    service: Service,
) -> None:
    client, _ = service.open(), service.open()

    service.hub.end(client.subscription, EndReason.CONNECTION_AGE)
    service.hub.end(client.subscription, EndReason.STALLED)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]
    assert client.connections_at_end == [1]


def test_connections_are_counted_as_they_come_and_go(service: Service) -> None:
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


# -- comparing and going live


def test_a_client_compares_with_what_was_read(service: Service) -> None:
    first = service.join()
    service.hub.armed("42", at(7, 1))

    assert service.hub.settle(first.subscription) == at(7, 1)

    service.change("a")
    service.resync(newest=None)

    assert service.hub.settle(service.join().subscription) is None


def test_a_comparison_settles_the_changes_before_it(service: Service) -> None:
    service.open()
    joining = service.join()
    service.change("a")

    assert joining.subscription.pending != {}
    assert service.compare(joining) == at(1)

    service.hub.admit(joining.subscription, ())

    assert service.hub.first_frame(joining.subscription) is None
    assert joining.frames == []


def test_refreshes_owed_by_the_comparison_go_before_later_ones(service: Service) -> None:
    joining = service.join()
    service.compare(joining)
    service.change("b", data="1")
    owed = [Refresh(0, at(0, 5), "a", "2", "x", "missed")]

    service.hub.admit(joining.subscription, owed)
    frame = service.hub.first_frame(joining.subscription)

    assert frame == (owed[0], Refresh(1, at(1), "b", "1"))
    assert service.hub.first_frame(joining.subscription) is None
    assert joining.frames == []


def test_an_owed_refresh_and_a_later_one_of_the_same_topic_become_one(
    service: Service,
) -> None:
    joining = service.join()
    service.compare(joining)
    service.change("a", data="1", by="x")
    owed = [Refresh(0, at(0, 5), "a", "2", "x", "missed")]

    service.hub.admit(joining.subscription, owed)

    assert service.hub.first_frame(joining.subscription) == (
        Refresh(1, at(1), "a", None, "x", "missed"),
    )


def test_an_owed_refresh_may_be_offered_instead_of_being_the_first_frame(service: Service) -> None:
    joining = service.join()
    service.compare(joining)
    service.hub.admit(joining.subscription, [Refresh(0, None, reason="connected")])

    service.hub.drained(joining.subscription)

    assert joining.refreshes == [Refresh(0, None, reason="connected")]
    assert service.hub.first_frame(joining.subscription) is None


def test_a_client_is_written_no_refresh_before_it_is_admitted(service: Service) -> None:
    service.open()
    joining = service.join()
    service.hub.drained(joining.subscription)

    service.change("a")

    assert joining.frames == []


@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_joining_client_has_no_first_frame(service: Service, *, is_blocked: bool) -> None:
    service.open()
    joining = service.join()
    joining.is_taking = not is_blocked
    service.clock.advance(HEARTBEAT_S)
    service.change("a")

    assert joining.subscription.pending
    assert service.hub.first_frame(joining.subscription) is None

    service.compare(joining)
    service.hub.admit(joining.subscription, [Refresh(0, None, reason="connected")])

    assert service.hub.first_frame(joining.subscription) == (Refresh(0, None, reason="connected"),)


def test_a_client_that_ended_while_it_joined_has_no_first_frame(service: Service) -> None:
    service.open()
    joining = service.join()
    service.change("a")
    assert joining.subscription.pending

    service.hub.unsubscribe(joining.subscription)

    assert service.hub.first_frame(joining.subscription) is None


def test_a_client_that_ended_while_it_compared_does_not_go_live(service: Service) -> None:
    service.open()
    joining = service.join()
    service.compare(joining)
    service.hub.end(joining.subscription, EndReason.CONNECTION_AGE)

    service.hub.admit(joining.subscription, [Refresh(0, None, reason="connected")])
    service.hub.drained(joining.subscription)
    service.change("a")

    assert joining.frames == []
    assert joining.subscription.state is State.ENDED


def test_a_client_that_joins_before_a_change_is_written_gets_it_once(
    service: Service,
) -> None:
    watching = service.open()
    service.change("a")
    service.change("b")  # read, and waiting for the pace
    joining = service.join()

    newest = service.compare(joining)
    service.hub.admit(
        joining.subscription, [Refresh(joining.subscription.version, newest, reason="missed")]
    )
    first = service.hub.first_frame(joining.subscription)
    service.clock.advance(AFTER_INTERVAL_S)

    assert first is not None
    assert ids_and_topics(first) == [(2, None)]
    assert joining.frames == []
    assert ids_and_topics(watching.refreshes) == [(1, "a"), (2, "b")]


def test_a_change_read_before_the_comparison_is_settled_though_it_is_written_later(
    service: Service,
) -> None:
    service.open()
    service.change("a")
    joining = service.join()
    service.change("b")  # read, and waiting for the pace

    newest = service.compare(joining)
    service.hub.admit(joining.subscription, ())
    service.clock.advance(AFTER_INTERVAL_S)

    assert newest == at(2)
    assert joining.frames == []


def test_a_client_that_compares_before_a_change_is_read_gets_it_once(service: Service) -> None:
    service.open()
    joining = service.join()
    service.compare(joining)
    service.change("a")  # written to the other, and kept for this one
    service.hub.admit(joining.subscription, ())

    first = service.hub.first_frame(joining.subscription)
    service.clock.advance(1)

    assert first is not None
    assert ids_and_topics(first) == [(1, "a")]
    assert joining.frames == []


def test_a_client_that_is_blocked_while_it_joins_goes_live_when_it_drains(
    service: Service,
) -> None:
    client = service.join()
    client.is_taking = False
    service.clock.advance(HEARTBEAT_S)  # refused
    service.compare(client)
    service.hub.admit(client.subscription, [Refresh(0, None, reason="connected")])

    assert client.refused == 1
    assert client.subscription.state is State.BLOCKED

    client.drained()

    assert ids_and_topics(client.refreshes) == [(None, None)]


def test_a_hub_without_a_random_generator_makes_one() -> None:
    hub: Hub[Frame] = Hub(
        encode=lambda _, refreshes: tuple(refreshes),
        encode_expiring=lambda _: (),
        heartbeat=(),
        pace=PACE,
        revocations=Revocations(KEEP_S, 5),
        clock=ManualClock(),
    )

    assert isinstance(hub._chance, random.Random)
    assert len(hub) == 0


def test_a_change_of_the_newest_id_alone_writes_nothing(service: Service) -> None:
    client = service.open()
    before = client.subscription.merchant.version

    service.hub.publish(Change("42", EntryId(7, 0), ()), HISTORY)
    service.clock.advance(1)

    assert client.frames == []
    assert client.subscription.merchant.version == before
    assert service.compare(service.join()) == at(7)
