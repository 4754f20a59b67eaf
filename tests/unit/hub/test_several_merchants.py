"""A connection to several merchants: blocked, drained, kept alive and ended as one."""

from __future__ import annotations

import gc
import weakref

import pytest

from sse_push.access.grant import Grant, hash_claim
from sse_push.access.revocation import Revocation
from sse_push.errors import EndReason, Unauthorized
from sse_push.hub import Refresh, State, Subscription
from tests.unit.hub import (
    AFTER_INTERVAL_S,
    AGE_S,
    HEARTBEAT_S,
    SEND_TIMEOUT_S,
    Client,
    Frame,
    Service,
    ids_and_topics,
)


class Shopper(Client):
    """A client of several merchants: it has a place at each."""

    places: tuple[Subscription[Frame], ...]


class Sipping(Shopper):
    """Takes one frame, and the next one when it has drained."""

    def offer(self, frame: Frame) -> bool:
        is_taken = super().offer(frame)
        self.is_taking = False
        return is_taken


class Silent:
    """A way to a client that knows nothing of its subscriptions."""

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, _reason: EndReason) -> None:
        """Accept the end."""


def join(
    service: Service,
    *merchant_ids: str,
    grant: Grant | None = None,
    client: Shopper | None = None,
    expires_in_s: float | None = None,
) -> Shopper:
    """Subscribe a client to several merchants, which it waits for."""
    client = client or Shopper(service, 0)
    grant = grant or Grant("", expires_in_s and service.clock.now + expires_in_s)
    client.places = service.hub.subscribe_all(
        [(grant._replace(merchant_id=each), client) for each in merchant_ids]
    )
    client.subscription = client.places[0]
    return client


def opened(
    service: Service,
    *merchant_ids: str,
    client: Shopper | None = None,
    expires_in_s: float | None = None,
) -> Shopper:
    """Subscribe a client to several merchants, and admit it everywhere with nothing owed."""
    client = join(service, *merchant_ids, client=client, expires_in_s=expires_in_s)
    for place in client.places:
        if not place.merchant.is_armed:
            service.hub.armed(place.merchant.id, None)
        service.hub.settle(place)
        service.hub.admit(place, ())
    return client


def states(client: Shopper) -> list[State]:
    return [place.state for place in client.places]


def test_a_connection_to_several_merchants_gets_the_changes_of_each(service: Service) -> None:
    client, other = opened(service, "42", "43"), service.open("43")

    service.change("a", merchant_id="42")
    service.change("b", merchant_id="43")

    assert ids_and_topics(client.refreshes) == [(1, "a"), (2, "b")]
    assert ids_and_topics(other.refreshes) == [(2, "b")]
    assert service.encoded == 2


def test_a_connection_to_several_merchants_is_one_connection(service: Service) -> None:
    client = opened(service, "42", "43")
    service.open("43")

    assert (len(service.hub), service.hub.merchant_count, service.hub.tally.opened) == (2, 2, 2)

    assert service.hub.unsubscribe(client.places[1])
    assert not service.hub.unsubscribe(client.places[0])

    assert (len(service.hub), service.hub.merchant_count) == (1, 1)
    assert service.hub.tally.closed[EndReason.CLIENT_DISCONNECTED] == 1
    assert service.source.calls == [("watch", "42"), ("watch", "43"), ("unwatch", "42")]


def test_a_sink_that_refuses_one_merchant_is_offered_nothing_of_any(service: Service) -> None:
    client = opened(service, "42", "43")
    client.is_taking = False

    service.change("a", merchant_id="43")
    service.change("b", merchant_id="42")
    service.clock.advance(AFTER_INTERVAL_S)

    assert states(client) == [State.BLOCKED, State.BLOCKED]
    assert client.refused == 1

    client.drained()

    assert states(client) == [State.FLOWING, State.FLOWING]
    assert sorted(ids_and_topics(client.refreshes)) == [(1, "a"), (2, "b")]


def test_a_merchant_that_is_not_compared_yet_is_blocked_with_the_others(service: Service) -> None:
    client = join(service, "42", "43", "44")
    for merchant_id in ("42", "43"):
        service.hub.armed(merchant_id, None)
    service.hub.settle(client.places[0])
    service.hub.admit(client.places[0], ())
    client.is_taking = False

    service.change("a", merchant_id="42")

    assert states(client) == [State.BLOCKED, State.JOINING_BLOCKED, State.JOINING_BLOCKED]

    service.hub.settle(client.places[1])
    service.hub.admit(client.places[1], [Refresh(0, None, "owed")])
    service.hub.offer_pending(client.places[1])

    assert (client.frames, client.refused) == ([], 1)

    client.drained()

    assert states(client) == [State.FLOWING, State.FLOWING, State.JOINING]
    assert sorted(each.topic or "" for each in client.refreshes) == ["a", "owed"]


def test_each_merchant_has_its_turn_though_the_client_takes_one_frame_at_a_time(
    service: Service,
) -> None:
    client = opened(service, "42", "43", "44", client=Sipping(service, 0))
    for _ in range(9):
        for merchant_id in ("42", "43", "44"):
            service.change(merchant_id, merchant_id=merchant_id)
        service.clock.advance(AFTER_INTERVAL_S)
        client.drained()

    told = [each.topic for each in client.refreshes]
    assert len(told) == 10
    assert all(len({*told[i : i + 3]}) == 3 for i in range(1, 8))


def test_a_connection_to_several_merchants_has_one_heartbeat(service: Service) -> None:
    client = opened(service, "42", "43", "44")

    service.clock.advance(10 * HEARTBEAT_S)

    assert 10 <= len(client.heartbeats_at) <= 13


@pytest.mark.parametrize("merchant_id", ["42", "43"])
def test_a_change_of_any_merchant_puts_the_heartbeat_off(
    service: Service, merchant_id: str
) -> None:
    client = opened(service, "42", "43")
    for _ in range(20):
        service.change("a", merchant_id=merchant_id)
        service.clock.advance(HEARTBEAT_S / 2)

    assert client.heartbeats_at == []


def test_a_client_that_stalls_is_ended_once_for_all_its_merchants(service: Service) -> None:
    client = opened(service, "42", "43")
    client.is_taking = False
    service.change("a", merchant_id="43")
    service.clock.advance(AFTER_INTERVAL_S)
    service.change("b", merchant_id="42")

    service.clock.advance(SEND_TIMEOUT_S + 1)

    assert [reason for _, reason in client.ends] == [EndReason.STALLED]
    assert service.hub.tally.closed[EndReason.STALLED] == 1
    assert service.hub.merchant_count == 0


@pytest.mark.parametrize("place", [0, 1])
def test_the_end_at_one_merchant_is_the_end_at_all(service: Service, place: int) -> None:
    client = opened(service, "42", "43")
    reasons = []

    service.hub.end(client.places[place], EndReason.SERVER_STOPPING)
    service.hub.end(client.places[1 - place], EndReason.REVOKED)
    reasons = [reason for _, reason in client.ends]

    assert reasons == [EndReason.SERVER_STOPPING]
    assert client.subscription.end_reason is EndReason.SERVER_STOPPING
    assert states(client) == [State.ENDED, State.ENDED]
    assert client.connections_at_end == [0]
    assert not service.hub.offer(client.places[place], ())


def test_a_connection_to_several_merchants_has_one_greatest_age(service: Service) -> None:
    client = opened(service, "42", "43")

    service.clock.advance(1.3 * AGE_S)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]


def test_a_token_of_several_merchants_is_announced_to_expire_once(service: Service) -> None:
    client = opened(service, "42", "43", expires_in_s=40)

    service.clock.advance(41)

    assert [each.version for each in client.refreshes] == [-20]
    assert [reason for _, reason in client.ends] == [EndReason.TOKEN_EXPIRED]
    assert service.hub.tally.closed[EndReason.TOKEN_EXPIRED] == 1


@pytest.mark.parametrize("merchant_id", ["42", "43"])
def test_a_revocation_of_one_merchant_ends_the_connection_to_all(
    service: Service, merchant_id: str
) -> None:
    client, other = opened(service, "42", "43"), service.open("44")

    service.hub.revoke(Revocation(merchant_id), service.clock.now)

    assert [reason for _, reason in client.ends] == [EndReason.REVOKED]
    assert (other.ends, len(service.hub)) == ([], 1)


def test_a_revocation_of_everything_ends_a_connection_once(service: Service) -> None:
    client = opened(service, "42", "43", expires_in_s=500)

    service.hub.revoke_all(service.clock.now)

    assert [reason for _, reason in client.ends] == [EndReason.REVOKED]
    assert service.hub.tally.closed[EndReason.REVOKED] == 1


def test_a_connection_with_one_revoked_merchant_gets_no_place_at_any(service: Service) -> None:
    grant = Grant("", service.clock.now + 60, hash_claim("u"), hash_claim("t"), service.clock.now)
    service.hub.revoke(Revocation("43", token_id=hash_claim("t")), service.clock.now)

    with pytest.raises(Unauthorized):
        join(service, "42", "43", grant=grant)

    assert (len(service.hub), service.hub.merchant_count, service.source.calls) == (0, 0, [])


def test_a_drain_ends_a_connection_to_several_merchants_once(service: Service) -> None:
    clients = [opened(service, "42", "43", "44") for _ in range(5)]

    service.hub.drain()

    assert [len(client.ends) for client in clients] == [1] * 5
    assert service.hub.tally.closed[EndReason.SERVER_STOPPING] == 5


def test_an_ended_connection_leaves_no_cycle_for_the_garbage_collector(service: Service) -> None:
    sink = Silent()
    connection = service.hub.subscribe_all([(Grant(each), sink) for each in ("42", "43")])
    service.hub.unsubscribe(connection[0])
    ended = weakref.ref(sink)
    gc.collect()
    gc.disable()
    try:
        del connection, sink
        assert ended() is None
    finally:
        gc.enable()
