"""The checker's own reader of event streams, with the examples of WHATWG."""

from __future__ import annotations

import pytest

from tests.checker.events import EVENT_LIMIT, Events, TooLong

EXAMPLES: dict[str, list[tuple[str, str, str | None]]] = {
    "data: This is the first message.\n\ndata: second\ndata: has\ndata: lines\n\n": [
        ("message", "This is the first message.", None),
        ("message", "second\nhas\nlines", None),
    ],
    "event: add\r\ndata: 1\r\n\r\nevent: remove\rdata: 2\r\r": [
        ("add", "1", None),
        ("remove", "2", None),
    ],
    ": a comment\n\ndata:first\nid: 1\n\ndata\nid\n\ndata:  third\n\n": [
        ("message", "first", "1"),
        ("message", "", ""),
        ("message", " third", None),
    ],
    "\ufeffdata: ü\nunknown: x\nretry: 1x\nid: a\0b\n\n": [("message", "ü", None)],
    "event: nothing\nid: 2\n\ndata: x\n\ndata: not whole\n": [("message", "x", None)],
}


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("text", EXAMPLES)
def test_a_stream_is_read_however_it_is_cut_into_pieces(text: str, size: int) -> None:
    events, data = Events(), text.encode()

    found = [
        (event.type, event.data, event.id)
        for at in range(0, len(data), size)
        for event in events.feed(data[at : at + size], 0.0)
    ]

    assert found == EXAMPLES[text]


def test_an_id_counts_once_its_block_has_ended() -> None:
    events = Events(last_event_id="1")

    events.feed(b"id: 2\ndata: x\n", 0.0)
    before, rest = events.last_event_id, events.rest
    events.feed(b"\n", 0.0)

    assert (before, rest, events.last_event_id, events.rest) == ("1", "x 2", "2", "")


def test_a_block_of_an_id_alone_is_no_event_but_its_id_counts() -> None:
    events = Events(last_event_id="1")

    assert events.feed(b"id: 2\n\n", 0.0) == []
    assert events.last_event_id == "2"


def test_a_reconnection_time_stays_until_there_is_another() -> None:
    events = Events(retry_ms=5)

    (first, second) = events.feed(b"data: x\n\nretry: 70\ndata: y\n\n", 0.0)

    assert (first.retry_ms, second.retry_ms, events.retry_ms) == (None, 70, 70)


@pytest.mark.parametrize("line", [b"data: x\n", b"x" * 8])
def test_an_event_without_an_end_is_refused(line: bytes) -> None:
    with pytest.raises(TooLong, match="expected an event of at most"):
        Events().feed(line * (EVENT_LIMIT // 4), 0.0)
