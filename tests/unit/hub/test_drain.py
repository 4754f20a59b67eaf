from __future__ import annotations

import dataclasses
from collections import Counter

from sse_push.errors import EndReason
from tests.harness.clock import PACE
from tests.unit.hub import (
    DRAIN_S,
    Service,
)


def test_draining_ends_all_connections(service: Service) -> None:
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
    assert (len(service.hub), service.hub.merchant_count) == (0, 0)


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


def test_draining_ends_connections_in_random_order(service: Service) -> None:
    clients = [service.open() for _ in range(1000)]

    service.hub.drain()
    service.clock.advance(5)

    ended = [number for number, client in enumerate(clients) if client.ends]
    assert 400 <= sum(ended) / len(ended) <= 600


def test_a_client_gets_every_change_until_its_turn_in_a_drain(service: Service) -> None:
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


def test_draining_without_a_connection_is_done_at_once(service: Service) -> None:
    service.hub.drain()

    assert service.hub.is_draining
    assert service.clock.timers == []


def test_draining_in_no_time_ends_all_at_once() -> None:
    service = Service(dataclasses.replace(PACE, drain_s=0))
    clients = [service.open() for _ in range(500)]

    service.hub.drain()

    assert all(client.ends for client in clients)


def test_a_client_that_leaves_before_its_turn_is_not_ended_again(service: Service) -> None:
    clients = [service.open() for _ in range(50)]
    service.hub.drain()
    gone = [client for client in clients if not client.ends][:10]

    for client in gone:
        service.hub.unsubscribe(client.subscription)
    service.clock.advance(DRAIN_S)

    assert not any(client.ends for client in gone)
    assert sum(bool(client.ends) for client in clients) == 40
