from __future__ import annotations

import asyncio
import random

import pytest

from sse_push.event_stream.gaps import Gap, Gaps
from sse_push.hub import Refresh
from sse_push.notification import Change, Entry, EntryId
from tests.harness.clock import ManualClock
from tests.harness.ids import HISTORY, at
from tests.unit.event_stream.service import (
    MISSED_AT_7,
    READY,
    Browser,
    Serve,
    Service,
    Shelf,
    entry,
    turns,
)

MERCHANT = object()
KEPT_S = 30
KEPT_REFRESHES = 4096


def gap(start: int, end: int) -> Gap:
    return Gap(EntryId(start, 0), at(end))


def shelf(*entries: Entry) -> Shelf:
    made = Shelf()
    made.entries = entries
    return made


async def test_entries_of_one_topic_are_one_refresh_and_those_of_others_follow_in_their_order() -> (
    None
):
    gaps = Gaps(shelf(entry(5, "seats", by="tab-1"), entry(6, "orders"), entry(7, "seats")))

    refreshes = await gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))

    assert [(each.id, each.topic, each.by) for each in refreshes] == [
        (at(6), "orders", None),
        (at(7), "seats", None),
    ]
    assert {(each.version, each.reason, each.data) for each in refreshes} == {(3, "missed", None)}


async def test_a_gap_that_is_not_known_whole_is_one_refresh() -> None:
    gaps = Gaps(Shelf())

    refreshes = await gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))

    assert refreshes == (Refresh(3, at(7), reason="missed"),)


async def test_clients_with_the_same_gap_wait_for_one_read_and_the_next_ones_for_none() -> None:
    archive = shelf(entry(7, "seats"))
    archive.is_open.clear()
    gaps = Gaps(archive)
    clients = [
        asyncio.create_task(gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))) for _ in range(100)
    ]
    await turns(1)

    archive.is_open.set()
    answers = await asyncio.gather(*clients)
    answers.append(await gaps.refreshes(MERCHANT, "42", 3, gap(4, 7)))

    assert archive.asked == [("42", EntryId(4, 0), EntryId(7, 0))]
    assert all(each is answers[0] for each in answers)


@pytest.mark.parametrize(
    ("merchant", "version", "other"),
    [
        pytest.param(object(), 3, gap(4, 7), id="a merchant that everybody had left"),
        pytest.param(MERCHANT, 4, gap(4, 7), id="a change was published"),
        pytest.param(MERCHANT, 3, gap(5, 7), id="another start"),
        pytest.param(MERCHANT, 3, gap(4, 8), id="another end"),
    ],
)
async def test_clients_that_may_be_owed_something_else_have_reads_of_their_own(
    merchant: object, version: int, other: Gap
) -> None:
    archive = Shelf()
    gaps = Gaps(archive)

    await gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))
    await gaps.refreshes(merchant, "42", version, other)

    assert len(archive.asked) == 2


async def test_a_client_that_leaves_while_it_reads_lets_the_next_one_read() -> None:
    archive = shelf(entry(7))
    archive.is_open.clear()
    gaps = Gaps(archive)
    reader, waiting, leaving = (
        asyncio.create_task(gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))) for _ in range(3)
    )
    await turns()

    reader.cancel()
    leaving.cancel()
    await turns()
    archive.is_open.set()

    assert len(await waiting) == 1
    assert len(archive.asked) == 2
    assert gaps._reading == {}


class FailsOnce(Shelf):
    """An archive whose first answer is an error."""

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        self.error = None if self.asked else RuntimeError("a bug")
        return await super().between(merchant_id, start, end)


async def test_a_read_that_fails_is_the_failure_of_its_client_alone() -> None:
    archive = FailsOnce()
    archive.is_open.clear()
    gaps = Gaps(archive)
    reader, waiting = (
        asyncio.create_task(gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))) for _ in range(2)
    )
    await turns()

    archive.is_open.set()
    with pytest.raises(RuntimeError, match="a bug"):
        await reader

    assert len(await waiting) == 1


async def test_what_a_gap_holds_is_read_again_after_a_while() -> None:
    clock = ManualClock()
    archive = Shelf()
    gaps = Gaps(archive, now=clock.time)

    for passed_s in (0, KEPT_S - 0.1, 0.1):
        clock.advance(passed_s)
        await gaps.refreshes(MERCHANT, "42", 3, gap(4, 7))

    assert len(archive.asked) == 2


async def test_so_many_refreshes_are_kept_and_the_oldest_leave_first() -> None:
    topics = 31
    archive = shelf(*(entry(5 + number, f"topic-{number}") for number in range(topics)))
    gaps = Gaps(archive)
    kept = KEPT_REFRESHES // (topics + 1)
    for version in range(kept + 1):
        await gaps.refreshes(MERCHANT, "42", version, gap(4, 99))

    await gaps.refreshes(MERCHANT, "42", 1, gap(4, 99))
    assert len(archive.asked) == kept + 1

    await gaps.refreshes(MERCHANT, "42", 0, gap(4, 99))
    assert len(archive.asked) == kept + 2
    assert gaps._kept_refreshes == kept * (topics + 1)


async def test_clients_that_return_and_leave_at_random_get_what_is_theirs_and_leave_nothing() -> (
    None
):
    chance = random.Random(7)
    archive = Shelf()
    gaps = Gaps(archive)
    clients: list[tuple[int, asyncio.Task[tuple[Refresh, ...]]]] = []
    for _ in range(500):
        (archive.is_open.set if chance.random() < 0.3 else archive.is_open.clear)()
        version = chance.randrange(50)
        call = gaps.refreshes(MERCHANT, "42", version, gap(4, 7))
        clients.append((version, asyncio.create_task(call)))
        if chance.random() < 0.3:
            chance.choice(clients)[1].cancel()
        await turns(chance.randrange(3))

    archive.is_open.set()
    await asyncio.wait([client for _, client in clients])

    for version, client in clients:
        assert client.cancelled() or client.result() == (Refresh(version, at(7), reason="missed"),)
    assert gaps._reading == {}


async def test_browsers_that_return_with_one_id_ask_redis_once_and_get_one_frame(
    serve: Serve,
) -> None:
    service: Service = serve(arm_timeout_s=5)
    service.shelf.entries = (entry(6, "orders"), entry(7, "seats", data="1"))
    service.shelf.is_open.clear()
    browsers = [Browser(service, str(at(4))) for _ in range(50)]
    await turns()
    service.armed(at(7))
    await turns()

    service.shelf.is_open.set()
    await turns()
    browsers += [Browser(service, str(at(4))) for _ in range(50)]
    await turns()

    assert len(service.shelf.asked) == 1
    assert {browser.received for browser in browsers} == {
        READY
        + b"id: 6-0.0a1b2c3d\nevent: refresh\n"
        + b'data: {"merchant_id":"42","topic":"orders","reason":"missed"}\n\n'
        + b"id: 7-0.0a1b2c3d\nevent: refresh\n"
        + b'data: {"merchant_id":"42","topic":"seats","reason":"missed"}\n\n'
    }


async def test_a_browser_that_returns_after_a_loss_asks_again_though_the_ids_are_the_same(
    serve: Serve,
) -> None:
    """A stream that was deleted may give an ID again; what was read before stands for another."""
    service: Service = serve(arm_timeout_s=5)
    service.shelf.entries = (entry(7, "seats"),)
    Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    service.hub.publish(Change("42", EntryId(7, 0), is_resync=True), HISTORY)
    service.shelf.entries = None
    browser = Browser(service, str(at(4)))
    await turns()

    assert len(service.shelf.asked) == 2
    assert browser.received == READY + MISSED_AT_7
