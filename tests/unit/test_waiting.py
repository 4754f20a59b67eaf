"""What tests wait for: deadlines end, and move for a slower machine only; what is frozen stops."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.harness import waiting
from tests.harness.processes import frozen, state_of
from tests.harness.waiting import SECOND, Deadline, free_port, is_late, wait_for


def slower(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """Have the machine measured as so many times slower than at the start."""
    monkeypatch.setattr(waiting, "measure", lambda: times * SECOND)


def test_a_deadline_that_is_missed_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slower(monkeypatch, 1)

    assert Deadline(0).is_over()
    with pytest.raises(AssertionError, match="expected a thing within 0 s"):
        wait_for(lambda: False, "a thing", 0)


def test_a_limit_moves_as_far_as_the_machine_has_become_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slower(monkeypatch, 3)

    assert not is_late(2.9, 1)
    assert is_late(3.1, 1)


def test_a_faster_machine_moves_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slower(monkeypatch, 0.5)

    assert not is_late(0.9, 1)


def test_a_limit_that_is_kept_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "measure", lambda: pytest.fail("measured"))

    assert not is_late(0.9, 1)
    assert not Deadline(60).is_over()


def test_a_process_that_is_frozen_has_stopped() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy, frozen(busy.pid):
        assert state_of(busy.pid) == "T"
        busy.kill()


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one process, and to one server in it, though nobody listens there yet."""
    gives = "from tests.harness.waiting import free_port; print(free_port(), flush=True); input()"
    one, another = free_port(), free_port()
    with subprocess.Popen(
        [sys.executable, "-c", gives], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None, "it is a pipe"
        drawn = iter([int(other.stdout.readline()), one, one, another])
        monkeypatch.setattr(waiting, "_given", set())
        monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: next(drawn))

        found = [free_port(), free_port()]
        other.communicate("\n")

    assert found == [one, another]
