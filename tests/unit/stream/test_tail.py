"""Which streams are followed, and when each is read; what a resync is counted as."""

from __future__ import annotations

import pytest

from sse_push.notification import Change, EntryId
from sse_push.stream.reads import NEW_ENTRIES, Read
from tests.unit.stream.followed import MOST, Followed, at, entries, entry

# -- arming


def test_a_watched_stream_is_read_for_its_newest_entry(followed: Followed) -> None:
    followed.tail.watch("42")

    assert followed.reads() == [Read("42")]
    assert followed.reads() == []
    assert len(followed.tail) == 1


@pytest.mark.parametrize(("numbers", "newest"), [([7], at(7)), ([], None)])
def test_the_first_answer_arms_the_stream_with_its_newest_id(
    followed: Followed, numbers: list[int], newest: EntryId | None
) -> None:
    followed.tail.watch("42")
    followed.answer(*numbers)

    assert followed.armed == [("42", newest)]
    assert followed.changes == []
    assert followed.reads() == []


def test_a_key_that_holds_no_stream_is_armed_as_a_stream_without_entries(
    followed: Followed,
) -> None:
    followed.tail.watch("42")
    followed.fail()

    assert followed.armed == [("42", None)]
    assert followed.changes == []

    followed.tail.announced("42")
    followed.answer(8)

    assert followed.armed == [("42", None)]
    assert followed.changes == [Change("42", at(8))]


def test_a_stream_is_armed_once(followed: Followed) -> None:
    followed.follow(7)

    followed.tail.announced("42")
    followed.answer(7, 8)

    assert followed.armed == [("42", at(7))]


def test_a_merchant_is_watched_once(followed: Followed) -> None:
    followed.tail.watch("42")

    with pytest.raises(AssertionError, match="a merchant is watched once"):
        followed.tail.watch("42")


def test_many_streams_are_read_together_in_the_order_in_which_they_were_watched(
    followed: Followed,
) -> None:
    for number in range(10):
        followed.tail.watch(f"m{number}")

    assert followed.reads(4) == [Read(f"m{number}") for number in range(4)]
    assert followed.reads(100) == [Read(f"m{number}") for number in range(4, 10)]


# -- leaving


def test_a_stream_that_is_followed_no_longer_is_not_read(followed: Followed) -> None:
    followed.tail.watch("42")
    followed.tail.watch("43")
    followed.tail.unwatch("42")

    assert followed.reads() == [Read("43")]
    assert len(followed.tail) == 1


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_answer_that_arrives_after_unwatch_is_ignored(
    followed: Followed, *, is_refused: bool
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.send_one()
    followed.tail.unwatch("42")
    followed.tail.watch("42")

    if is_refused:
        followed.tail.failed(watch)
    else:
        followed.tail.answered(watch, entries(7, 8))

    assert followed.armed == [("42", at(7))]
    assert followed.changes == []
    assert followed.reads() == [Read("42")]  # the new watch's own


def test_an_announcement_that_arrives_after_unwatch_is_ignored(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.unwatch("42")
    followed.tail.announced("42")

    assert followed.reads() == []


@pytest.mark.parametrize("is_dirty", [True, False])
def test_a_stream_that_its_listener_leaves_on_an_answer_is_not_read_again(
    followed: Followed, *, is_dirty: bool
) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    if is_dirty:
        followed.tail.announced("42")
    followed.on_arming = lambda: followed.tail.unwatch("42")

    followed.tail.answered(watch, entries(7))

    assert followed.armed == [("42", at(7))]
    assert not followed.tail.has_reads
    assert len(followed.tail) == 0


# -- a new connection


def test_all_streams_are_read_again_on_a_new_connection(followed: Followed) -> None:
    followed.follow(7, merchant_id="42")
    followed.follow(merchant_id="43")
    followed.tail.announced("42")
    followed.reads()  # on its way when the connection was lost
    followed.tail.watch("44")  # not sent yet

    followed.tail.connected(has_history=True)

    assert followed.reads() == [Read("42", at(7)), Read("43"), Read("44")]
    assert followed.reads() == []


def test_a_new_connection_to_the_same_server_may_bring_nothing_new(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=True)
    followed.answer(7)

    assert followed.changes == []


def test_an_entry_that_was_added_between_two_connections_is_published(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=True)

    assert followed.answer(7, 8) == Read("42", at(7))
    assert followed.changes == [Change("42", at(8), (entry(8),))]


def test_an_entry_that_came_and_went_between_two_connections_is_a_resync(
    followed: Followed,
) -> None:
    followed.follow()
    followed.tail.connected(has_history=True)
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


@pytest.mark.parametrize("newest", [[], [3], [7], [9]])
def test_another_server_is_a_resync_even_if_its_newest_id_is_the_one_held(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)

    assert followed.answer(*newest) == Read("42")
    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]


def test_a_stream_that_is_unread_is_armed_by_another_server_without_a_resync(
    followed: Followed,
) -> None:
    followed.tail.watch("42")
    followed.reads()
    followed.tail.connected(has_history=False)

    assert followed.answer(7) == Read("42")
    assert followed.armed == [("42", at(7))]
    assert followed.changes == []

    followed.tail.announced("42")

    assert followed.answer(7, 8) == Read("42", at(7))


def test_a_stream_that_the_tail_is_behind_on_stays_so_on_a_new_connection(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.reads()
    followed.tail.connected(has_history=True)

    assert followed.answer(500) == Read("42")
    assert followed.changes == [Change("42", at(500))]


# -- the sweep


def test_a_sweep_reads_every_stream_once_in_a_round(followed: Followed) -> None:
    for number in range(7):
        followed.follow(number, merchant_id=f"m{number}")

    rounds: list[str] = []
    for _ in range(4):
        followed.tail.sweep(0.25)
        for watch, read in followed.tail.reads(MOST):
            rounds.append(read.merchant_id)
            followed.tail.answered(watch, entries(int(read.merchant_id[1:])))

    assert rounds[:7] == [f"m{number}" for number in range(7)]
    assert len(rounds) == 8
    assert followed.changes == []


def test_a_sweep_finds_a_change_that_was_never_announced(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.sweep(1 / 30)
    followed.answer(7, 8)

    assert followed.changes == [Change("42", at(8), (entry(8),))]


def test_a_sweep_skips_streams_that_were_left_and_reaches_new_ones(followed: Followed) -> None:
    for merchant_id in ("1", "2"):
        followed.follow(7, merchant_id=merchant_id)
    followed.tail.sweep(0.5)
    assert followed.answer(7).merchant_id == "1"
    followed.tail.unwatch("2")
    followed.follow(7, merchant_id="3")

    followed.tail.sweep(0.5)
    left = followed.reads()
    followed.tail.sweep(1)

    assert left == []
    assert [read.merchant_id for read in followed.reads()] == ["1", "3"]


def test_a_sweep_without_streams_reads_nothing(followed: Followed) -> None:
    followed.tail.sweep(1)

    assert followed.reads() == []


# -- what is counted


def lost(followed: Followed) -> list[str]:
    """Return the reasons of all resyncs; each was published once."""
    resyncs = followed.tail.tally.resyncs
    reasons: list[str] = [reason for reason, count in resyncs.items() for _ in range(count)]
    assert len(reasons) == sum(change.is_resync for change in followed.changes)
    return reasons


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([[8, 9], [9]], ["history_lost"]),
        ([[], [3]], ["history_lost"]),
        ([[], []], ["stream_gone"]),
        ([[*range(7, 8 + NEW_ENTRIES)], [3]], ["history_lost"]),
        ([[*range(7, 8 + NEW_ENTRIES)], []], ["stream_gone"]),
        ([[*range(7, 8 + NEW_ENTRIES)], [500]], []),
        ([None], ["not_a_stream"]),
        ([[], None], ["not_a_stream"]),
        ([[7, 8]], []),
    ],
)
def test_a_resync_is_counted_by_its_reason(
    followed: Followed, answers: list[list[int] | None], reason: list[str]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")

    for numbers in answers:
        if numbers is None:
            followed.fail()
        else:
            followed.answer(*numbers)

    assert lost(followed) == reason


@pytest.mark.parametrize("newest", [[], [3], [7], [9]])
def test_a_resync_after_a_change_of_server_is_counted_as_that(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(*newest)

    assert lost(followed) == ["server_changed"]


def test_a_stream_that_is_deleted_after_a_change_of_server_is_counted_by_itself(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(9)
    followed.tail.announced("42")
    followed.answer()
    followed.answer()

    assert sorted(lost(followed)) == ["server_changed", "stream_gone"]


def test_history_that_is_lost_after_a_change_of_server_is_counted_by_itself(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(9)
    followed.tail.announced("42")
    followed.answer(*range(9, 10 + NEW_ENTRIES))
    followed.answer(3)

    assert sorted(lost(followed)) == ["history_lost", "server_changed"]


def test_an_entry_that_came_and_went_is_counted_as_a_stream_that_is_gone(
    followed: Followed,
) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()

    assert lost(followed) == ["stream_gone"]
