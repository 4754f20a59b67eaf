from __future__ import annotations

from collections.abc import Sequence

import pytest

from sse_push.event_stream.wire import encode_refreshes
from sse_push.hub import Pending, Refresh, merge_into
from sse_push.hub.frames import PendingFrames
from tests.harness.ids import at

Frame = tuple[Refresh, ...]

DATA_BYTES = 32_768
MERCHANTS = 64


class Encoder:
    """Counts the frames that it makes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _merchant_id: str, refreshes: Sequence[Refresh]) -> Frame:
        self.count += 1
        return tuple(refreshes)


@pytest.fixture
def encode() -> Encoder:
    return Encoder()


def pending(*refreshes: Refresh) -> Pending:
    made: Pending = {}
    for refresh in refreshes:
        merge_into(made, refresh)
    return made


def with_data(number: int, size: int, letter: str = "x") -> Refresh:
    return Refresh(number, at(number), f"topic-{number}", data=f'"{letter * (size - 2)}"')


def test_the_same_refreshes_are_the_same_frame(encode: Encoder) -> None:
    frames = PendingFrames(encode)

    one, other = (
        frames.frame("42", pending(Refresh(2, at(2), "seats"), Refresh(1, at(1), "orders")))
        for _ in range(2)
    )

    assert one is other
    assert [refresh.topic for refresh in one] == ["orders", "seats"]
    assert encode.count == 1


@pytest.mark.parametrize(
    "other",
    [
        Refresh(2, at(1)),
        Refresh(1, at(2)),
        Refresh(1, at(1), "seats"),
        Refresh(1, at(1), data="1"),
        Refresh(1, at(1), by="tab-1"),
        Refresh(1, at(1), reason="missed"),
    ],
)
def test_refreshes_that_differ_are_frames_of_their_own(encode: Encoder, other: Refresh) -> None:
    frames = PendingFrames(encode)
    frames.frame("42", pending(Refresh(1, at(1))))

    assert frames.frame("42", pending(other)) == (other,)


def test_merchants_have_frames_of_their_own() -> None:
    frames = PendingFrames(encode_refreshes)

    for merchant_id in ("42", "43", "42"):
        frame = frames.frame(merchant_id, pending(Refresh(1, at(1))))
        assert b'"merchant_id":"%b"' % merchant_id.encode() in frame.body


def test_so_many_frames_are_kept_and_the_oldest_leave_first(encode: Encoder) -> None:
    frames = PendingFrames(encode)
    for number in range(MERCHANTS + 1):
        frames.frame(str(number), pending(Refresh(1, at(1))))

    frames.frame("1", pending(Refresh(1, at(1))))
    assert encode.count == MERCHANTS + 1

    frames.frame("0", pending(Refresh(1, at(1))))
    assert encode.count == MERCHANTS + 2


@pytest.mark.parametrize("letter", ["x", "\u7ebf"])
def test_several_refreshes_with_too_much_data_have_none(encode: Encoder, letter: str) -> None:
    """A client that does not read keeps its frame in memory."""
    frames = PendingFrames(encode)
    size = DATA_BYTES // 4 if letter == "x" else (DATA_BYTES // 4 - 2) // 3 + 2
    fitting = [with_data(number, size, letter) for number in range(4)]

    assert frames.frame("42", pending(*fitting)) == tuple(fitting)

    one_more = frames.frame("42", pending(*fitting, with_data(4, 3, letter * 8)))
    assert [(each.topic, each.data) for each in one_more] == [
        (f"topic-{number}", None) for number in range(5)
    ]


def test_a_single_refresh_has_all_the_data_that_its_backend_was_allowed_to_send(
    encode: Encoder,
) -> None:
    large = with_data(1, 2 * DATA_BYTES)

    assert PendingFrames(encode).frame("42", pending(large)) == (large,)
