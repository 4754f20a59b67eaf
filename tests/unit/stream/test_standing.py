"""Which streams are read on a connection of their own, and for how long."""

from __future__ import annotations

import logging

import pytest

from sse_push.stream.standing import TRANSITIONS, Standing, Standings

CAUSE = Exception("expected a small reply, got a large one")


class Timed:
    """Standings, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.standings = Standings(lambda: self.now)

    def of(self, stream: str | None) -> Standing | None:
        record = self.standings.records.get(stream)
        return None if record is None else record.standing

    def pause_s(self, stream: str | None) -> float:
        """Wait until the stream may be read, and return how long that was."""
        began = self.now
        while not self.standings.may_be_read(stream):
            self.now += 1
        return self.now - began


@pytest.fixture
def timed() -> Timed:
    return Timed()


def test_a_stream_without_a_standing_may_be_read(timed: Timed) -> None:
    timed.standings.answered("42")

    assert timed.of("42") is None
    assert timed.standings.may_be_read("42")


def test_a_suspect_is_cleared_by_its_reply(timed: Timed) -> None:
    timed.standings.suspect("42")
    timed.standings.suspect("42")
    before = timed.of("42")
    may_be_read = timed.standings.may_be_read("42")
    timed.standings.answered("42")

    assert before is Standing.SUSPECT
    assert may_be_read
    assert timed.of("42") is None


def test_a_suspect_is_the_cause_if_its_own_connection_is_lost_twice(timed: Timed) -> None:
    timed.standings.suspect("42")
    timed.standings.cut_alone("42", CAUSE)
    once = timed.of("42")
    timed.standings.cut_alone("42", CAUSE)

    assert once is Standing.SUSPECT
    assert timed.of("42") is Standing.OVERSIZED
    assert not timed.standings.may_be_read("42")


def test_cuts_with_a_reply_between_them_are_coincidences(timed: Timed) -> None:
    timed.standings.exceeded("42", CAUSE)
    timed.pause_s("42")
    for _ in range(3):
        timed.standings.cut_alone("42", CAUSE)
        timed.standings.answered("42")

    assert timed.of("42") is Standing.ON_PROBATION


def test_a_pause_grows_up_to_a_limit(timed: Timed) -> None:
    pauses = []
    for _ in range(9):
        timed.standings.exceeded("42", CAUSE)
        pauses.append(timed.pause_s("42"))

    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_a_stream_that_was_too_large_is_trusted_long_after_that(timed: Timed) -> None:
    timed.standings.exceeded("42", CAUSE)
    timed.pause_s("42")
    timed.standings.answered("42")
    at_first = timed.of("42")
    may_be_read = timed.standings.may_be_read("42")
    timed.standings.answered("42")
    again = timed.of("42")
    timed.now += 600
    timed.standings.answered("42")

    assert at_first is again is Standing.ON_PROBATION
    assert may_be_read
    assert timed.of("42") is None


def test_a_stream_on_probation_that_is_too_large_again_has_a_longer_pause(timed: Timed) -> None:
    timed.standings.exceeded("42", CAUSE)
    timed.pause_s("42")
    timed.standings.answered("42")
    timed.standings.exceeded("42", CAUSE)

    assert timed.of("42") is Standing.OVERSIZED
    assert timed.pause_s("42") == 20


def test_the_log_has_one_line_when_a_stream_becomes_too_large_and_one_at_its_end(
    timed: Timed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        timed.standings.exceeded("42", CAUSE)
        timed.pause_s("42")
        timed.standings.answered("42")
    timed.now += 600
    timed.standings.answered("42")
    timed.standings.suspect("43")
    timed.standings.answered("43")

    assert [record.getMessage() for record in caplog.records] == [
        f"stream is too large, each change is a resync merchant_id=42 cause={CAUSE}",
        "stream is read again merchant_id=42",
    ]


def test_no_more_streams_are_remembered_than_the_limit(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.standing._REMEMBERED", 2)
    for stream in ("1", None, "3"):
        timed.standings.suspect(stream)

    assert list(timed.standings.records) == [None, "3"]


def test_the_table_has_every_standing() -> None:
    assert set(TRANSITIONS) == set(Standing)
    assert all(before not in after for before, after in TRANSITIONS.items())
