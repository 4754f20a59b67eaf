"""What a probe finds instead of its entry: which failure, for how long, and within which time.

Knows that time in which this process stood still proves nothing. Does not know Redis, nor what is
waited for (``probe``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

from sse_push.stream.failures import RedisError

_STEPS = 10
"""A deadline is that many waits, so that a wait in which the process was stopped is noticed."""

T = TypeVar("T")


class ProbeLost(RedisError):
    """An entry of ours was not found in time: the tracked connection is deaf or half dead."""


class Unannounced(ProbeLost):
    """Redis has accepted an entry of ours, and did not announce it in time."""


class ServersDiffer(RedisError):
    """Two connections of this process lead to different servers, or to different runs of one."""


class Deaf(RedisError):
    """Redis takes our entries and has announced none of them for too long.

    *Deaf* is a process to which Redis announces nothing, although Redis is well: its browsers look
    connected and get no refresh. New connections have not helped, so only a new process may.
    """


class Trouble:
    """Something that lasts: its beginning counts once, and so does its end."""

    def __init__(self) -> None:
        self._began_at: float | None = None

    def begins(self) -> bool:
        """Note that it is there; return whether it was not there before."""
        if self._began_at is not None:
            return False
        self._began_at = time.monotonic()
        return True

    def ends(self) -> float | None:
        """Note that it is over; return for how many seconds it was there, None if it was not."""
        began_at, self._began_at = self._began_at, None
        return None if began_at is None else time.monotonic() - began_at


async def in_time(
    work: Coroutine[None, None, T],
    deadline_s: float,
    partial_bytes: Callable[[], int],
    failure: str,
    lost: type[ProbeLost] = ProbeLost,
) -> T:
    """Return what the work returns within the deadline, counting only while we run.

    Nor does the time count in which nothing but a part of a reply has arrived (``partial_bytes``):
    what we wait for comes after it, and each reply is bounded.

    Raises:
        ProbeLost: the deadline has passed, and this process was not stopped meanwhile.
    """
    task = asyncio.create_task(work, name="probe")
    step_s = deadline_s / _STEPS
    try:
        steps_left = _STEPS
        while steps_left and not task.done():
            began_at, had_bytes = time.monotonic(), partial_bytes()
            await asyncio.wait([task], timeout=step_s)
            was_stopped = time.monotonic() - began_at > 2 * step_s
            is_arriving = partial_bytes() > had_bytes
            steps_left = _STEPS if was_stopped else steps_left - (not is_arriving)
        if not task.done():
            raise lost(f"{failure} within {deadline_s:g} s")
    finally:
        task.cancel()
        await asyncio.wait([task])
    return task.result()
