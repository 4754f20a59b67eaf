"""Which streams are followed, and when each is read; what a resync is counted as."""

from __future__ import annotations

import pytest

from sse_push.notification import Change, Entry, EntryId, Notification
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


# -- a server that refuses reads


def test_a_read_that_is_refused_concludes_nothing_and_is_sent_again(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, read = followed.send_one()

    followed.tail.refused(watch)
    followed.tail.announced("42")
    for _ in range(MOST):
        followed.tail.turns.sweep()
    at_once = followed.reads()
    followed.tail.turns.retry(1)
    again = followed.answer(7, 8)

    assert at_once == []
    assert again == read
    assert [change.newest for change in followed.changes] == [at(8)]


def test_a_read_that_is_refused_keeps_its_cause(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    watch, _ = followed.send_one()

    followed.tail.refused(watch)
    followed.tail.turns.retry(1)
    followed.answer()

    assert [change.is_resync for change in followed.changes] == [True]


def test_a_stream_whose_first_read_is_refused_is_armed_by_a_later_one(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()

    followed.tail.refused(watch)
    before = list(followed.armed)
    followed.tail.turns.retry(1)
    followed.answer(7)

    assert before == []
    assert followed.armed == [("42", at(7))]


def test_the_reads_that_were_refused_first_are_sent_again_first(followed: Followed) -> None:
    for merchant_id in ("41", "42", "43"):
        followed.tail.watch(merchant_id)
    for watch, _ in followed.tail.reads(3):
        followed.tail.refused(watch)

    followed.tail.turns.retry(2)

    assert followed.reads() == [Read("41"), Read("42")]


def test_a_new_connection_reads_what_was_refused_once(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    followed.tail.refused(watch)

    followed.tail.connected(has_history=True)
    followed.tail.turns.retry(1)

    assert followed.reads() == [Read("42")]


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


def test_streams_that_come_and_go_while_redis_is_away_leave_nothing_behind(
    followed: Followed,
) -> None:
    for number in range(100):
        followed.tail.watch(f"m{number}")
        followed.tail.unwatch(f"m{number}")

    assert not followed.tail.turns
    assert followed.reads() == []


def test_a_refusal_that_arrives_after_unwatch_is_ignored(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    followed.tail.unwatch("42")

    followed.tail.refused(watch)
    followed.tail.turns.retry(1)

    assert followed.reads() == []


def test_a_stream_that_is_left_while_it_is_put_off_is_not_read(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    followed.tail.refused(watch)
    followed.tail.unwatch("42")

    followed.tail.turns.retry(1)

    assert followed.reads() == []


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
    assert not followed.tail.turns
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


def swept(followed: Followed) -> list[str]:
    """Take one step of a sweep, answer its reads with nothing new, and return whose they were."""
    followed.tail.turns.sweep()
    sent = followed.tail.reads(MOST)
    for watch, read in sent:
        followed.tail.answered(watch, [Entry(read.start or at(7), Notification("42"))])
    return [read.merchant_id for _, read in sent]


def test_a_sweep_reads_every_stream_once_in_a_round() -> None:
    followed = Followed(sweep_steps=4)
    for number in range(7):
        followed.follow(number, merchant_id=f"m{number}")

    rounds = [merchant_id for _ in range(4) for merchant_id in swept(followed)]

    assert rounds == [*(f"m{number}" for number in range(7)), "m0"]
    assert followed.changes == []


def test_a_sweep_finds_a_change_that_was_never_announced(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.turns.sweep()
    followed.answer(7, 8)

    assert followed.changes == [Change("42", at(8), (entry(8),))]


def test_a_sweep_reaches_a_new_stream_within_a_round_though_thousands_were_left() -> None:
    followed = Followed(sweep_steps=30)
    for number in range(10_000):
        followed.follow(7, merchant_id=f"left-{number}")
    swept(followed)
    for number in range(10_000):
        followed.tail.unwatch(f"left-{number}")
    for number in range(100):
        followed.follow(7, merchant_id=f"new-{number}")

    reached = {merchant_id for _ in range(30) for merchant_id in swept(followed)}

    assert reached == {f"new-{number}" for number in range(100)}


def test_a_sweep_without_streams_reads_nothing(followed: Followed) -> None:
    followed.tail.turns.sweep()

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
