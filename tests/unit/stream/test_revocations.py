from __future__ import annotations

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import EntryId
from sse_push.stream.reads import PAGE_ENTRIES, ReadFrom, RevocationEntry
from sse_push.stream.revocations import Knowledge, RevocationTail


def at(number: int) -> EntryId:
    return EntryId(number, 0)


def revocation(number: int) -> Revocation:
    return Revocation(f"m-{number}")


def entries(*numbers: int) -> list[RevocationEntry]:
    return [RevocationEntry(at(number), revocation(number)) for number in numbers]


class Followed:
    """A tail of revocations, and what it has passed on."""

    def __init__(self) -> None:
        self.revoked: list[int] = []
        self.dropped: list[float] = []
        self.tail = RevocationTail(self.on_revoked, self.dropped.append)
        self.tail.connected()

    def on_revoked(self, revoked: Revocation, seconds: float) -> None:
        number = int(revoked.merchant_id.removeprefix("m-"))
        assert seconds == number / 1000
        self.revoked.append(number)

    @property
    def is_complete(self) -> bool:
        return self.tail.knowledge is Knowledge.COMPLETE

    def answer(self, *numbers: int) -> EntryId | None:
        """Send the read that is due, answer it, and return where it began."""
        read = self.tail.next_read()
        assert read is not None, "a read is due"
        self.tail.answered(entries(*numbers))
        return read.start


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_the_stream_is_read_from_its_beginning_and_complete_then(followed: Followed) -> None:
    assert not followed.is_complete

    assert followed.answer(1, 2) is None

    assert followed.revoked == [1, 2]
    assert followed.is_complete
    assert followed.tail.next_read() is None


def test_a_stream_that_is_not_there_is_complete(followed: Followed) -> None:
    followed.answer()

    assert followed.revoked == []
    assert followed.is_complete


def test_the_stream_is_neither_read_nor_known_before_the_first_connection() -> None:
    tail = RevocationTail(lambda _revocation, _at: None, lambda _until: None)

    assert tail.next_read() is None
    assert tail.knowledge is Knowledge.UNREAD


def test_an_announced_stream_is_read_from_the_entry_held_inclusive(followed: Followed) -> None:
    followed.answer(1, 2)
    followed.tail.mark()

    assert followed.answer(2, 3) == at(2)

    assert followed.revoked == [1, 2, 3]
    assert followed.is_complete


def test_an_announcement_without_a_new_entry_passes_nothing_on(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    followed.answer(1)

    assert followed.revoked == [1]
    assert followed.is_complete


def test_the_first_entry_of_an_empty_stream_is_passed_on(followed: Followed) -> None:
    followed.answer()
    followed.tail.mark()

    assert followed.answer(1) is None

    assert followed.revoked == [1]


def test_an_entry_with_the_id_held_and_other_fields_is_passed_on(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    other = RevocationEntry(at(1), Revocation("m-1"), fingerprint=1)

    for start in (at(1), None):
        assert followed.tail.next_read() == ReadFrom(start)
        followed.tail.answered([other])

    assert followed.revoked == [1, 1]
    assert followed.is_complete


def test_a_read_is_sent_only_when_the_last_one_is_answered(followed: Followed) -> None:
    assert followed.tail.next_read() is not None
    followed.tail.mark()

    assert followed.tail.next_read() is None


def test_an_announcement_during_a_read_causes_another_read(followed: Followed) -> None:
    assert followed.tail.next_read() is not None
    followed.tail.mark()
    followed.tail.answered(entries(1))

    assert followed.answer(1, 2) == at(1)
    assert followed.revoked == [1, 2]


def test_pages_are_read_until_one_is_not_full(followed: Followed) -> None:
    first = range(1, PAGE_ENTRIES + 1)
    second = range(PAGE_ENTRIES, 2 * PAGE_ENTRIES)

    followed.answer(*first)
    assert not followed.is_complete
    assert followed.answer(*second) == at(PAGE_ENTRIES)
    assert not followed.is_complete
    assert followed.answer(2 * PAGE_ENTRIES - 1) == at(2 * PAGE_ENTRIES - 1)

    assert followed.is_complete
    assert followed.revoked == list(range(1, 2 * PAGE_ENTRIES))


@pytest.mark.parametrize("numbers", [(), (6, 7), (1, 2), (4,)])
def test_the_stream_is_read_from_its_beginning_if_the_entry_held_is_gone(
    followed: Followed, numbers: tuple[int, ...]
) -> None:
    followed.answer(1, 5)
    followed.tail.mark()

    assert followed.answer(*numbers) == at(5)
    assert not followed.is_complete
    assert followed.revoked == [1, 5]

    assert followed.answer(*numbers) is None
    assert followed.is_complete
    assert followed.revoked == [1, 5, *numbers]


def test_the_stream_is_unknown_on_a_new_connection_until_it_is_read_again(
    followed: Followed,
) -> None:
    followed.answer(1)
    followed.tail.connected()

    assert not followed.is_complete
    assert followed.answer(1, 2) == at(1)
    assert followed.is_complete
    assert followed.revoked == [1, 2]


def test_a_read_that_was_lost_with_its_connection_is_sent_again(followed: Followed) -> None:
    assert followed.tail.next_read() is not None
    followed.tail.connected()

    followed.answer(1)

    assert followed.revoked == [1]


def test_a_malformed_entry_is_skipped_and_held(followed: Followed) -> None:
    assert followed.tail.next_read() is not None
    followed.tail.answered(
        [RevocationEntry(at(1), None), *entries(2), RevocationEntry(at(3), None)]
    )
    followed.tail.mark()

    assert followed.answer(3, 4) == at(3)
    assert followed.revoked == [2, 4]


def test_an_error_leaves_the_stream_unknown_until_it_is_read(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    assert followed.tail.next_read() is not None
    followed.tail.failed()

    assert followed.tail.knowledge is Knowledge.UNREADABLE
    assert followed.tail.next_read() is None, (
        "the next announcement, or the sweep, has it read again"
    )

    followed.tail.mark()
    followed.answer(1, 2)
    assert followed.is_complete
    assert followed.revoked == [1, 2]


def test_a_full_page_after_an_error_is_no_error_and_not_yet_complete(followed: Followed) -> None:
    assert followed.tail.next_read() is not None
    followed.tail.failed()
    followed.tail.mark()

    followed.answer(*range(1, PAGE_ENTRIES + 1))

    assert followed.tail.knowledge is Knowledge.UNREAD


def test_an_error_is_forgotten_when_the_entry_held_is_gone(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    assert followed.tail.next_read() is not None
    followed.tail.failed()
    followed.tail.mark()

    followed.answer(2)

    assert followed.tail.knowledge is Knowledge.UNREAD


def test_an_error_is_remembered_on_a_new_connection(followed: Followed) -> None:
    """So that it is logged once, and not again with each connection."""
    assert followed.tail.next_read() is not None
    followed.tail.failed()

    followed.tail.connected()

    assert followed.tail.knowledge is Knowledge.UNREADABLE


# -- entries that were dropped unread


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Followed:
    """A tail of a stream that keeps 100 revocations."""
    monkeypatch.setattr("sse_push.stream.revocations.REVOCATIONS_MAX", 100)
    return Followed()


def pages(first: int, last: int) -> list[range]:
    """Return the answers that hold these entries: each begins with the last of the one before."""
    starts = range(first, last, PAGE_ENTRIES - 1)
    return [range(start, min(start + PAGE_ENTRIES, last + 1)) for start in starts]


@pytest.mark.parametrize(("count", "dropped"), [(99, []), (100, [0.007]), (180, [0.007])])
def test_a_stream_as_long_as_it_may_be_has_dropped_older_entries(
    bounded: Followed, count: int, dropped: list[float]
) -> None:
    for numbers in pages(7, 6 + count):
        assert not bounded.is_complete
        assert bounded.dropped == []
        bounded.answer(*numbers)

    assert bounded.is_complete
    assert bounded.revoked == list(range(7, 7 + count))
    assert bounded.dropped == dropped


def test_nothing_was_dropped_after_the_entry_held(bounded: Followed) -> None:
    bounded.answer(1)
    bounded.tail.mark()
    for numbers in pages(1, 150):
        bounded.answer(*numbers)
    bounded.tail.connected()
    bounded.answer(150)

    assert bounded.is_complete
    assert bounded.dropped == []


def test_a_stream_that_was_dropped_past_the_entry_held_is_counted_from_its_beginning(
    bounded: Followed,
) -> None:
    bounded.answer(1)
    bounded.tail.mark()
    bounded.answer(*range(50, 50 + PAGE_ENTRIES))
    for numbers in pages(50, 160):
        bounded.answer(*numbers)

    assert bounded.is_complete
    assert bounded.dropped == [0.05]


def test_a_stream_is_counted_anew_if_it_is_dropped_while_it_is_read(bounded: Followed) -> None:
    bounded.answer(*range(1, 1 + PAGE_ENTRIES))
    bounded.answer(*range(70, 70 + PAGE_ENTRIES))  # the entry held is gone
    bounded.answer(*range(70, 70 + PAGE_ENTRIES))
    bounded.answer(*range(70 + PAGE_ENTRIES - 1, 170))

    assert bounded.is_complete
    assert bounded.dropped == [0.07]
