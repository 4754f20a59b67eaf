"""What a supervision looks like to a service manager: one of its states, and a text.

Knows the phases of a service and the states of a manager. Does not know how either is told.
"""

from __future__ import annotations

from sse_push.runtime.service_manager import State
from sse_push.runtime.supervision import SERVES, Phase, Supervision
from sse_push.runtime.worker import WorkerState


def state_of(supervision: Supervision) -> State:
    """Return the state: ready once the first worker serves, whatever Redis does."""
    if supervision.phase is Phase.STARTING:
        return State.STARTING
    if supervision.phase is Phase.SERVING:
        return State.RELOADING if supervision.is_restarting else State.READY
    return State.STOPPING


def text_of(supervision: Supervision) -> str:
    """Return the state in a few words, for an operator."""
    left, serving = len(supervision.workers), len(supervision.workers_in(WorkerState.SERVING))
    serve = f"{serving} of {supervision.number} workers serve"
    texts = {
        Phase.STARTING: f"starting, {serve}",
        Phase.SERVING: f"restarting, {serve}" if supervision.is_restarting else serve,
        Phase.LEAVING: f"leaving, {serve}, none is ready",
        Phase.STOPPING: f"stopping, workers left: {left}",
        Phase.CUTTING: f"cutting connections, workers left: {left}",
        Phase.ENDED: "ended",
    }
    return texts[supervision.phase]


def is_well(supervision: Supervision) -> bool:
    """Return whether a worker serves, and has said of late that it is well.

    Before the first one serves, and once the service stops, other limits apply.
    """
    serving = supervision.workers_in(WorkerState.SERVING)
    limit_s = supervision.limits.silence_s
    return supervision.phase not in SERVES or any(each.unwell_s <= limit_s for each in serving)
