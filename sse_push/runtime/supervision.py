"""Which workers a service has, and what becomes of each: decisions without a clock or a process.

Each input is a call, and each decision an order, which ``supervisor`` carries out. Does not know
what a worker does, nor how it is started, told something, or killed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from sse_push.runtime.backoff import Backoff
from sse_push.runtime.worker import Worker, WorkerState

logger = logging.getLogger(__name__)

STEADY_S = 10.0
"""A worker that dies within this time of its first answer counts as a start that failed."""

CUT_LIMIT_S = 3.0
"""How long a worker may take to end after a second stop signal, when its connections are cut."""


class Phase(Enum):
    """The state of the service; a later one may follow each, and none an earlier one."""

    STARTING = "no worker has answered yet: a start that fails ends the service"
    SERVING = "a start that fails is tried again"
    LEAVING = (
        "as SERVING, but workers say that they are not ready, and none is replaced by a restart"
    )
    STOPPING = "every worker ends in order"
    CUTTING = "after a second signal: every worker ends at once"
    ENDED = "no worker is left"


SERVES = (Phase.SERVING, Phase.LEAVING)
"""Every worker is wanted, and one that is missing is started."""


class Act(Enum):
    """What is done to a worker."""

    START = "start one"
    LEAVE = "have it say that it is not ready"
    STOP = "have it end in order"
    CUT = "have it cut its connections"
    KILL = "kill it"


class Order(NamedTuple):
    """One thing to do; a worker that is to be started has no process ID."""

    act: Act
    pid: int = 0


class Limits(NamedTuple):
    """How long a worker may take, or be silent, until it is killed; how long a service leaves."""

    start_s: float
    silence_s: float
    stop_s: float
    leave_s: float = 0.0
    """How long the service goes on serving after the first signal to stop."""


class Supervision:
    """The workers of a service, kept at their number until the service is to stop.

    One rule starts and replaces them, whatever has happened before: too few are wanted, so one
    starts; all are there and some of an older generation, so one more starts; there is one more
    than needed, so one of the oldest generation stops. A restart is a new generation.
    """

    def __init__(self, number: int, limits: Limits) -> None:
        self.phase = Phase.STARTING
        self.workers: dict[int, Worker] = {}
        self.number = number
        self.limits = limits
        self._orders: list[Order] = []
        self._starts_ordered = 0
        self._generation = 0
        self._backoff = Backoff()
        self._in_phase_s = 0.0
        self._is_broken = False
        self._decide()

    @property
    def status(self) -> int:
        """The exit status of the service: 0 only if it was stopped, and every worker ended well."""
        return 1 if self._is_broken else 0

    @property
    def is_restarting(self) -> bool:
        """Whether a worker is left that a restart replaces, or that ends because of one."""
        return any(each.generation < self._generation for each in self.workers.values())

    def workers_in(self, state: WorkerState) -> list[Worker]:
        """Return the workers that are in this state."""
        return [each for each in self.workers.values() if each.state is state]

    def orders(self) -> Iterator[Order]:
        """Yield what is to be done, each once."""
        while self._orders:
            yield self._orders.pop(0)

    # -- what happens to workers

    def on_started(self, pid: int) -> None:
        """Note the process that an order has started, before anything else."""
        self._starts_ordered -= 1
        self.workers[pid] = Worker(pid, self._generation, self._backoff.failures)

    def on_not_started(self, reason: str) -> None:
        """Note that the system refused an order to start a worker."""
        self._starts_ordered -= 1
        self._on_failed_start()
        logger.error("worker could not be started cause=%r wait_s=%g", reason, self._backoff.wait_s)
        self._decide()

    def on_serving(self, pid: int) -> None:
        """Note that a worker accepts connections; no effect on one that is to end."""
        worker = self.workers[pid]
        if worker.state is WorkerState.STARTING:
            logger.info("worker serves pid=%d took_s=%.1f", pid, worker.in_state_s)
            worker.enter(WorkerState.SERVING)
            worker.served_s = 0.0
            if self.phase is Phase.STARTING:
                self._enter(Phase.SERVING)
            elif self.phase is Phase.LEAVING:
                self._orders.append(Order(Act.LEAVE, pid))
            self._decide()

    def on_beat(self, pid: int) -> None:
        """Note that a worker is alive."""
        self.workers[pid].silent_s = 0.0

    def on_well(self, pid: int) -> None:
        """Note that a worker's probes get through, or that Redis is away, as the worker says."""
        self.workers[pid].unwell_s = 0.0

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
        if self.phase not in SERVES:
            return
        fields = worker.pid, status, self._backoff.wait_s
        if worker.served_s is None:  # what was wrong, it has logged itself
            logger.warning("worker did not start, trying again pid=%d status=%d wait_s=%g", *fields)
        else:
            logger.warning("worker died, starting another pid=%d status=%d wait_s=%g", *fields)

    def _on_failed_start(self) -> None:
        self._backoff.on_failure()
        if self.phase is Phase.STARTING:
            logger.critical("no worker has started, stopping")
            self.fail()
        elif self.is_restarting:
            logger.error("restart abandoned, as a new worker failed")
            for each in self.workers.values():
                each.generation = self._generation

    # -- what an operator wants

    def restart(self) -> None:
        """Replace the workers in turn; each new one serves before an old one stops."""
        if self.phase is Phase.SERVING:
            logger.info("restarting workers=%d", self.number)
            self._generation += 1
            self._decide()

    def stop(self) -> None:
        """Leave if it is wished, then end in order, then cut connections, then kill: per call."""
        if self.phase is Phase.SERVING and self.limits.leave_s:
            self._begin_leaving()
        elif self.phase is Phase.STOPPING:
            self._enter(Phase.CUTTING)
            self._orders += [Order(Act.CUT, pid) for pid in self.workers]
        elif self.phase is Phase.CUTTING:
            self._kill_all()
        elif self.phase is not Phase.ENDED:
            self._begin_stop()

    def fail(self) -> None:
        """End the service in order, with status 1: a part has died that no worker replaces."""
        self._is_broken = True
        if self.phase in (Phase.STARTING, *SERVES):
            self._begin_stop()

    def _begin_leaving(self) -> None:
        logger.info("leaving, workers serve on for_s=%g", self.limits.leave_s)
        self._enter(Phase.LEAVING)
        self._orders += [
            Order(Act.LEAVE, each.pid) for each in self.workers_in(WorkerState.SERVING)
        ]

    def _begin_stop(self) -> None:
        self._enter(Phase.STOPPING)
        self._orders = [order for order in self._orders if order.act is not Act.START]
        for worker in self.workers.values():
            self._stop(worker)
        self._decide()

    # -- time

    def pass_time(self, elapsed_s: float) -> None:
        """Let time pass, in which this process did not stand still itself."""
        self._in_phase_s += elapsed_s
        self._backoff.pass_time(elapsed_s)
        for worker in self.workers.values():
            worker.pass_time(elapsed_s)
            self._check(worker)
        if self.phase is Phase.CUTTING and self._in_phase_s > CUT_LIMIT_S:
            self._kill_all()
        elif self.phase is Phase.LEAVING and self._in_phase_s >= self.limits.leave_s:
            self._begin_stop()
        self._decide()

    def _check(self, worker: Worker) -> None:
        """Kill a worker that takes too long; forget past failures once one is steady."""
        state, limits = worker.state, self.limits
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
        elif (worker.served_s or 0.0) >= STEADY_S:
            self._backoff.on_steady(worker.failures_before)

    # -- decisions

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._in_phase_s = 0.0

    def _decide(self) -> None:
        """Order what is missing; see the class."""
        if self.phase in (Phase.STOPPING, Phase.CUTTING):
            if not self.workers:
                self._enter(Phase.ENDED)
        elif self.phase is not Phase.ENDED:
            wanted = [worker for worker in self.workers.values() if worker.is_wanted]
            missing = self.number - len(wanted) - self._starts_ordered
            if missing > 0:
                self._start_missing(missing)
            elif self.phase is Phase.SERVING and self._states() == {WorkerState.SERVING}:
                self._replace(wanted)

    def _start_missing(self, missing: int) -> None:
        if not self._backoff.in_a_row:
            self._start(missing)
        elif self._backoff.wait_s == 0.0 and WorkerState.STARTING not in self._states():
            self._start(1)  # after a failure one is tried, and not all of them at once

    def _states(self) -> set[WorkerState]:
        ordered = {WorkerState.STARTING} if self._starts_ordered else set()
        return ordered | {worker.state for worker in self.workers.values()}

    def _replace(self, wanted: list[Worker]) -> None:
        oldest = min(wanted, key=lambda worker: worker.generation)
        if len(wanted) > self.number:
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
