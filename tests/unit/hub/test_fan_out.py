from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from sse_push.errors import EndReason
from sse_push.hub import Refresh
from sse_push.notification import Change, EntryId, EventId
from tests.harness.ids import HISTORY, at
from tests.unit.hub import AFTER_INTERVAL_S, INTERVAL_S, Service, ids_and_topics, refresh_of

# -- pace


def test_the_first_change_of_a_quiet_merchant_goes_out_at_once(service: Service) -> None:
    clients = [service.open() for _ in range(3)]

    service.change("seats", data='{"seat":"C7"}', by="tab-1")

    assert [client.refreshes for client in clients] == [
        [Refresh(1, at(1), "seats", '{"seat":"C7"}', "tab-1")]
    ] * 3


def test_a_frame_is_encoded_once_for_all_connections(service: Service) -> None:
    for _ in range(100):
        service.open()

    service.change("a", "b")

    assert service.encoded == 1


def test_a_change_reaches_clients_of_its_merchant_only(service: Service) -> None:
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


def test_a_change_after_a_quiet_interval_goes_out_at_once(service: Service) -> None:
    client = service.open()
    service.change("a")
    service.clock.advance(AFTER_INTERVAL_S)

    service.change("b")

    assert client.ids == [1, 2]


def test_changes_within_an_interval_go_out_topic_by_topic(service: Service) -> None:
    client = service.open()
    service.change("first")

    service.change("a", data="1")
    service.change("b", "a")
    service.clock.advance(AFTER_INTERVAL_S)

    assert client.refreshes[1:] == [
        Refresh(3, at(3), "b"),
        Refresh(4, at(4), "a"),
    ]


def test_a_change_without_entries_names_no_topic(service: Service) -> None:
    client = service.open()

    service.hub.publish(Change("42", EntryId(9, 0)), HISTORY)

    assert client.refreshes == [Refresh(1, at(9))]


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


def test_a_process_that_stands_still_in_a_fan_out_puts_off_no_later_change_for_as_long(
    service: Service,
) -> None:
    clients = [service.open(cost_s=cost_s) for cost_s in (0, 30)]
    service.change("a")
    service.change("b")
    went_on_at = service.clock.now

    service.clock.advance(10)

    assert clients[0].refreshed_at[1] <= went_on_at + 1.1
    assert clients[0].ids == [1, 2]


def test_a_long_fan_out_is_written_in_slices(service: Service) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(100)]

    service.change("a")
    reached = [sum(bool(client.frames) for client in clients)]
    while service.clock.soon:
        service.clock.run_soon()
        reached.append(sum(bool(client.frames) for client in clients))

    assert reached == [32, 64, 96, 100]


def test_a_quick_fan_out_is_written_in_one_slice(service: Service) -> None:
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

    assert all(ids_and_topics(client.refreshes) == [(1, "a"), (6, "b")] for client in clients)


def test_a_change_during_a_fan_out_follows_as_soon_as_the_pace_allows(
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


def test_a_merchant_whose_clients_all_leave_during_a_fan_out_is_dropped(
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
    assert (len(service.hub), service.hub.merchant_count) == (1, 1)


def test_a_merchant_whose_clients_leave_while_a_change_is_pending_is_dropped(
    service: Service,
) -> None:
    client = service.open()
    service.change("a")
    service.change("b")

    service.hub.unsubscribe(client.subscription)
    service.clock.advance(10)

    assert service.encoded == 1
    assert service.clock.timers == []


# -- recipients that join meanwhile


def test_a_fan_out_of_settled_changes_leaves_the_first_frame_to_its_client(
    service: Service,
) -> None:
    service.open()
    service.change("first")
    service.change("a")
    joining = service.join()
    newest = service.compare(joining)
    owed = Refresh(joining.subscription.version, newest, reason="missed")
    service.hub.admit(joining.subscription, [owed])

    service.clock.advance(AFTER_INTERVAL_S)

    assert joining.frames == []
    assert service.hub.first_frame(joining.subscription) == (owed,)


def test_a_client_that_joins_between_two_changes_of_a_fan_out_gets_the_newer_one(
    service: Service,
) -> None:
    watching = service.open()
    service.change("first")
    service.change("a")
    joining = service.open()
    service.change("b")

    service.clock.advance(AFTER_INTERVAL_S)

    assert ids_and_topics(watching.refreshes) == [(1, "first"), (2, "a"), (3, "b")]
    assert ids_and_topics(joining.refreshes) == [(3, "b")]


def test_a_client_that_joins_between_two_changes_and_takes_nothing_gets_the_newer_one_later(
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
    assert ids_and_topics(joining.refreshes) == [(3, "b")]


def test_a_client_that_joins_during_a_fan_out_is_not_one_of_its_recipients(
    service: Service,
) -> None:
    service.clock.cost_s = 0.003
    waiting = [service.open() for _ in range(40)]
    service.change("a")  # the first slice
    joining = service.open()

    service.clock.run_soon()

    assert sum(len(client.refreshes) for client in waiting) == 40
    assert joining.frames == []


# -- recipients that cannot take a frame


def test_a_blocked_client_has_the_newest_refresh_of_each_topic_pending(
    service: Service,
) -> None:
    slow, quick = service.open(), service.open()
    slow.is_taking = False

    for topic in ("a", "b", "a"):
        service.change(topic, data="1")
        service.clock.advance(AFTER_INTERVAL_S)
    slow.drained()

    assert slow.refused == 1
    assert slow.frames[0][1] == (
        Refresh(2, at(2), "b", "1"),
        Refresh(3, at(3), "a"),
    )
    assert ids_and_topics(quick.refreshes) == [(1, "a"), (2, "b"), (3, "a")]


def test_a_client_that_drained_is_written_to_again(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    client.drained()
    service.clock.advance(AFTER_INTERVAL_S)

    service.change("b")

    assert client.ids == [1, 2]


def test_a_client_that_drained_and_refuses_again_loses_nothing(service: Service) -> None:
    client = service.open()
    client.is_taking = False
    service.change("a")
    service.clock.advance(1)

    service.hub.drained(client.subscription)
    service.change("b")

    assert client.refused == 2  # and not offered what is newer

    client.drained()

    assert client.ids == [1, 2]


def test_a_client_that_drains_with_nothing_pending_gets_nothing(service: Service) -> None:
    client = service.open()

    service.hub.drained(client.subscription)

    assert client.frames == []


# -- resyncs


def test_a_resync_names_no_topic_and_may_have_no_id_or_a_lower_one(service: Service) -> None:
    client = service.open()
    service.change("a")

    for newest in (at(0, 3), None):
        service.clock.advance(AFTER_INTERVAL_S)
        service.resync(newest=newest)

    assert client.refreshes[1:] == [
        Refresh(2, at(0, 3), reason="resync"),
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


def test_a_resync_long_after_many_others_goes_out_at_once(service: Service) -> None:
    for number in range(500):
        service.open(f"m{number}")
        service.resync(f"m{number}")
    service.clock.advance(10)
    client = service.open("late")

    service.resync("late")

    assert len(client.refreshes) == 1


def test_a_change_does_not_wait_for_a_delayed_resync(service: Service) -> None:
    clients = [service.open(f"m{number}") for number in range(1000)]
    for number in range(1000):
        service.resync(f"m{number}")
    last = clients[-1]
    assert last.frames == []

    service.change("a", merchant_id="m999")
    service.clock.advance(10)

    assert last.refreshes == [Refresh(2, at(1), reason="resync")]
    assert last.refreshed_at == [1000.0]


def test_a_resync_goes_out_with_a_change_that_is_due_before_it(
    service: Service,
) -> None:
    client = service.open("m999")
    service.change("a", merchant_id="m999")
    service.change("b", merchant_id="m999")
    for number in range(999):
        service.open(f"m{number}")
        service.resync(f"m{number}")

    service.resync("m999", at(2))
    service.clock.advance(AFTER_INTERVAL_S)

    assert client.refreshes[1:] == [Refresh(3, at(2), reason="resync")]


# -- counts


def counted(service: Service) -> tuple[int, int, int]:
    tally = service.hub.tally
    return tally.written, tally.merged, tally.skipped


def test_refreshes_are_counted_once_per_connection(
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


def test_a_pending_refresh_is_counted_as_skipped_and_later_as_written(
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

    assert service.hub.first_frame(joining.subscription) is not None
    assert counted(service) == (5, 3, 4)


def test_a_client_that_left_during_a_fan_out_is_not_counted(
    service: Service,
) -> None:
    service.clock.cost_s = 0.003
    clients = [service.open() for _ in range(64)]

    service.change("a")  # is written to 32 in its first slice
    service.hub.unsubscribe(clients[-1].subscription)
    service.clock.advance(1)

    assert counted(service) == (63, 0, 0)


def test_a_client_that_joined_between_two_changes_is_counted_for_the_later_one(
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


def test_a_fan_out_reports_its_newest_entry_once_as_it_starts() -> None:
    begun: list[tuple[int, int]] = []
    service = Service()
    clients = [service.open() for _ in range(100)]
    assert service.hub.on_fan_out is None
    service.hub.on_fan_out = lambda newest: begun.append((newest.ms, len(clients[0].frames)))

    service.change("a")
    service.change("b")
    service.change("c")
    service.clock.advance(AFTER_INTERVAL_S)

    assert begun == [(1, 0), (3, 1)]


@pytest.mark.parametrize("newest", [None, at(3)])
def test_a_resync_reports_no_newest_entry(newest: EventId | None) -> None:
    begun: list[EntryId] = []
    service = Service()
    service.hub.on_fan_out = begun.append
    service.open()

    service.resync(newest=newest)
    service.clock.advance(AFTER_INTERVAL_S)
    service.hub.publish(Change("42", EntryId(9, 0)), HISTORY)  # more than were read one by one

    assert begun == [EntryId(9, 0)]
