"""When a stream is read: at once, or later, after many announcements that were no change."""

from __future__ import annotations

from sse_push.stream.reads import Read
from sse_push.stream.turns import _IN_VAIN
from tests.unit.stream.followed import Followed, at, entries


def announce_in_vain(followed: Followed, times: int = _IN_VAIN) -> None:
    for _ in range(times):
        followed.tail.announced("42")
        followed.answer(7)


def test_a_stream_that_was_announced_in_vain_a_few_times_is_read_at_once(
    followed: Followed,
) -> None:
    followed.follow(7)
    announce_in_vain(followed, _IN_VAIN - 1)

    followed.tail.announced("42")

    assert followed.reads() == [Read("42", at(7))]
    assert not followed.tail.turns.has_late


def test_a_stream_that_was_announced_in_vain_many_times_is_read_a_little_later(
    followed: Followed,
) -> None:
    followed.follow(7)
    announce_in_vain(followed)

    for _ in range(3):
        followed.tail.announced("42")
    at_once = followed.reads()
    is_late = followed.tail.turns.has_late
    followed.tail.turns.collect()
    followed.answer(7, 8)

    assert at_once == []
    assert is_late
    assert not followed.tail.turns.has_late
    assert [change.newest for change in followed.changes] == [at(8)]


def test_a_stream_that_is_announced_in_vain_during_a_read_is_read_a_little_later(
    followed: Followed,
) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")
    followed.tail.turns.collect()
    watch, _ = followed.send_one()
    followed.tail.announced("42")

    followed.tail.answered(watch, entries(7))
    at_once = followed.reads()
    followed.tail.turns.collect()

    assert at_once == []
    assert followed.reads() == [Read("42", at(7))]


def test_a_stream_with_a_new_entry_is_read_at_once_again(followed: Followed) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")
    followed.tail.turns.collect()
    followed.answer(7, 8)

    followed.tail.announced("42")

    assert followed.reads() == [Read("42", at(8))]


def test_a_missing_stream_that_is_announced_again_and_again_is_read_a_little_later(
    followed: Followed,
) -> None:
    followed.follow()
    for _ in range(_IN_VAIN):
        followed.tail.announced("42")
        followed.answer()

    followed.tail.announced("42")

    assert followed.reads() == []
    assert followed.tail.turns.has_late


def test_an_answer_that_shows_a_loss_is_followed_by_a_read_at_once(followed: Followed) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")
    followed.tail.turns.collect()
    watch, _ = followed.send_one()
    followed.tail.announced("42")

    followed.tail.answered(watch, [])

    assert followed.reads() == [Read("42")]


def test_a_sweep_leaves_a_late_stream_where_it_is(followed: Followed) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")

    followed.tail.turns.sweep()

    assert followed.reads() == []
    assert followed.tail.turns.has_late


def test_a_late_stream_that_is_followed_no_longer_is_not_read(followed: Followed) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")

    followed.tail.unwatch("42")
    followed.tail.turns.collect()

    assert followed.reads() == []


def test_a_late_stream_is_read_at_once_on_a_new_connection(followed: Followed) -> None:
    followed.follow(7)
    announce_in_vain(followed)
    followed.tail.announced("42")

    followed.tail.connected(has_history=True)

    assert followed.answer(7) == Read("42", at(7))
    assert not followed.tail.turns.has_late
    followed.tail.announced("42")
    assert followed.reads() == [Read("42", at(7))]
