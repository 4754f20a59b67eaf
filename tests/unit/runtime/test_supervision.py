"""Decisions about workers, in a world without processes: by hand, and at random."""

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest

from sse_push.runtime import supervision
from sse_push.runtime.backoff import BACKOFF_MAX_S
from sse_push.runtime.service_manager import Given, ServiceManager
from sse_push.runtime.standing import state_of, text_of
from sse_push.runtime.supervision import (
    CUT_LIMIT_S,
    STEADY_S,
    Act,
    Limits,
    Order,
    Phase,
    Supervision,
)
from sse_push.runtime.worker import WorkerState

LIMITS = Limits(start_s=60, silence_s=5, stop_s=30)
STEP_S = 0.5


class World:
    """Carries out orders at once; what becomes of each worker is the test's to say."""

    def __init__(self, number: int, leave_s: float = 0) -> None:
        self.machine = Supervision(number, LIMITS._replace(leave_s=leave_s))
        self.born = 0
        self.orders: list[Order] = []
        self.obey()

    def obey(self) -> None:
        for order in self.machine.orders():
            self.orders.append(order)
            if order.act is Act.START:
                self.born += 1
                self.machine.on_started(self.born)

    def took(self) -> list[Order]:
        """Return the orders since the last call."""
        self.obey()
        orders, self.orders = self.orders, []
        return orders

    def serve(self, *pids: int) -> None:
        for pid in pids:
            self.machine.on_serving(pid)
            self.obey()

    def end(self, pid: int, status: int = 0) -> None:
        self.machine.on_ended(pid, status)
        self.obey()

    def wait(self, seconds: float, *beating: int) -> None:
        for _ in range(round(seconds / STEP_S)):
            for pid in beating:
                self.machine.on_beat(pid)
            self.machine.pass_time(STEP_S)
            self.obey()

    def state(self, pid: int) -> WorkerState:
        return self.machine.workers[pid].state


def serving(number: int, leave_s: float = 0) -> World:
    world = World(number, leave_s)
    world.serve(*range(1, number + 1))
    world.took()
    return world


START = Order(Act.START)


# -- start


def test_all_workers_are_started_at_once() -> None:
    world = World(3)

    assert world.took() == [START] * 3


def test_a_first_start_that_fails_ends_the_service(caplog: pytest.LogCaptureFixture) -> None:
    world = World(2)
    world.took()

    world.end(1, 1)

    assert world.took() == [Order(Act.KILL, 2)]
    world.end(2, -9)
    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 1)
    assert caplog.messages == ["no worker has started, stopping"]


def test_a_system_that_gives_no_process_is_a_start_that_failed() -> None:
    first = Supervision(1, LIMITS)
    assert list(first.orders()) == [START]
    first.on_not_started("EAGAIN")
    assert (first.phase, first.status) == (Phase.ENDED, 1)

    world = serving(1)
    world.wait(STEADY_S, 1)
    world.machine.on_ended(1, -9)
    assert list(world.machine.orders()) == [START]
    world.machine.on_not_started("EAGAIN")
    assert list(world.machine.orders()) == []
    world.wait(1)
    assert world.took() == [START]


def test_a_start_of_eleven_seconds_is_waited_for() -> None:
    world = World(2)
    world.took()

    world.wait(11)
    world.serve(1, 2)

    assert world.took() == []
    assert world.machine.phase is Phase.SERVING


def test_a_start_beyond_its_limit_is_killed() -> None:
    world = World(1)
    world.took()

    world.wait(60)
    assert world.took() == []
    world.wait(STEP_S)

    assert world.took() == [Order(Act.KILL, 1)]
    world.wait(100)
    assert world.took() == [], "once"
    world.serve(1)
    assert world.state(1) is WorkerState.KILLED, "too late"
    world.end(1, -9)
    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 1)


def test_a_later_start_beyond_its_limit_is_tried_again() -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)
    world.end(1, -9)
    world.took()

    world.wait(60 + STEP_S, 2)
    assert world.took() == [Order(Act.KILL, 3)]
    world.end(3, -9)
    world.wait(STEP_S, 2)

    assert world.took() == [START]
    assert world.state(2) is WorkerState.SERVING


# -- death


def test_a_worker_that_dies_is_replaced_at_once(caplog: pytest.LogCaptureFixture) -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)

    world.end(1, -9)

    assert world.took() == [START]
    assert caplog.messages == ["worker died, starting another pid=1 status=-9 wait_s=0"]


def test_starts_that_fail_are_tried_again_ever_later_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)
    world.end(1, 1)
    waits = []
    for _ in range(8):
        world.took()
        world.end(world.born, 1)
        waited_s = 0.0
        while world.took() == []:
            world.wait(STEP_S, 2)
            waited_s += STEP_S
        waits.append(waited_s)

    assert waits == [0.5, 1, 2, 4, 8, BACKOFF_MAX_S, BACKOFF_MAX_S, BACKOFF_MAX_S]
    assert world.state(2) is WorkerState.SERVING
    assert world.machine.phase is Phase.SERVING
    assert caplog.messages[1:3] == [
        "worker did not start, trying again pid=3 status=1 wait_s=0.5",
        "worker did not start, trying again pid=4 status=1 wait_s=1",
    ]


def test_after_a_failure_one_start_is_tried_until_it_is_steady() -> None:
    world = serving(3)
    for pid in (1, 2, 3):
        world.end(pid, 1)  # soon after their start
    assert world.took() == []
    world.wait(2)
    assert world.took() == [START], "one of three"
    world.wait(30)
    assert world.took() == []

    world.serve(4)
    assert world.took() == [START]
    world.serve(5)
    assert world.took() == [START]
    world.serve(6)
    world.wait(STEADY_S, 4, 5, 6)
    for pid in (4, 5, 6):
        world.end(pid, 1)

    assert world.took() == [START] * 3, "the failures are forgotten"


def test_a_steady_worker_does_not_excuse_another_that_cannot_start() -> None:
    world = serving(2)
    for _ in range(6):
        world.wait(STEADY_S, 1)
        world.end(max(world.machine.workers), 1)
        world.wait(BACKOFF_MAX_S, 1)
        world.took()

    world.end(max(world.machine.workers), 1)
    world.wait(BACKOFF_MAX_S - STEP_S, 1)
    assert world.took() == []


def test_a_silent_worker_is_killed_and_replaced() -> None:
    world = serving(2)

    world.wait(5, 2)
    assert world.took() == []
    world.wait(STEP_S, 2)
    assert world.took() == [Order(Act.KILL, 1), START]


def test_a_worker_that_starts_or_stops_may_be_silent() -> None:
    world = serving(1)
    world.machine.restart()
    world.took()
    world.wait(20, 1)
    world.serve(2)
    assert world.took() == [Order(Act.STOP, 1)]
    world.wait(20, 2)

    assert world.took() == []


# -- restart


def test_a_restart_replaces_each_worker_once_its_successor_serves() -> None:
    world = serving(2)
    world.machine.restart()
    assert world.took() == [START]
    world.wait(2, 1, 2)
    assert world.took() == []

    world.serve(3)
    assert world.took() == [Order(Act.STOP, 1)]
    world.wait(2, 2, 3)
    assert world.took() == [], "one ends at a time"

    world.end(1)
    assert world.took() == [START]
    world.serve(4)
    assert world.took() == [Order(Act.STOP, 2)]
    world.end(2)

    assert world.took() == []
    assert set(world.machine.workers) == {3, 4}
    assert world.machine.status == 0


def test_one_worker_is_restarted_as_many_are() -> None:
    world = serving(1)

    world.machine.restart()

    assert world.took() == [START]
    world.serve(2)
    assert world.took() == [Order(Act.STOP, 1)]


def test_a_second_restart_replaces_what_the_first_has_started() -> None:
    world = serving(1)
    world.machine.restart()
    world.took()
    world.machine.restart()
    world.serve(2)
    assert world.took() == [Order(Act.STOP, 1)]
    world.end(1)

    assert world.took() == [START]


def test_a_restart_whose_new_worker_fails_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)
    world.machine.restart()
    world.took()

    world.end(3, 1)
    world.wait(100, 1, 2)

    assert world.took() == []
    assert set(world.machine.workers) == {1, 2}
    assert "restart abandoned, as a new worker failed" in caplog.messages


def test_two_restarts_at_once_are_one() -> None:
    world = serving(1)
    world.machine.restart()
    world.machine.restart()

    assert world.took() == [START]


def test_a_restart_before_any_worker_serves_or_after_the_stop_has_no_effect() -> None:
    world = World(1)
    world.took()
    world.machine.restart()
    world.serve(1)
    assert world.took() == []

    world.machine.stop()
    world.took()
    world.machine.restart()
    assert world.took() == []


def test_a_worker_that_dies_during_a_restart_is_replaced_by_its_successor() -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)
    world.machine.restart()
    world.took()

    world.end(1, -9)
    assert world.took() == []
    world.serve(3)

    assert world.took() == [START]
    world.serve(4)
    assert world.took() == [Order(Act.STOP, 2)]


# -- the end


def test_a_stop_ends_every_worker_and_the_status_is_zero() -> None:
    world = serving(2)

    world.machine.stop()

    assert world.took() == [Order(Act.STOP, 1), Order(Act.STOP, 2)]
    world.end(1)
    assert world.machine.phase is Phase.STOPPING
    world.end(2)
    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 0)
    world.machine.stop()
    world.machine.pass_time(STEP_S)
    assert world.took() == []


def test_a_stop_is_obeyed_at_once_during_a_restart() -> None:
    world = serving(3)
    world.machine.restart()
    world.took()
    world.serve(4)
    world.took()  # one is stopping
    world.end(1)
    world.took()  # the next one starts

    world.machine.stop()

    assert set(world.took()) == {
        Order(Act.STOP, 2),
        Order(Act.STOP, 3),
        Order(Act.STOP, 4),
        Order(Act.KILL, 5),
    }


def test_a_stop_takes_back_a_start_that_was_not_carried_out() -> None:
    world = serving(2)
    world.wait(STEADY_S, 1, 2)
    world.machine.on_ended(1, -9)
    world.machine.stop()

    assert world.took() == [Order(Act.STOP, 2)]
    world.end(2)
    assert world.machine.phase is Phase.ENDED


def test_a_second_signal_cuts_and_a_third_kills(caplog: pytest.LogCaptureFixture) -> None:
    world = serving(2)
    world.machine.stop()
    world.took()

    world.machine.stop()
    assert world.took() == [Order(Act.CUT, 1), Order(Act.CUT, 2)]
    world.end(1, 1)
    world.machine.stop()
    assert world.took() == [Order(Act.KILL, 2)]
    world.end(2, -9)

    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 0), "as it was wished"
    assert caplog.messages == []


def test_a_worker_that_does_not_end_when_it_is_cut_is_killed() -> None:
    world = serving(1)
    world.machine.stop()
    world.machine.stop()
    world.took()

    world.wait(CUT_LIMIT_S)
    assert world.took() == []
    world.wait(STEP_S)

    assert world.took() == [Order(Act.KILL, 1)]
    world.wait(STEP_S)
    assert world.took() == [], "once"


def test_a_worker_that_does_not_end_is_killed_and_the_status_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = serving(1)
    world.machine.stop()
    world.took()

    world.wait(30)
    assert world.took() == []
    world.wait(STEP_S)
    assert world.took() == [Order(Act.KILL, 1)]
    world.end(1, -9)

    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 1)
    assert caplog.messages[-2:] == [
        "worker does not end, killing pid=1",
        "worker ended badly pid=1 status=-9",
    ]


def test_a_worker_that_dies_while_it_stops_is_told_by_the_status() -> None:
    world = serving(1)
    world.machine.stop()
    world.end(1, 70)

    assert world.machine.status == 1


def test_a_worker_that_ended_badly_in_a_restart_does_not_change_the_status() -> None:
    world = serving(1)
    world.machine.restart()
    world.took()
    world.serve(2)
    world.end(1, 70)
    world.machine.stop()
    world.end(2)

    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 0)


def test_a_part_that_nothing_replaces_ends_the_service_with_status_one() -> None:
    world = serving(1)

    world.machine.fail()
    world.machine.fail()

    assert world.took() == [Order(Act.STOP, 1)]
    world.end(1)
    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 1)


# -- at random


class Fate(World):
    """Workers that start, die, fall silent and refuse to end, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = self.chance.randint(1, 4)
        self.is_healthy = False
        self.silent: set[int] = set()
        self.stubborn: set[int] = set()
        self.starts: list[float] = []
        self.now_s = 0.0
        self.manager = ServiceManager(Given())
        super().__init__(self.number, self.chance.choice([0, 0, 7]))

    def obey(self) -> None:
        before = self.born
        super().obey()
        self.starts += [self.now_s] * (self.born - before)

    def turn(self) -> None:
        """Let half a second pass."""
        for pid, worker in list(self.machine.workers.items()):
            if worker.state is WorkerState.KILLED:
                self.end(pid, -9)
            elif worker.state is WorkerState.STOPPING:
                if (self.is_healthy or pid not in self.stubborn) and self.chance.random() < 0.3:
                    self.end(pid)
            elif worker.state is WorkerState.STARTING:
                self.go_on_starting(pid)
            else:
                self.go_on_serving(pid)
        if not self.is_healthy and self.chance.random() < 0.03:
            self.machine.restart()
        self.obey()
        self.now_s += STEP_S
        self.machine.pass_time(STEP_S)
        self.obey()
        self.check()

    def go_on_starting(self, pid: int) -> None:
        if self.chance.random() < 0.4:
            self.serve(pid)
        elif not self.is_healthy and self.chance.random() < 0.3:
            self.end(pid, 1)

    def go_on_serving(self, pid: int) -> None:
        fate = 1.0 if self.is_healthy else self.chance.random()
        if fate < 0.02:
            self.end(pid, self.chance.choice([0, 1, 70, -9]))
        elif fate < 0.04:
            self.chance.choice([self.silent, self.stubborn]).add(pid)
        elif pid not in self.silent:
            self.machine.on_beat(pid)

    def check(self) -> None:
        machine = self.machine
        states = Counter(worker.state for worker in machine.workers.values())
        wanted = states[WorkerState.STARTING] + states[WorkerState.SERVING]
        assert wanted <= self.number + 1, states
        assert states[WorkerState.STOPPING] <= 1 or machine.phase is not Phase.SERVING, states
        recent = sum(1 for at in self.starts if at > self.now_s - BACKOFF_MAX_S)
        assert recent <= 12 * self.number, "a storm of starts"
        self.manager.tell(state_of(machine), text_of(machine))


def run(seed: int) -> None:
    fate = Fate(seed)
    for _ in range(fate.chance.randint(0, 300)):
        fate.turn()
    if fate.machine.phase is not Phase.ENDED and fate.chance.random() < 0.7:
        fate.is_healthy = True
        fate.silent.clear()
        for _ in range(200):
            fate.turn()
        if fate.machine.phase is Phase.SERVING:
            workers = fate.machine.workers.values()
            assert [each.state for each in workers] == [WorkerState.SERVING] * fate.number
            assert len({each.generation for each in workers}) == 1, "a restart was not finished"
        fate.is_healthy = False
    began_s = fate.now_s
    for _ in range(fate.chance.randint(1, 3)):
        fate.machine.stop()
        fate.obey()
    while fate.machine.phase is not Phase.ENDED:
        fate.turn()
        assert fate.now_s - began_s < LIMITS.stop_s + 10, "the stop has a limit"
    assert not fate.machine.workers


def test_whatever_happens_to_workers_their_number_comes_back_and_a_stop_ends_them() -> None:
    logging.getLogger(supervision.__name__).setLevel(logging.CRITICAL + 1)
    try:
        for seed in range(200):
            try:
                run(seed)
            except AssertionError as exc:
                raise AssertionError(f"seed {seed}: {exc}") from exc
    finally:
        logging.getLogger(supervision.__name__).setLevel(logging.NOTSET)
