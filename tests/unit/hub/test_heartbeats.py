from __future__ import annotations

import itertools
from collections import Counter

import pytest

from sse_push.errors import EndReason
from sse_push.hub import Refresh
from tests.unit.hub import AGE_S, HEARTBEAT_S, PATIENT, SEND_TIMEOUT_S, TICK_S, Service

# -- stalled clients


def test_a_client_that_drained_and_refuses_again_is_ended_as_stalled(
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


@pytest.mark.parametrize("moment_s", [0, 0.1, TICK_S])
def test_a_client_that_takes_nothing_for_too_long_is_ended_as_stalled(
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
    assert service.hub.merchant_count == 0


def test_a_client_that_drains_in_time_stays(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(SEND_TIMEOUT_S - 1)

    client.drained()
    service.clock.advance(60)

    assert client.ends == []
    assert client.ids == [1]


def test_a_client_that_blocks_again_has_its_whole_time_again(service: Service) -> None:
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


def test_a_client_that_refuses_a_heartbeat_is_ended_as_stalled(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    opened_at = service.clock.now

    service.clock.advance(60)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.STALLED
    assert ended_at - opened_at <= HEARTBEAT_S + SEND_TIMEOUT_S + 2 * TICK_S
    assert client.refused == 1


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
        written_at = [opened_at, *client.heartbeats_at, service.clock.now]
        gaps = [late - early for early, late in itertools.pairwise(written_at)]
        assert max(gaps) <= HEARTBEAT_S + 1e-6
        assert min(gaps[:-1]) >= 0.8 * HEARTBEAT_S - 2 * TICK_S
        assert client.refreshes == []


def test_clients_that_came_together_get_their_heartbeats_apart(service: Service) -> None:
    clients = [service.open() for _ in range(200)]

    service.clock.advance(100)

    together = Counter(at for client in clients for at in client.heartbeats_at)
    assert max(together.values()) <= 40


def test_a_client_that_gets_refreshes_gets_no_heartbeat(service: Service) -> None:
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
    written_at = service.clock.now

    service.clock.advance(60)

    gap_s = client.heartbeats_at[0] - written_at
    assert 0.8 * HEARTBEAT_S - 2 * TICK_S <= gap_s <= HEARTBEAT_S


def test_a_heartbeat_follows_the_first_frame(service: Service) -> None:
    client = service.join()
    service.clock.advance(10)
    service.compare(client)
    service.hub.admit(client.subscription, [Refresh(0, None, reason="connected")])
    service.hub.first_frame(client.subscription)
    taken_at = service.clock.now

    service.clock.advance(60)

    gap_s = client.heartbeats_at[0] - taken_at
    assert 0.8 * HEARTBEAT_S - 2 * TICK_S <= gap_s <= HEARTBEAT_S


def test_a_heartbeat_follows_the_frame_that_was_taken_after_draining(service: Service) -> None:
    client = service.open()
    service.clock.advance(5)
    client.is_taking = False
    service.change("a")
    service.clock.advance(8)
    client.drained()
    drained_at = service.clock.now

    service.clock.advance(30)

    assert client.heartbeats_at[0] - drained_at >= 0.8 * HEARTBEAT_S - 2 * TICK_S


def test_a_joining_client_gets_heartbeats(service: Service) -> None:
    client = service.join()

    service.clock.advance(60)

    assert len(client.heartbeats_at) >= 4


def test_a_joining_client_gets_heartbeats_while_others_get_refreshes(
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
    written_at = [service.clock.now]

    service.clock.advance(100)

    written_at += [*client.heartbeats_at, service.clock.now]
    gaps = [late - early for early, late in itertools.pairwise(written_at)]
    assert max(gaps) <= HEARTBEAT_S


def test_a_client_that_was_blocked_for_a_moment_ends_at_its_greatest_age() -> None:
    service = Service(PATIENT)
    client = service.open()
    service.clock.advance(150)
    client.is_taking = False
    service.change("a")
    client.drained()

    service.clock.advance(100)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]


@pytest.mark.parametrize("is_drained", [True, False])
def test_a_client_that_was_blocked_and_has_left_is_offered_nothing(
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


def test_no_timer_runs_without_a_client(service: Service) -> None:
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


# -- greatest age


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_connection_ends_at_its_greatest_age_give_or_take_a_fifth(
    service: Service, *, is_busy: bool
) -> None:
    opened_at = service.clock.now
    clients = [service.open() for _ in range(100)]

    while service.hub.merchant_count:
        if is_busy:
            service.change("a")
        service.clock.advance(5)

    ages = [client.ends[0][0] - opened_at for client in clients]
    late_s = [client.ends[0][0] - client.subscription.ends_at for client in clients]
    assert min(late_s) >= 0
    assert max(late_s) <= 2 * TICK_S
    assert {client.ends[0][1] for client in clients} == {EndReason.CONNECTION_AGE}
    assert min(ages) >= 0.8 * AGE_S
    assert max(ages) <= 1.2 * AGE_S + 2 * TICK_S
    assert max(ages) - min(ages) > 0.3 * AGE_S
