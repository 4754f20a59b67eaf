"""Events as bytes, exactly."""

from __future__ import annotations

import pytest

from sse_push.event_stream.wire import (
    HEARTBEAT,
    Frame,
    encode_goodbye,
    encode_position,
    encode_ready,
    encode_ready_for_all,
    encode_refreshes,
)
from sse_push.hub import Reason, Refresh
from sse_push.notification import EntryId, EventId
from tests.harness.ids import HISTORY, at


def test_a_frame_is_one_chunk_of_an_http_body() -> None:
    frame = Frame(b"event: x\ndata: \xe7\xba\xbf\n\n")

    assert frame.body == b"event: x\ndata: \xe7\xba\xbf\n\n"
    assert frame.chunk == b"14\r\nevent: x\ndata: \xe7\xba\xbf\n\n\r\n"


@pytest.mark.parametrize(
    ("refresh", "expected"),
    [
        (Refresh(1, None), 'event: refresh\ndata: {"merchant_id":"42"}\n\n'),
        (
            Refresh(1, at(1712, 3)),
            'id: 1712-3.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42"}\n\n',
        ),
        (
            Refresh(1, None, "seats", '{"a":[1,"线"]}', 'Ana "A" \\ 线', "missed"),
            'event: refresh\ndata: {"merchant_id":"42","topic":"seats","data":{"a":[1,"线"]},'
            '"by":"Ana \\"A\\" \\\\ 线","reason":"missed"}\n\n',
        ),
        (
            Refresh(1, at(2**64 - 1, 2**64 - 1), data="0", by=""),
            "id: 18446744073709551615-18446744073709551615.0a1b2c3d\nevent: refresh\n"
            'data: {"merchant_id":"42","data":0,"by":""}\n\n',
        ),
    ],
)
def test_a_refresh_on_the_wire(refresh: Refresh, expected: str) -> None:
    assert encode_refreshes("42", [refresh]).body == expected.encode()


@pytest.mark.parametrize("reason", ["connected", "missed", "resync"])
def test_a_refresh_has_a_reason_unless_it_is_ordinary(reason: Reason) -> None:
    assert encode_refreshes("Shop.7", [Refresh(1, None, reason=reason)]).body == (
        b'event: refresh\ndata: {"merchant_id":"Shop.7","reason":"%b"}\n\n' % reason.encode()
    )


def test_several_refreshes_are_one_frame() -> None:
    refreshes = [Refresh(1, at(1), "b"), Refresh(2, at(2), "a")]

    assert encode_refreshes("42", refreshes).body == (
        b'id: 1-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"b"}\n\n'
        b'id: 2-0.0a1b2c3d\nevent: refresh\ndata: {"merchant_id":"42","topic":"a"}\n\n'
    )


@pytest.mark.parametrize(
    ("heartbeat_s", "newest", "expected"),
    [
        (
            15.0,
            None,
            b"retry: 2000\nevent: ready\n"
            b'data: {"merchant_id":"42","heartbeat_s":15,"connection_id":"1f-1"}\n\n',
        ),
        (
            0.5,
            at(7, 1, history=""),  # of a server whose runs have no ID
            b"retry: 2000\nid: 7-1\nevent: ready\n"
            b'data: {"merchant_id":"42","heartbeat_s":0.5,"connection_id":"1f-1"}\n\n',
        ),
    ],
)
@pytest.mark.parametrize("is_named", [False, True])
def test_ready_on_the_wire(
    heartbeat_s: float, newest: EventId | None, expected: bytes, *, is_named: bool
) -> None:
    encoded = encode_ready(
        "42",
        retry_ms=2000,
        heartbeat_s=heartbeat_s,
        connection_id="1f-1",
        newest=newest,
        is_named=is_named,
    )

    assert encoded == (expected.replace(b"id: 7", b"id: 42@7") if is_named else expected)


def test_ready_has_the_digest_of_the_rights_of_a_client_that_asks() -> None:
    encoded = encode_ready(
        "42", retry_ms=2000, heartbeat_s=15.0, connection_id="1f-1", newest=None, grant="0a1b"
    )

    assert encoded == (
        b"retry: 2000\nevent: ready\n"
        b'data: {"merchant_id":"42","grant":"0a1b","heartbeat_s":15,"connection_id":"1f-1"}\n\n'
    )


def test_ready_says_how_a_client_stands_at_each_of_several_merchants() -> None:
    encoded = encode_ready_for_all(
        {"42": at(7), "43": "owed", "44": "pending", "45": None},
        retry_ms=2345,
        heartbeat_s=15.0,
        connection_id="1f-1",
        grant="0a1b",
    )

    assert encoded == (
        b"retry: 2345\nevent: ready\n"
        b'data: {"merchants":{"42":{"id":"42@7-0.0a1b2c3d"},"43":{"owed":true},'
        b'"44":{"pending":true},"45":{"id":null}},"grant":"0a1b","heartbeat_s":15,'
        b'"connection_id":"1f-1"}\n\n'
    )


def test_a_position_on_the_wire() -> None:
    position, without_entry = encode_position("44", at(7)), encode_position("44", None)

    assert position.named("44").body == (
        b'id: 44@7-0.0a1b2c3d\nevent: position\ndata: {"merchant_id":"44"}\n\n'
    )
    assert without_entry.named("44").body == b'event: position\ndata: {"merchant_id":"44"}\n\n'


def test_a_goodbye_on_the_wire() -> None:
    assert encode_goodbye("server_stopping", 2345) == (
        b'retry: 2345\nevent: goodbye\ndata: {"reason":"server_stopping"}\n\n'
    )


def test_a_heartbeat_on_the_wire() -> None:
    assert HEARTBEAT.body == b"event: heartbeat\ndata: {}\n\n"
    assert HEARTBEAT.chunk == b"1b\r\nevent: heartbeat\ndata: {}\n\n\r\n"


def test_a_named_frame_has_ids_with_the_merchant_and_is_made_once() -> None:
    """Nothing in the data is taken for an ID: no line of it can begin like one."""
    refreshes = [
        Refresh(1, at(1), "id", data='"\\nid: 7-0\\n"', by="id: 8-0"),
        Refresh(2, None, "without"),
        Refresh(3, at(3), reason="missed"),
    ]
    frame = encode_refreshes("a:b-1", refreshes)

    named = frame.named("a:b-1")

    assert named.body == (
        b"id: a:b-1@1-0.0a1b2c3d\nevent: refresh\n"
        b'data: {"merchant_id":"a:b-1","topic":"id","data":"\\nid: 7-0\\n","by":"id: 8-0"}\n\n'
        b'event: refresh\ndata: {"merchant_id":"a:b-1","topic":"without"}\n\n'
        b"id: a:b-1@3-0.0a1b2c3d\nevent: refresh\n"
        b'data: {"merchant_id":"a:b-1","reason":"missed"}\n\n'
    )
    assert named.chunk == Frame(named.body).chunk
    assert frame.named("a:b-1") is named
    assert b"@" not in frame.body


def test_a_frame_without_an_id_is_the_same_for_all() -> None:
    assert HEARTBEAT.named("42") is HEARTBEAT


def test_a_named_id_is_as_long_as_its_parts_and_within_a_line_of_headers() -> None:
    longest = EventId(EntryId(2**64 - 1, 2**64 - 1), HISTORY)

    (line, *_) = encode_refreshes("m" * 64, [Refresh(1, longest)]).named("m" * 64).body.split(b"\n")

    assert len(line.removeprefix(b"id: ")) == 64 + 1 + 41 + 1 + 8
