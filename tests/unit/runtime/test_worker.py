"""The states of a worker."""

from __future__ import annotations

import pytest

from sse_push.runtime.worker import Worker, WorkerState


def test_a_state_that_may_not_follow_is_a_bug() -> None:
    worker = Worker(1, generation=0, failures_before=0)
    worker.enter(WorkerState.SERVING)

    with pytest.raises(AssertionError, match="does not follow"):
        worker.enter(WorkerState.STARTING)


def test_a_worker_that_changes_its_state_has_been_heard_of() -> None:
    worker = Worker(1, generation=0, failures_before=0)
    worker.pass_time(3)
    before = worker.in_state_s, worker.silent_s, worker.unwell_s, worker.served_s

    worker.enter(WorkerState.SERVING)
    worker.pass_time(2)

    assert before == (3, 3, 3, None)
    assert (worker.in_state_s, worker.silent_s, worker.unwell_s, worker.served_s) == (2, 2, 2, 2)
