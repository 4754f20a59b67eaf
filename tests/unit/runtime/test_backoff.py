"""The waits between starts that fail."""

from __future__ import annotations

from sse_push.runtime.backoff import BACKOFF_MAX_S, Backoff


def test_a_wait_doubles_up_to_its_limit_and_passes() -> None:
    backoff, waits = Backoff(), []
    for _ in range(7):
        backoff.on_failure()
        waits.append(backoff.wait_s)
    backoff.pass_time(5)
    left_s = backoff.wait_s
    backoff.pass_time(100)

    assert waits == [0.5, 1, 2, 4, 8, BACKOFF_MAX_S, BACKOFF_MAX_S]
    assert (left_s, backoff.wait_s) == (10, 0)


def test_failures_are_forgotten_once_a_later_start_is_steady() -> None:
    backoff = Backoff()
    backoff.on_failure()
    backoff.on_failure()

    backoff.on_steady(1)
    assert backoff.in_a_row == 2, "it had begun before the second failure"
    backoff.on_steady(2)

    assert (backoff.in_a_row, backoff.failures) == (0, 2)
