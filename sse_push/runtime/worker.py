"""One worker process, as its supervisor sees it: its state, and how long it has been in it.

Does not know what is decided about a worker, nor what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    unwell_s: float = 0.0
    """For how long it has not told that its probes of Redis get through, or that Redis is away."""
    served_s: float | None = None
    """How long it has served, or None if it has not answered yet."""
    is_asked: bool = False
    """Whether it was asked to end, or its start was given up."""

    def enter(self, state: WorkerState) -> None:
        """Change the state."""
        assert state in self.state.followers, f"{state} does not follow {self.state}"
        self.state = state
        self.in_state_s = self.silent_s = self.unwell_s = 0.0

    def pass_time(self, elapsed_s: float) -> None:
        """Grow older."""
        self.in_state_s += elapsed_s
        self.silent_s += elapsed_s
        self.unwell_s += elapsed_s
        if self.state is WorkerState.SERVING:
            self.served_s = self.in_state_s

    @property
    def is_wanted(self) -> bool:
        """Whether the worker serves, or is about to."""
        return self.state in (WorkerState.STARTING, WorkerState.SERVING)
