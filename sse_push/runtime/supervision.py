"""Which workers a service has, and what becomes of each: decisions without a clock or a process.

Each input is a call, and each decision an order, which ``supervisor`` carries out. Does not know
what a worker does, nor how it is started, told something, or killed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""A worker that dies within this time of its first answer counts as a start that failed."""

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 15.0
"""How long after a failed start the next one begins: the first time, and at most; it doubles."""

CUT_LIMIT_S = 3.0
"""How long a worker may take to end after a second stop signal, when its connections are cut."""


class WorkerState(Enum):
    """The state of a worker, and which states may follow; a process may end in any of them."""

    STARTING = "it has not answered yet"
    SERVING = "it accepts connections"
    STOPPING = "it was asked to end in order"
    KILLED = "it was killed, and has not ended yet"

    @property
    def followers(self) -> frozenset[WorkerState]:
        """The states that may follow."""
        return _FOLLOWERS[self]


_FOLLOWERS = {
    WorkerState.STARTING: frozenset({WorkerState.SERVING, WorkerState.KILLED}),
    WorkerState.SERVING: frozenset({WorkerState.STOPPING, WorkerState.KILLED}),
    WorkerState.STOPPING: frozenset({WorkerState.KILLED}),
    WorkerState.KILLED: frozenset(),
}


class Phase(Enum):
    """The state of the service; a later one may follow each, and none an earlier one."""

    STARTING = "no worker has answered yet: a start that fails ends the service"
    SERVING = "a start that fails is tried again"
    STOPPING = "every worker ends in order"
    CUTTING = "after a second signal: every worker ends at once"
    ENDED = "no worker is left"


class Act(Enum):
    """What is done to a worker."""

    START = "start one"
    STOP = "have it end in order"
    CUT = "have it cut its connections"
    KILL = "kill it"


class Order(NamedTuple):
    """One thing to do; a worker that is to be started has no process ID."""

    act: Act
    pid: int = 0


class Limits(NamedTuple):
    """How long a worker may take, or be silent, until it is killed."""

    start_s: float
    silence_s: float
    stop_s: float


@dataclass(slots=True)
class Worker:
    """A worker process, from its birth until its end was seen."""

    pid: int
    generation: int
    failures_before: int
    """How many starts had failed when this one began."""
    state: WorkerState = WorkerState.STARTING
    in_state_s: float = 0.0
    silent_s: float = 0.0
    served_s: float | None = None
    """How long it has served, or None if it has not answered yet."""
    is_asked: bool = False
    """Whether it was asked to end, or its start was given up."""

    def enter(self, state: WorkerState) -> None:
        """Change the state."""
        assert state in self.state.followers, f"{state} does not follow {self.state}"
        self.state = state
        self.in_state_s = self.silent_s = 0.0

    def pass_time(self, elapsed_s: float) -> None:
        """Grow older."""
        self.in_state_s += elapsed_s
        self.silent_s += elapsed_s
        if self.state is WorkerState.SERVING:
            self.served_s = self.in_state_s

    @property
    def is_wanted(self) -> bool:
        """Whether the worker serves, or is about to."""
        return self.state in (WorkerState.STARTING, WorkerState.SERVING)


class Supervision:
    """The workers of a service, kept at their number until the service is to stop.

    One rule starts and replaces them, whatever has happened before: too few are wanted, so one
    starts; all are there and some of an older generation, so one more starts; there is one more
    than needed, so one of the oldest generation stops. A restart is a new generation.
    """

    def __init__(self, number: int, limits: Limits) -> None:
        self.phase = Phase.STARTING
        self.workers: dict[int, Worker] = {}
        self._number = number
        self._limits = limits
        self._orders: list[Order] = []
        self._starts_ordered = 0
        self._generation = 0
        self._failures = 0
        """How many starts have failed, all in all."""
        self._in_a_row = 0
        """How many of them since a worker that began after them was steady."""
        self._backoff_s = 0.0
        self._cutting_s = 0.0
        self._is_broken = False
        self._decide()

    @property
    def status(self) -> int:
        """The exit status of the service: 0 only if it was stopped, and every worker ended well."""
        return 1 if self._is_broken else 0

    def orders(self) -> Iterator[Order]:
        """Yield what is to be done, each once."""
        while self._orders:
            yield self._orders.pop(0)

    # -- what happens to workers

    def on_started(self, pid: int) -> None:
        """Note the process that an order has started, before anything else."""
        self._starts_ordered -= 1
        self.workers[pid] = Worker(pid, self._generation, self._failures)

    def on_not_started(self, reason: str) -> None:
        """Note that the system refused an order to start a worker."""
        self._starts_ordered -= 1
        self._on_failed_start()
        logger.error("worker could not be started cause=%r wait_s=%g", reason, self._backoff_s)
        self._decide()

    def on_serving(self, pid: int) -> None:
        """Note that a worker accepts connections; no effect on one that is to end."""
        worker = self.workers[pid]
        if worker.state is WorkerState.STARTING:
            logger.info("worker serves pid=%d took_s=%.1f", pid, worker.in_state_s)
            worker.enter(WorkerState.SERVING)
            worker.served_s = 0.0
            if self.phase is Phase.STARTING:
                self.phase = Phase.SERVING
            self._decide()

    def on_beat(self, pid: int) -> None:
        """Note that a worker is alive."""
        self.workers[pid].silent_s = 0.0

    def on_ended(self, pid: int, status: int) -> None:
        """Note that a process has ended, with its exit status, or minus the number of a signal."""
        worker = self.workers.pop(pid)
        if not worker.is_asked:
            self._on_death(worker, status)
        elif status and worker.served_s is not None and self.phase is not Phase.CUTTING:
            logger.error("worker ended badly pid=%d status=%d", pid, status)
            self._is_broken |= self.phase is Phase.STOPPING
        self._decide()

    def _on_death(self, worker: Worker, status: int) -> None:
        """Note an end that nobody has asked for, and when another worker may start."""
        if worker.served_s is None or worker.served_s < STEADY_S:
            self._on_failed_start()
        if self.phase is not Phase.SERVING:
            return
        fields = worker.pid, status, self._backoff_s
        if worker.served_s is None:  # what was wrong, it has logged itself
            logger.warning("worker did not start, trying again pid=%d status=%d wait_s=%g", *fields)
        else:
            logger.warning("worker died, starting another pid=%d status=%d wait_s=%g", *fields)

    def _on_failed_start(self) -> None:
        self._failures += 1
        self._in_a_row += 1
        self._backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** (min(self._in_a_row, 20) - 1))
        if self.phase is Phase.STARTING:
            logger.critical("no worker has started, stopping")
            self.fail()
        elif any(each.generation < self._generation for each in self.workers.values()):
            logger.error("restart abandoned, as a new worker failed")
            for each in self.workers.values():
                each.generation = self._generation

    # -- what an operator wants

    def restart(self) -> None:
        """Replace the workers in turn; each new one serves before an old one stops."""
        if self.phase is Phase.SERVING:
            logger.info("restarting workers=%d", self._number)
            self._generation += 1
            self._decide()

    def stop(self) -> None:
        """End the service in order; a second call cuts connections, a third kills."""
        if self.phase is Phase.STOPPING:
            self.phase = Phase.CUTTING
            self._orders += [Order(Act.CUT, pid) for pid in self.workers]
        elif self.phase is Phase.CUTTING:
            self._kill_all()
        elif self.phase is not Phase.ENDED:
            self._begin_stop()

    def fail(self) -> None:
        """End the service in order, with status 1: a part has died that no worker replaces."""
        self._is_broken = True
        if self.phase in (Phase.STARTING, Phase.SERVING):
            self._begin_stop()

    def _begin_stop(self) -> None:
        self.phase = Phase.STOPPING
        self._orders = [order for order in self._orders if order.act is not Act.START]
        for worker in self.workers.values():
            self._stop(worker)
        self._decide()

    # -- time

    def pass_time(self, elapsed_s: float) -> None:
        """Let time pass, in which this process did not stand still itself."""
        self._backoff_s = max(0.0, self._backoff_s - elapsed_s)
        for worker in self.workers.values():
            worker.pass_time(elapsed_s)
            self._check(worker)
        if self.phase is Phase.CUTTING:
            self._cutting_s += elapsed_s
            if self._cutting_s > CUT_LIMIT_S:
                self._kill_all()
        self._decide()

    def _check(self, worker: Worker) -> None:
        """Kill a worker that takes too long; forget past failures once one is steady."""
        state, limits = worker.state, self._limits
        if state is WorkerState.STARTING and worker.in_state_s > limits.start_s:
            logger.error("worker does not start, killing pid=%d", worker.pid)
            worker.is_asked = True
            self._kill(worker)
            self._on_failed_start()
        elif state is WorkerState.SERVING and worker.silent_s > limits.silence_s:
            logger.error("worker is silent, killing pid=%d", worker.pid)
            self._kill(worker)
        elif state is WorkerState.STOPPING and worker.in_state_s > limits.stop_s:
            logger.error("worker does not end, killing pid=%d", worker.pid)
            self._kill(worker)
        elif (worker.served_s or 0.0) >= STEADY_S and worker.failures_before == self._failures:
            self._in_a_row = 0

    # -- decisions

    def _decide(self) -> None:
        """Order what is missing; see the class."""
        if self.phase in (Phase.STOPPING, Phase.CUTTING):
            if not self.workers:
                self.phase = Phase.ENDED
        elif self.phase is not Phase.ENDED:
            wanted = [worker for worker in self.workers.values() if worker.is_wanted]
            missing = self._number - len(wanted) - self._starts_ordered
            if missing > 0:
                self._start_missing(missing)
            elif self._states() == {WorkerState.SERVING}:
                self._replace(wanted)

    def _start_missing(self, missing: int) -> None:
        if not self._in_a_row:
            self._start(missing)
        elif self._backoff_s == 0.0 and WorkerState.STARTING not in self._states():
            self._start(1)  # after a failure one is tried, and not all of them at once

    def _states(self) -> set[WorkerState]:
        ordered = {WorkerState.STARTING} if self._starts_ordered else set()
        return ordered | {worker.state for worker in self.workers.values()}

    def _replace(self, wanted: list[Worker]) -> None:
        oldest = min(wanted, key=lambda worker: worker.generation)
        if len(wanted) > self._number:
            self._stop(oldest)
        elif oldest.generation < self._generation:
            self._start(1)

    def _start(self, count: int) -> None:
        self._starts_ordered += count
        self._orders += [Order(Act.START)] * count

    def _stop(self, worker: Worker) -> None:
        worker.is_asked = True
        if worker.state is WorkerState.STARTING:
            self._kill(worker)  # it has no connections to end
        elif worker.state is WorkerState.SERVING:
            worker.enter(WorkerState.STOPPING)
            self._orders.append(Order(Act.STOP, worker.pid))

    def _kill(self, worker: Worker) -> None:
        if worker.state is not WorkerState.KILLED:
            worker.enter(WorkerState.KILLED)
            self._orders.append(Order(Act.KILL, worker.pid))

    def _kill_all(self) -> None:
        for worker in self.workers.values():
            self._kill(worker)
