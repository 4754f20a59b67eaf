from __future__ import annotations

from sse_push.runtime.log_pace import INTERVAL_S, LogPace
from tests.harness.clock import ManualClock


def test_a_kind_has_a_line_at_once_and_then_one_a_minute_that_counts_all_since() -> None:
    clock = ManualClock()
    pace = LogPace(clock.time)

    at_first = [pace.count("broken") for _ in range(3)]
    clock.advance(INTERVAL_S - 1)
    almost = pace.count("broken")
    clock.advance(1)

    assert at_first == [1, 0, 0]
    assert almost == 0
    assert [pace.count("broken") for _ in range(2)] == [4, 0]


def test_a_kind_has_its_minute_to_itself() -> None:
    pace = LogPace(ManualClock().time)

    assert [pace.count(kind) for kind in ("broken", "cut", "broken")] == [1, 1, 0]
