from __future__ import annotations

import asyncio

import pytest

from sse_push.access.grant import Grant
from sse_push.errors import EndReason
from sse_push.event_stream.comparison import Comparison, Owed
from sse_push.event_stream.gaps import Gap
from sse_push.hub import Refresh
from sse_push.notification import EntryId
from tests.harness.ids import HISTORY, at
from tests.harness.waiting import SECOND
from tests.unit.event_stream.service import Neighbor, Service, entry, turns


def compare(service: Service, last_event_id: str | None) -> Comparison:
    subscription = service.hub.subscribe(Grant("42"), Neighbor())
    return Comparison(service.hub, service.streams.gaps, subscription, last_event_id)


def test_a_stream_that_was_not_read_yet_is_not_compared_at_once(service: Service) -> None:
    assert compare(service, str(at(7))).at_once() is None


@pytest.mark.parametrize(
    ("last_event_id", "found"),
    [
        (str(at(7)), Owed(at(7), ())),
        (None, Owed(at(7), (Refresh(0, at(7), reason="connected"),))),
        (str(at(9)), Owed(at(7), (Refresh(0, at(7), reason="missed"),))),
        (str(at(5)), Gap(EntryId(5, 0), at(7))),
    ],
)
def test_a_stream_that_was_read_is_compared_at_once(
    service: Service, last_event_id: str | None, found: Owed | Gap
) -> None:
    comparison = compare(service, last_event_id)
    service.armed(at(7))

    assert comparison.at_once() == found
    assert service.shelf.asked == []


async def test_a_gap_is_filled_from_the_archive(service: Service) -> None:
    service.shelf.entries = (entry(6, "seats"),)
    comparison = compare(service, str(at(5)))
    service.armed(at(7))
    begun = comparison.at_once()
    assert isinstance(begun, Gap)

    async with asyncio.timeout(5 * SECOND):
        owed = await comparison.result(begun)

    assert owed == Owed(at(7), (Refresh(0, at(6), "seats", reason="missed"),))
    assert service.shelf.asked == [("42", EntryId(5, 0), EntryId(7, 0))]
    assert owed.refreshes[0].id is not None
    assert owed.refreshes[0].id.history == HISTORY


async def test_the_result_waits_until_the_stream_is_read(service: Service) -> None:
    comparison = compare(service, str(at(7)))
    waiting = asyncio.create_task(comparison.result(None))
    await turns()
    assert not waiting.done()

    service.armed(at(7))

    async with asyncio.timeout(5 * SECOND):
        assert await waiting == Owed(at(7), ())


async def test_a_place_that_ends_before_the_stream_is_read_has_no_result(service: Service) -> None:
    comparison = compare(service, None)
    waiting = asyncio.create_task(comparison.result(None))
    await turns()

    service.end(EndReason.SERVER_STOPPING)

    async with asyncio.timeout(5 * SECOND):
        assert await waiting is None
