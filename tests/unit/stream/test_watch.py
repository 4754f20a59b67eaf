from __future__ import annotations

import pytest

from sse_push.notification import EntryId
from sse_push.stream.reads import Held
from sse_push.stream.watch import TRANSITIONS, Gap, Position, Watch


def watch_at(position: Position) -> Watch:
    watch = Watch("42")
    watch.position = position
    return watch


def test_a_watch_begins_unread() -> None:
    watch = Watch("42")

    assert watch.position is Position.UNREAD
    assert watch.held is None


@pytest.mark.parametrize("before", [Position.UNREAD, Position.HOLDS, Position.BEHIND])
def test_a_watch_holds_an_entry_from_any_open_position(before: Position) -> None:
    watch = watch_at(before)

    watch.hold(Held(EntryId(7, 0), 1))

    assert watch.position is Position.HOLDS
    assert watch.held == Held(EntryId(7, 0), 1)


@pytest.mark.parametrize("before", [Position.HOLDS, Position.BEHIND])
def test_a_watch_that_falls_behind_knows_the_latest_reason_only(before: Position) -> None:
    watch = watch_at(before)
    watch.gap = Gap(EntryId(7, 0), "history_lost")

    watch.fall_behind(None, "server_changed")

    assert watch.position is Position.BEHIND
    assert watch.gap == Gap(None, "server_changed")


def test_a_watch_that_was_followed_elsewhere_begins_behind_and_is_read_from_there() -> None:
    watch = Watch("42")

    watch.fall_behind(None, "server_changed")
    watch.hold(None)

    assert watch.position is Position.HOLDS


@pytest.mark.parametrize("position", [each for each in Position if each is not Position.CLOSED])
def test_a_closed_watch_stays_closed(position: Position) -> None:
    watch = watch_at(position)
    watch.close()

    for change in (watch.close, lambda: watch.hold(None)):
        with pytest.raises(AssertionError, match="CLOSED never becomes"):
            change()


def test_a_cause_goes_with_the_read_that_is_sent() -> None:
    watch = Watch("42")
    watch.mark()
    watch.next_has_cause = True

    watch.begin_read()

    assert watch.read_has_cause
    assert not watch.next_has_cause


def test_the_table_has_every_position() -> None:
    assert set(TRANSITIONS) == set(Position)
    assert all(before not in after for before, after in TRANSITIONS.items())
