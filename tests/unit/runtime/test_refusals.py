from __future__ import annotations

import re

import pytest

from sse_push.errors import Refusal, RefusalReason
from sse_push.runtime.log_pace import INTERVAL_S
from sse_push.runtime.refusals import SUBJECTS_MAX, Refusals
from tests.harness.clock import ManualClock

ORIGIN = RefusalReason.ORIGIN_NOT_ALLOWED


class Log:
    """The refusals of a process under a clock of the test's, and their lines."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.clock = ManualClock()
        self.refusals = Refusals(self.clock.time)
        self._caplog = caplog

    def lines(self) -> list[tuple[str, int]]:
        """Return whom or what each new line is about, and its count."""
        found = re.findall(r" who=(.*) setting=.* count=(\d+)$", self._caplog.text, re.MULTILINE)
        self._caplog.clear()
        return [(who, int(count)) for who, count in found]

    def refuse(self, *names: str, reason: RefusalReason = ORIGIN) -> None:
        for name in names:
            self.refusals.add(reason, "/events", name)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.refusals.log_due()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_a_line_has_the_reason_the_status_the_path_and_the_setting_that_decides(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    log.refuse("origin https://evil.test")
    log.refuse("address 192.0.2.1", reason=RefusalReason.NOT_FOUND)

    assert [record.getMessage() for record in caplog.records] == [
        "refused reason=origin_not_allowed status=403 path=/events who=origin https://evil.test "
        "setting=allowed_origins count=1",
        "refused reason=not_found status=404 path=/events who=address 192.0.2.1 setting=- count=1",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_a_reason_has_a_line_at_once_and_then_one_a_minute_that_counts_all_since(log: Log) -> None:
    log.refuse("a", "a", "a")
    at_first = log.lines()
    log.pass_time(INTERVAL_S - 1)
    almost = log.lines()
    log.pass_time(1)
    after_a_minute = log.lines()
    log.refuse("a")
    in_the_next = log.lines()
    log.pass_time(INTERVAL_S)

    assert (at_first, almost, after_a_minute) == ([("a", 1)], [], [("a", 2)])
    assert (in_the_next, log.lines()) == ([], [("a", 1)])


def test_a_refusal_after_a_quiet_minute_has_a_line_at_once(log: Log) -> None:
    log.refuse("a")
    log.pass_time(INTERVAL_S)
    log.lines()

    log.refuse("a")

    assert log.lines() == [("a", 1)]


def test_a_reason_has_a_minute_of_its_own(log: Log) -> None:
    log.refuse("a")
    log.pass_time(INTERVAL_S / 2)
    log.refuse("b", "b", reason=RefusalReason.KEY_UNKNOWN)
    log.refuse("a")
    log.lines()

    log.pass_time(INTERVAL_S / 2)

    assert log.lines() == [("a", 1)]


def test_a_flood_of_names_has_few_lines_and_all_of_it_is_counted(log: Log) -> None:
    lines = []
    for minute in range(3):
        log.refuse(*(f"{minute}-{number}" for number in range(1_000)))
        log.refuse(*(f"{minute}-{number}" for number in range(10)))
        log.pass_time(INTERVAL_S)
        lines.append(log.lines())
    log.refusals.log_rest()

    assert [len(each) for each in lines] == [2 * SUBJECTS_MAX + 1, 1, 2 * SUBJECTS_MAX + 1]
    assert lines[0][-1] == ("others", 1_010 - 2 * SUBJECTS_MAX)
    assert sum(count for each in [*lines, log.lines()] for _, count in each) == 3_030
    assert log.refusals.codes[Refusal.ORIGIN_NOT_ALLOWED] == log.refusals.reasons[ORIGIN] == 3_030


def test_the_end_of_a_process_logs_what_was_counted(log: Log) -> None:
    log.refuse("a", "a", "a")
    log.lines()

    log.refusals.log_rest()

    assert log.lines() == [("a", 2)]


def test_a_name_is_logged_up_to_a_length(log: Log) -> None:
    log.refuse("x" * 16_000)

    assert log.lines() == [("x" * 80, 1)]


def test_a_soft_answer_counts_by_its_reason_and_has_no_code(log: Log) -> None:
    log.refusals.add(RefusalReason.FULL, "/events", "merchant 42", is_soft=True)

    assert log.refusals.reasons[RefusalReason.FULL] == 1
    assert not any(log.refusals.codes.values())
    assert log.lines() == [("merchant 42", 1)]
