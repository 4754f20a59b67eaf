from __future__ import annotations

import asyncio
import re

import pytest

from sse_push.errors import EndReason
from sse_push.notification import EntryId
from tests.harness.ids import at
from tests.harness.waiting import SECOND, until
from tests.unit.event_stream.service import (
    BEAT,
    CONNECTED,
    CONNECTED_AT_7,
    MISSED_AT_7,
    READY,
    READY_AT_7,
    REFRESH_8,
    Browser,
    Serve,
    Service,
    entry,
    goodbye,
    turns,
)


async def test_an_event_stream_begins_with_ready_and_what_is_owed_in_one_write(
    service: Service,
) -> None:
    Browser(service)
    await turns()
    service.armed(at(7))
    browser = Browser(service)
    await turns()

    size, _, _ = bytes(browser.cycle.wire).partition(b"\r\n")

    assert int(size, 16) == len(browser.cycle.wire) - len(size) - 4
    assert browser.received == READY + CONNECTED_AT_7
    assert browser.cycle.head == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"content-type", b"text/event-stream"),
            (b"connection", b"close"),
        ],
    }


async def test_every_connection_has_its_own_id(service: Service) -> None:
    browsers = [Browser(service) for _ in range(3)]
    await turns()

    ids = {re.findall(rb'"connection_id":"([^"]+)"', each.cycle.wire)[0] for each in browsers}

    assert len(ids) == 3
    assert len({each.partition(b"-")[0] for each in ids}) == 1


async def test_a_client_that_needs_no_answer_of_redis_is_written_to_at_once(
    service: Service,
) -> None:
    Browser(service)
    await turns()
    service.armed(at(7))

    browser = Browser(service, str(at(7)))
    await turns(1)

    assert browser.received == READY_AT_7

    browser.cycle.lose()
    await browser.done()


async def test_a_client_that_missed_nothing_gets_only_the_newest_id(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service, str(at(7)))
    await turns()
    service.armed(at(7))
    await turns()

    assert browser.received == READY_AT_7


async def test_a_stream_that_does_not_exist_has_no_id(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service)
    await turns()
    service.armed(None)
    await turns()

    assert browser.received == READY + CONNECTED


async def test_a_late_redis_holds_nothing_back_but_the_refresh(service: Service) -> None:
    browser = Browser(service)
    await turns()

    assert browser.received == READY

    service.armed(at(7))
    await turns()

    assert browser.received == READY + CONNECTED_AT_7

    service.change(8)

    assert browser.received == READY + CONNECTED_AT_7 + REFRESH_8


async def test_a_late_redis_may_show_that_nothing_is_owed(service: Service) -> None:
    browser = Browser(service, str(at(7)))
    await turns()

    service.armed(at(7))
    await turns()
    service.change(8)

    assert browser.received == READY + REFRESH_8


async def test_a_client_that_was_away_gets_the_topics_that_it_missed(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = (
        entry(5, "seats", data="1", by="tab-1"),
        entry(6, "orders", data="2"),
        entry(7, "seats", data="3", by="tab-1"),
    )
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    assert service.shelf.asked == [("42", EntryId(4, 0), EntryId(7, 0))]
    assert browser.received == READY + (
        b'id: 6-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"orders",'
        b'"reason":"missed"}\n\n'
        b'id: 7-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"seats","by":"tab-1",'
        b'"reason":"missed"}\n\n'
    )


async def test_a_client_that_was_away_for_too_long_gets_no_topic(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = None
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    assert browser.received == READY + MISSED_AT_7


async def test_a_stream_that_takes_long_to_answer_holds_nothing_back_but_the_refresh(
    service: Service,
) -> None:
    Browser(service)
    await turns()
    service.armed(at(7))
    service.shelf.is_open.clear()
    browser = Browser(service, str(at(4)))
    await turns()

    assert browser.received == READY

    service.change(8)
    service.shelf.is_open.set()
    await turns()

    merged = b'id: 8-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","reason":"missed"}\n\n'
    assert browser.received == READY + merged


async def test_no_change_is_written_before_what_was_missed(serve: Serve) -> None:
    service = serve(arm_timeout_s=0.01)
    Browser(service)
    await turns()
    service.armed(at(7))
    service.shelf.is_open.clear()
    browser = Browser(service, str(at(4)))
    await turns()

    service.change(8)
    await until(lambda: browser.received != b"", "ready")

    assert browser.received == READY

    service.shelf.is_open.set()
    await turns()

    assert browser.received.startswith(READY + b"id: 8-0.0a1b2c3d\nevent: refresh\n")


async def test_a_change_while_the_stream_is_asked_follows_what_was_missed(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = (entry(7, "orders"),)
    service.shelf.is_open.clear()
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    service.change(8)
    service.shelf.is_open.set()
    await turns()

    assert browser.received == READY + (
        b'id: 7-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"orders",'
        b'"reason":"missed"}\n\n' + REFRESH_8
    )


async def test_a_connection_that_ends_while_the_stream_is_asked_gets_a_refresh_and_a_goodbye(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.is_open.clear()
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    service.shelf.is_open.set()
    await browser.done()

    assert browser.received == READY + MISSED_AT_7 + goodbye("server_stopping")
    assert browser.cycle.is_complete


async def test_a_connection_that_ends_before_redis_has_answered_gets_a_goodbye(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service, str(at(4)))
    await turns()

    service.end(EndReason.SERVER_STOPPING)
    await browser.done()

    assert browser.received == READY + goodbye("server_stopping")
    assert browser.cycle.is_complete
    assert service.shelf.asked == []


async def test_a_connection_whose_joining_fails_late_is_ended_with_a_goodbye(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the client would get nothing but heartbeats until the connection's age ends it."""
    service.shelf.error = RuntimeError("a bug")
    browser = Browser(service, str(at(4)))
    await turns()

    service.armed(at(7))
    await browser.done()

    assert browser.received == READY + goodbye("failed")
    assert browser.cycle.is_complete
    assert [record.getMessage() for record in caplog.records] == [
        "joining failed, ending the stream"
    ]


async def test_a_connection_whose_joining_fails_at_once_fails_as_any_request(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    Browser(service)
    await turns()
    service.armed(at(7))
    service.shelf.error = RuntimeError("a bug")
    browser = Browser(service, str(at(4)))

    with pytest.raises(RuntimeError, match="a bug"):
        await browser.done()
    service.tasks.remove(browser.task)

    assert len(service.subscriptions) == 1


async def test_a_connection_that_ends_while_redis_is_late_gets_a_goodbye(service: Service) -> None:
    browser = Browser(service)
    await turns()

    service.end(EndReason.CONNECTION_AGE)
    await browser.done()

    assert browser.received == READY + goodbye("connection_age")
    assert browser.cycle.is_complete


async def test_a_client_that_leaves_while_redis_is_late_leaves_nothing_behind(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    browser = Browser(service)
    await turns()

    browser.cycle.lose()
    await browser.done()

    assert len(service.hub) == 0
    assert service.source.calls == [("watch", "42"), ("unwatch", "42")]
    assert asyncio.all_tasks() == before


async def test_a_client_that_leaves_while_the_stream_is_asked_leaves_nothing_behind(
    service: Service,
) -> None:
    service.shelf.is_open.clear()
    before = asyncio.all_tasks()
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    browser.cycle.lose()
    await browser.done()

    assert service.shelf.asked != []
    assert len(service.hub) == 0
    assert asyncio.all_tasks() == before


async def test_a_client_that_missed_only_entries_that_say_nothing_is_told_where_it_stands(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    service.shelf.entries = ()
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    assert browser.received == READY.replace(b"event: ready", b"id: 7-0.0a1b2c3d\nevent: ready")


async def test_heartbeats_follow_what_was_missed(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    browser = Browser(service, str(at(4)))
    await turns()
    service.armed(at(7))
    await turns()

    service.clock.advance(15)

    assert browser.received == READY + MISSED_AT_7 + BEAT
