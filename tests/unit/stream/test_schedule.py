from __future__ import annotations

import pytest

from sse_push.stream.schedule import TRANSITIONS, Schedule, Scheduled


def scheduled(schedule: Schedule) -> Scheduled:
    stream = Scheduled()
    stream.schedule = schedule
    return stream


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Schedule.IDLE, Schedule.QUEUED),
        (Schedule.QUEUED, Schedule.QUEUED),
        (Schedule.READING, Schedule.READING_DIRTY),
        (Schedule.READING_DIRTY, Schedule.READING_DIRTY),
        (Schedule.PUT_OFF, Schedule.PUT_OFF),
    ],
)
def test_a_mark_is_never_lost(before: Schedule, after: Schedule) -> None:
    stream = scheduled(before)

    is_queued_now = stream.mark()

    assert stream.schedule is after
    assert is_queued_now is (before is Schedule.IDLE)


@pytest.mark.parametrize(
    ("before", "is_whole", "after"),
    [
        (Schedule.READING, True, Schedule.IDLE),
        (Schedule.READING, False, Schedule.QUEUED),
        (Schedule.READING_DIRTY, True, Schedule.QUEUED),
        (Schedule.READING_DIRTY, False, Schedule.QUEUED),
    ],
)
def test_an_answer_ends_its_read_and_another_follows_if_one_is_needed(
    before: Schedule, after: Schedule, *, is_whole: bool
) -> None:
    stream = scheduled(before)

    is_again = stream.finish_read(is_whole=is_whole)

    assert stream.schedule is after
    assert is_again is (after is Schedule.QUEUED)


@pytest.mark.parametrize("before", Schedule)
def test_a_stream_is_queued_on_a_new_connection_in_any_state(before: Schedule) -> None:
    stream = scheduled(before)

    stream.restart()

    assert stream.schedule is Schedule.QUEUED


@pytest.mark.parametrize("before", [each for each in Schedule if each is not Schedule.QUEUED])
def test_a_read_is_begun_only_when_the_stream_is_queued(before: Schedule) -> None:
    with pytest.raises(AssertionError, match="never becomes"):
        scheduled(before).begin_read()


@pytest.mark.parametrize("before", [Schedule.READING, Schedule.READING_DIRTY])
def test_a_read_that_is_refused_is_put_off(before: Schedule) -> None:
    stream = scheduled(before)

    stream.put_off()

    assert stream.schedule is Schedule.PUT_OFF


@pytest.mark.parametrize("before", [Schedule.IDLE, Schedule.QUEUED, Schedule.PUT_OFF])
def test_an_answer_without_a_read_is_found(before: Schedule) -> None:
    with pytest.raises(AssertionError, match="never becomes"):
        scheduled(before).finish_read(is_whole=True)


def test_the_table_has_every_state() -> None:
    assert set(TRANSITIONS) == set(Schedule)
    assert all(before not in after for before, after in TRANSITIONS.items())
