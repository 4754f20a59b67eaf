"""How many requests may be on their way, and what that costs the server in the worst case."""

from __future__ import annotations

import pytest

from sse_push.stream.window import EXPECTED_BYTES, FIRST, LEAST, MOST, Window


class Counted:
    """A window, and the totals since the connection began."""

    def __init__(self) -> None:
        self.window = Window()
        self.replies = 0
        self.announcements = 0
        self.received_bytes = 0

    def arrive(self, replies: int, reply_bytes: int, announcements: int = 0) -> None:
        self.replies += replies
        self.announcements += announcements
        self.received_bytes += replies * reply_bytes + announcements * 64
        self.window.answered(self.replies, self.announcements, self.received_bytes)

    def grow(self, reply_bytes: int = 100) -> None:
        for _ in range(20):
            self.arrive(self.window.size, reply_bytes)

    def restart(self, *, was_cut: bool) -> None:
        self.replies = self.announcements = self.received_bytes = 0
        self.window.restart(was_cut=was_cut)


def test_a_window_begins_small_and_doubles_with_each_round_trip() -> None:
    counted = Counted()
    sizes = [counted.window.size]
    for _ in range(20):
        counted.arrive(counted.window.size, 100)
        sizes.append(counted.window.size)

    assert sizes[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert sizes[-1] == MOST


@pytest.mark.parametrize("reply_bytes", [1_000, 8_000, 270_000, 10_000_000])
def test_a_window_holds_what_is_expected_to_fit(reply_bytes: int) -> None:
    counted = Counted()
    counted.grow(reply_bytes)

    assert counted.window.size == max(LEAST, EXPECTED_BYTES // reply_bytes)


def test_replies_that_become_larger_count_at_once_and_smaller_ones_by_and_by() -> None:
    counted = Counted()
    counted.grow()
    counted.arrive(1, 8_000)
    after_one = counted.window.size
    counted.arrive(1, 100)
    after_another = counted.window.size
    counted.grow()

    assert after_one == EXPECTED_BYTES // 8_000
    assert after_one < after_another < 3 * after_one
    assert counted.window.size == MOST


def test_announcements_are_no_replies() -> None:
    counted = Counted()
    counted.grow()
    counted.arrive(0, 0, announcements=1000)
    counted.arrive(1, 100, announcements=1000)

    assert counted.window.size == MOST


def test_a_part_of_a_reply_counts_once_that_has_arrived() -> None:
    counted = Counted()
    counted.grow()
    counted.received_bytes += 1_000_000
    counted.arrive(0, 0)
    before = counted.window.size
    counted.arrive(1, 24)

    assert before == MOST
    assert counted.window.size == LEAST


def test_a_connection_after_one_that_was_cut_begins_smaller_each_time() -> None:
    counted = Counted()
    counted.grow()
    sizes = []
    for was_cut in (True, True, True, False):
        counted.restart(was_cut=was_cut)
        sizes.append(counted.window.size)

    assert sizes == [FIRST // 4, LEAST, LEAST, FIRST]


def test_requests_go_out_together_once_half_of_the_window_is_free() -> None:
    window = Window()

    assert window.room(0) == FIRST
    assert window.room(FIRST // 2) == FIRST // 2
    assert window.room(FIRST // 2 + 1) == 0
    assert not window.has_room(FIRST // 2 + 1)
