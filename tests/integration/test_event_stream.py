"""The wire, byte for byte, and what a client is owed when it connects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sse_starlette.sse import AppStatus

from sse_push.notification import EventId
from tests.harness.ids import in_redis
from tests.harness.in_process import serving_here
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import until

READY = re.compile(
    rb"retry: [0-9]+\n"
    rb"(id: (?P<id>[0-9]+-[0-9]+\.[0-9a-f]{8})\n)?"
    rb"event: ready\n"
    rb'data: \{"merchant_id":"[^"]+","heartbeat_s":1,"connection_id":"[0-9a-f]+-[0-9]+"\}\n'
    rb"\n"
)


async def test_the_first_connection_of_a_merchant_begins_with_ready_and_a_refresh(
    service: Service, redis: Redis, merchant: str
) -> None:
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
    planted = redis.cli("XREVRANGE", f"sse_push:{{{merchant}}}", "+", "-").split("\n")[0]

    ready = READY.match(stream.body)
    assert ready is not None, stream.body
    assert ready["id"] is None
    (refresh,) = stream.refreshes
    assert in_redis(refresh.id) == planted
    assert stream.body[ready.end() :].decode() == (
        f'id: {refresh.id}\nevent: refresh\ndata: {{"merchant_id":"{merchant}",'
        '"reason":"connected"}\n\n'
    )


async def test_a_notification_is_written_as_one_block(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    await publisher.notify(merchant)
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
        before = len(stream.body)

        accepted = await publisher.notify(
            merchant, topic="seats", data={"seat": "C7", "text": "线\n"}, by="tab-1"
        )
        await stream.next("refresh", 2)

    assert stream.body[before:].decode() == (
        f"id: {accepted}\n"
        "event: refresh\n"
        f'data: {{"merchant_id":"{merchant}","topic":"seats",'
        '"data":{"seat":"C7","text":"线\\n"},"by":"tab-1"}\n'
        "\n"
    )


async def test_a_response_has_the_headers_that_an_event_stream_needs(
    service: Service, merchant: str
) -> None:
    async with open_stream(service.url, merchant) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["connection"] == "close"


async def test_a_client_that_missed_nothing_gets_only_ready_with_the_newest_id(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    newest = await publisher.notify(merchant)

    async with open_stream(service.url, merchant, newest) as stream:
        await stream.next("heartbeat")

    ready = READY.match(stream.body)
    assert ready is not None
    assert ready["id"] == newest.encode()
    assert stream.refreshes == []


async def test_a_client_that_was_away_gets_one_refresh_with_the_topic_that_changed(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    seen = await publisher.notify(merchant)
    await publisher.notify(merchant, topic="seats", data=1)
    newest = await publisher.notify(merchant, topic="seats", data=2)

    async with open_stream(service.url, merchant, seen) as stream:
        await stream.next("heartbeat")

    assert [(event.id, json.loads(event.data)) for event in stream.refreshes] == [
        (newest, {"merchant_id": merchant, "topic": "seats", "reason": "missed"})
    ]
    assert READY.match(stream.body)["id"] is None  # type: ignore[index]


async def test_several_topics_missed_arrive_in_the_order_of_their_ids(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    seen = await publisher.notify(merchant)
    await publisher.notify(merchant, topic="orders")
    seats = await publisher.notify(merchant, topic="seats")
    orders = await publisher.notify(merchant, topic="orders")

    async with open_stream(service.url, merchant, seen) as stream:
        await stream.next("refresh", 2)

    assert [(event.id, json.loads(event.data)["topic"]) for event in stream.refreshes] == [
        (seats, "seats"),
        (orders, "orders"),
    ]


@pytest.mark.parametrize(
    "last_event_id",
    [
        "1-1",
        "nonsense",
        "$",
        "+",
        "0-0",
        "99999999999999-0",
        "18446744073709551615-18446744073709551615",
        "18446744073709551616-0",
        "1-1 OR 1",
        "-1-1",
        "x" * 5000,
    ],
)
async def test_an_id_that_is_unknown_malformed_or_newer_gets_one_refresh(
    service: Service, publisher: Publisher, merchant: str, last_event_id: str
) -> None:
    newest = await publisher.notify(merchant, topic="seats")

    async with open_stream(service.url, merchant, last_event_id) as stream:
        await stream.next("heartbeat")

    assert [(event.id, json.loads(event.data)) for event in stream.refreshes] == [
        (newest, {"merchant_id": merchant, "reason": "missed"})
    ]


async def test_a_client_resumes_by_the_query_too_but_the_header_wins(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    seen = await publisher.notify(merchant)
    newest = await publisher.notify(merchant)
    query = f"merchant_id={merchant}&last_event_id="

    async with open_stream(service.url, query=query + newest) as resumed:
        await resumed.next("heartbeat")
    async with open_stream(service.url, query=query + seen, last_event_id=newest) as header:
        await header.next("heartbeat")
    polyfill = f"{query}{seen}&lastEventId={newest}"  # its page had the other one in the URL
    async with open_stream(service.url, query=polyfill) as of_polyfill:
        await of_polyfill.next("heartbeat")

    assert resumed.refreshes == []
    assert header.refreshes == []
    assert of_polyfill.refreshes == []


async def test_a_client_without_an_id_gets_one_refresh(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    newest = await publisher.notify(merchant, topic="seats")

    async with open_stream(service.url, merchant) as stream:
        await stream.next("heartbeat")

    assert [(event.id, json.loads(event.data)) for event in stream.refreshes] == [
        (newest, {"merchant_id": merchant, "reason": "connected"})
    ]


async def test_a_burst_is_a_handful_of_events_and_the_last_has_the_newest_id(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
        answer = await publisher.post(json=[{"merchant_id": merchant}] * 500)
        answer = await publisher.post(json=[{"merchant_id": merchant}] * 500)
        newest = answer.json()[-1]["id"]

        await until(lambda: stream.refreshes[-1].id == newest, "the newest ID")

    assert len(stream.refreshes) <= 15


async def test_a_client_gets_the_refreshes_of_its_merchant_and_of_no_other(
    service: Service, publisher: Publisher, merchant: str
) -> None:
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")
        await publisher.notify(f"{merchant}-other")
        own = await publisher.notify(merchant)
        await stream.next("refresh", 2)

    assert [event.id for event in stream.refreshes[1:]] == [own]


async def test_an_entry_that_a_backend_adds_itself_is_announced(
    redis: Redis, service: Service, merchant: str
) -> None:
    key = f"sse_push:{{{merchant}}}"
    redis.cli("XADD", key, "*", "topic", "first")
    async with open_stream(service.url, merchant) as stream:
        await stream.next("refresh")

        added = redis.cli("XADD", key, "*", "topic", "seats", "data", '{"a": 1}', "colour", "red")
        await stream.next("refresh", 2)
        garbage = redis.cli("XADD", key, "*", "topic", "\n\n", "data", "{nonsense", "by", "")
        await stream.next("refresh", 3)

    told = stream.refreshes[1:]
    assert [(in_redis(each.id), json.loads(each.data)) for each in told] == [
        (added, {"merchant_id": merchant, "topic": "seats", "data": {"a": 1}}),
        (garbage, {"merchant_id": merchant}),
    ]


async def test_a_stream_that_is_deleted_or_of_another_type_is_a_resync_for_its_clients_only(
    redis: Redis, service: Service, publisher: Publisher, merchant: str
) -> None:
    key = f"sse_push:{{{merchant}}}"
    await publisher.notify(merchant)
    async with (
        open_stream(service.url, merchant) as stream,
        open_stream(service.url, f"{merchant}-other") as other,
    ):
        await stream.next("refresh")
        await other.next("refresh")

        redis.cli("DEL", key)
        await stream.next("refresh", 2)
        redis.cli("SET", key, "something else")
        await stream.next("refresh", 3)
        redis.cli("DEL", key)
        await stream.next("refresh", 4)
        back = await publisher.notify(merchant)
        await stream.next("refresh", 5)
        foreign = await publisher.notify(f"{merchant}-other")
        await other.next("refresh", 2)

    reasons = [json.loads(event.data).get("reason") for event in stream.refreshes]
    assert reasons == ["connected", "resync", "resync", "resync", None]
    assert EventId.parse(stream.refreshes[-1].id) == EventId.parse(back)
    assert [event.id for event in other.refreshes[1:]] == [foreign]


async def test_a_process_that_starts_keeps_sse_starlette_from_ending_its_event_streams(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppStatus, "enable_automatic_graceful_drain", True)

    async with serving_here(redis.url, tmp_path, http="h11"):
        assert AppStatus.enable_automatic_graceful_drain is False
