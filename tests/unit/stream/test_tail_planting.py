"""What a planted entry is to the tail: a position, and silent only inside continuity."""

from __future__ import annotations

import pytest

from sse_push.notification import Change, Entry
from sse_push.stream.reads import NEW_ENTRIES, Read
from tests.unit.stream.followed import Followed, at, entries, entry

PLANTING = Read("42", is_planting=True)


def plant(number: int) -> Entry:
    return entry(number)._replace(is_planted=True, fingerprint=number)


def answer(followed: Followed, *found: Entry) -> Read:
    watch, read = followed.send_one()
    followed.tail.answered(watch, list(found))
    return read


@pytest.fixture
def followed() -> Followed:
    return Followed(may_plant=True)


@pytest.fixture
def quiet(followed: Followed) -> Followed:
    """Follow a merchant whose one entry is planted."""
    followed.tail.watch("42")
    answer(followed)
    answer(followed, plant(7))
    return followed


# -- planted before it counts


def test_a_missing_stream_is_planted_before_it_counts_as_armed(followed: Followed) -> None:
    followed.tail.watch("42")

    assert answer(followed) == Read("42")
    assert followed.armed == []
    assert answer(followed, plant(7)) == PLANTING
    assert followed.armed == [("42", at(7))]
    assert followed.changes == []
    assert followed.reads() == []


def test_a_stream_that_has_entries_is_not_planted(followed: Followed) -> None:
    followed.tail.watch("42")
    answer(followed, entry(7))

    assert followed.armed == [("42", at(7))]
    assert followed.reads() == []


def test_a_stream_that_could_not_be_planted_is_armed_without_entries(followed: Followed) -> None:
    followed.tail.watch("42")
    answer(followed)

    assert answer(followed) == PLANTING
    assert followed.armed == [("42", None)]
    assert followed.reads() == []


def test_a_key_that_holds_no_stream_is_not_planted(followed: Followed) -> None:
    followed.tail.watch("42")
    followed.fail()

    assert followed.armed == [("42", None)]
    assert followed.reads() == []


def test_a_plant_whose_connection_is_lost_is_armed_by_the_next_read(followed: Followed) -> None:
    followed.tail.watch("42")
    answer(followed)
    followed.reads()
    followed.tail.connected(has_history=True)

    assert answer(followed, plant(7)) == Read("42")
    assert followed.armed == [("42", at(7))]


# -- silent inside continuity


def test_a_planted_entry_changes_the_newest_id_and_says_nothing(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet, plant(7), plant(8))

    assert quiet.changes == [Change("42", at(8), ())]


def test_a_planted_entry_among_others_is_left_out(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet, plant(7), plant(8), entry(9), plant(10))

    assert quiet.changes == [Change("42", at(10), (entry(9),))]


def test_a_new_connection_that_finds_the_planted_entry_is_silent(quiet: Followed) -> None:
    quiet.tail.connected(has_history=True)
    answer(quiet, plant(7))

    assert quiet.changes == []


def test_an_answer_full_of_planted_entries_is_published_as_the_newest_id(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet, *(plant(number) for number in range(7, 8 + NEW_ENTRIES)))
    answer(quiet, plant(500))

    assert quiet.changes == [Change("42", at(500))]


# -- taken up anew


@pytest.mark.parametrize("loss", ["other", "nothing"])
def test_a_stream_that_is_gone_is_planted_and_one_resync(quiet: Followed, loss: str) -> None:
    quiet.tail.announced("42")
    answer(quiet, *([plant(8)] if loss == "other" else []))

    assert answer(quiet) == Read("42")
    assert quiet.changes == []
    assert answer(quiet, plant(9)) == PLANTING
    assert quiet.changes == [Change("42", at(9), is_resync=True)]
    assert quiet.tail.tally.resyncs["stream_gone"] == 1


def test_a_stream_that_is_gone_and_could_not_be_planted_is_a_resync(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet)
    answer(quiet)

    assert answer(quiet) == PLANTING
    assert quiet.changes == [Change("42", None, is_resync=True)]


def test_a_planted_entry_of_another_process_is_a_resync_if_ours_is_gone(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet, plant(8))
    answer(quiet, plant(8))

    assert quiet.changes == [Change("42", at(8), is_resync=True)]


def test_a_stream_that_is_gone_after_a_full_answer_is_a_resync(quiet: Followed) -> None:
    quiet.tail.announced("42")
    answer(quiet, *(entries(*range(8, 8 + NEW_ENTRIES))), plant(500))
    quiet.tail.announced("42")
    answer(quiet)
    answer(quiet, plant(501))

    assert quiet.changes == [Change("42", at(501), is_resync=True)]


def test_another_server_without_the_stream_is_planted_and_counted_as_that(
    quiet: Followed,
) -> None:
    quiet.tail.connected(has_history=False)
    answer(quiet)

    assert answer(quiet, plant(3)) == PLANTING
    assert quiet.changes == [Change("42", at(3), is_resync=True)]
    assert quiet.tail.tally.resyncs["server_changed"] == 1


# -- planted late


@pytest.fixture
def unplanted() -> Followed:
    """Follow a merchant that could not be planted at first."""
    followed = Followed(may_plant=False)
    followed.follow()
    followed.may_plant = True
    return followed


def test_a_late_plant_speaks(unplanted: Followed) -> None:
    unplanted.tail.turns.sweep()

    assert answer(unplanted) == Read("42")
    assert answer(unplanted, plant(7)) == PLANTING
    assert unplanted.changes == [Change("42", at(7))]


def test_a_late_plant_that_fails_is_no_change(unplanted: Followed) -> None:
    unplanted.tail.turns.sweep()
    answer(unplanted)
    answer(unplanted)

    assert unplanted.changes == []
    assert unplanted.reads() == []


def test_an_entry_that_came_and_went_is_a_resync_with_the_planted_entry(
    unplanted: Followed,
) -> None:
    unplanted.tail.announced("42")
    answer(unplanted)

    assert answer(unplanted, plant(7)) == PLANTING
    assert unplanted.changes == [Change("42", at(7), is_resync=True)]


def test_the_plant_of_another_process_speaks(unplanted: Followed) -> None:
    unplanted.tail.announced("42")
    answer(unplanted, plant(7))

    assert unplanted.changes == [Change("42", at(7))]
