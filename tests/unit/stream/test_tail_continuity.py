"""What an answer means: the rules of the theory of operation in ``tail``, one by one."""

from __future__ import annotations

import pytest

from sse_push.notification import Change, Entry
from sse_push.stream.reads import NEW_ENTRIES, Read
from tests.unit.stream.followed import MOST, Followed, at, entries, entry

# -- what is new


def test_an_announced_stream_is_read_from_the_id_held_inclusive(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")

    assert followed.answer(7, 8, 9) == Read("42", at(7))
    assert followed.changes == [Change("42", at(9), (entry(8), entry(9)))]
    assert followed.reads() == []

    followed.tail.announced("42")

    assert followed.answer(9, 10) == Read("42", at(9))
    assert followed.changes[1:] == [Change("42", at(10), (entry(10),))]


def test_an_announcement_is_no_change_if_the_id_held_is_still_the_newest(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(7)

    assert followed.changes == []
    assert followed.reads() == []


def test_an_announcement_of_a_stream_that_is_not_watched_is_ignored(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("43")

    assert followed.reads() == []


def test_several_announcements_before_a_read_cause_one_read(followed: Followed) -> None:
    followed.follow(7)
    for _ in range(3):
        followed.tail.announced("42")

    assert followed.reads() == [Read("42", at(7))]


def test_an_announcement_of_all_keys_has_all_streams_read(followed: Followed) -> None:
    followed.follow(7, merchant_id="42")
    followed.follow(8, merchant_id="43")
    followed.tail.announced(None)

    assert followed.reads() == [Read("42", at(7)), Read("43", at(8))]


def test_an_announcement_of_all_keys_changes_nothing_where_the_entry_held_is_there(
    followed: Followed,
) -> None:
    """Another database was flushed."""
    followed.follow(7)
    followed.tail.announced(None)
    followed.answer(7)

    assert followed.changes == []


def test_a_missing_stream_resyncs_after_an_announcement_of_all_keys(followed: Followed) -> None:
    """From the flush to the read nothing was armed: what came, and was deleted, was not told."""
    followed.follow()
    followed.tail.announced(None)
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_the_first_entries_of_a_stream_are_published_without_their_topics(
    followed: Followed,
) -> None:
    followed.follow()
    followed.tail.announced("42")

    assert followed.answer(7) == Read("42")
    assert followed.changes == [Change("42", at(7))]


# -- the dirty mark


def test_a_stream_that_is_announced_during_a_read_is_read_again(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.send_one()

    followed.tail.announced("42")

    assert followed.reads() == []  # never two reads of one stream at once

    followed.tail.answered(watch, entries(7, 8))

    assert followed.answer(8, 9) == Read("42", at(8))
    assert [change.newest for change in followed.changes] == [at(8), at(9)]
    assert followed.reads() == []


def test_a_stream_that_is_announced_during_its_first_read_is_read_again(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    followed.tail.announced("42")
    followed.tail.answered(watch, [])

    assert followed.answer(8) == Read("42")
    assert followed.armed == [("42", None)]
    assert followed.changes == [Change("42", at(8))]


def test_a_stream_that_is_announced_during_a_read_that_fails_is_read_again(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.send_one()
    followed.tail.announced("42")
    followed.tail.failed(watch)

    assert followed.answer(8) == Read("42")
    assert followed.changes == [Change("42", None, is_resync=True), Change("42", at(8))]


def test_an_entry_that_came_and_went_during_a_read_is_a_resync(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.send_one()
    followed.tail.announced("42")
    followed.tail.answered(watch, [])
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


# -- continuity


@pytest.mark.parametrize(
    ("found", "newest"),
    [
        ([8, 9], [9]),  # trimmed past us
        ([9], [9]),
        ([], []),  # deleted
        ([], [3]),  # another history, with lower IDs
        ([8], []),  # deleted meanwhile
    ],
)
def test_an_answer_that_does_not_begin_with_the_id_held_is_a_resync(
    followed: Followed, found: list[int], newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*found)

    assert followed.changes == []

    assert followed.answer(*newest) == Read("42")
    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]
    assert followed.reads() == []


@pytest.mark.parametrize("later", [[], entries(8)])
def test_an_entry_with_the_id_held_and_other_fields_is_a_resync(
    followed: Followed, later: list[Entry]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.send_one()
    followed.tail.answered(watch, [entry(7)._replace(fingerprint=1), *later])

    assert followed.changes == []

    watch, read = followed.send_one()
    assert read == Read("42")
    followed.tail.answered(watch, [entry(7)._replace(fingerprint=1)])
    assert followed.changes == [Change("42", at(7), is_resync=True)]


def test_an_answer_to_a_sweep_that_does_not_begin_with_the_id_held_is_a_resync(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.turns.sweep()
    followed.answer()
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_the_tail_continues_from_the_lower_id_after_a_resync(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer()
    followed.answer(3)
    followed.tail.announced("42")

    assert followed.answer(3, 4) == Read("42", at(3))
    assert followed.changes[1:] == [Change("42", at(4), (entry(4),))]


def test_an_empty_stream_that_was_announced_is_a_resync(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_an_empty_stream_that_a_sweep_finds_empty_is_no_change(followed: Followed) -> None:
    followed.follow()
    followed.tail.turns.sweep()
    followed.answer()

    assert followed.changes == []


def test_a_cause_is_used_up_by_the_read_that_it_leads_to(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()
    followed.tail.turns.sweep()
    followed.answer()

    assert len(followed.changes) == 1


# -- bounded, and complete


def test_an_answer_that_is_not_full_is_published_entry_by_entry(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES))

    newest = 7 + NEW_ENTRIES - 1
    assert followed.changes == [Change("42", at(newest), tuple(entries(*range(8, newest + 1))))]
    assert followed.reads() == []


def test_a_full_answer_is_published_as_the_newest_id_only(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))

    assert followed.changes == []

    assert followed.answer(500) == Read("42")
    assert followed.changes == [Change("42", at(500))]
    assert followed.reads() == []

    followed.tail.announced("42")

    assert followed.answer(500, 501) == Read("42", at(500))
    assert followed.changes[1:] == [Change("42", at(501), (entry(501),))]


def test_the_last_entry_of_a_full_answer_may_be_the_newest(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.answer(7 + NEW_ENTRIES)

    assert followed.changes == [Change("42", at(7 + NEW_ENTRIES))]


@pytest.mark.parametrize("newest", [[], [3], [7 + NEW_ENTRIES - 1]])
def test_a_newest_entry_that_is_older_than_a_full_answer_is_a_resync(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.answer(*newest)

    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]


# -- one bad stream


def test_an_announced_key_that_holds_no_stream_any_more_is_a_resync(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.fail()

    assert followed.changes == [Change("42", None, is_resync=True)]
    assert followed.reads() == []


def test_a_swept_key_that_holds_no_stream_any_more_is_a_resync(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.turns.sweep()
    followed.fail()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_a_key_that_holds_no_stream_any_more_while_the_tail_is_behind_is_one_resync(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer()
    followed.fail()
    followed.tail.announced("42")
    followed.answer(8)

    assert followed.changes == [Change("42", None, is_resync=True), Change("42", at(8))]


def test_each_change_of_a_key_that_holds_no_stream_is_a_resync(followed: Followed) -> None:
    followed.follow()
    for _ in range(2):
        followed.tail.announced("42")
        followed.fail()

    assert followed.changes == [Change("42", None, is_resync=True)] * 2


def test_a_key_that_holds_no_stream_is_no_change_to_a_sweep(followed: Followed) -> None:
    followed.follow()
    followed.tail.turns.sweep()
    followed.fail()

    assert followed.changes == []


def test_a_stream_that_cannot_be_read_harms_no_other(followed: Followed) -> None:
    for merchant_id in ("1", "2", "3"):
        followed.follow(7, merchant_id=merchant_id)
    followed.tail.announced(None)
    first, second, third = (watch for watch, _ in followed.tail.reads(MOST))

    followed.tail.answered(first, entries(7, 8))
    followed.tail.failed(second)
    followed.tail.answered(third, entries(7, 8))

    assert [(each.merchant_id, each.newest, each.is_resync) for each in followed.changes] == [
        ("1", at(8), False),
        ("2", None, True),
        ("3", at(8), False),
    ]
