"""Whose turn it is to be read without a cause: every stream once in a round.

Knows steps and turns. Does not know how long a step takes, nor what a stream is.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

StreamT = TypeVar("StreamT", bound=Hashable)


class Sweep(Generic[StreamT]):
    """A queue that rotates: at most ``steps`` steps between two turns of a stream.

    That holds whatever comes and goes. A stream that leaves takes its place in the queue with it,
    and uses up no turn. Each step gives a turn to its share of all streams, so that the turns are
    spread over the round. A share shrinks as streams leave, and then it alone would not reach the
    last one in time: whoever has waited for a whole round has a turn as well.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._turns: OrderedDict[StreamT, int] = OrderedDict()
        """In which step each stream was added, or had its last turn; the longest wait is first."""

    def add(self, stream: StreamT) -> None:
        """Begin to give turns to a stream, which has just been read, or will be at once."""
        self._turns[stream] = self._step

    def remove(self, stream: StreamT) -> None:
        """Give the stream no more turns."""
        del self._turns[stream]

    def step(self) -> list[StreamT]:
        """Return the streams whose turn it is now, the longest wait first."""
        self._step += 1
        share = math.ceil(len(self._turns) / self._steps)
        chosen: list[StreamT] = []
        for stream, turn in self._turns.items():
            if len(chosen) >= share and not self._is_due(turn):
                break
            chosen.append(stream)
        for stream in chosen:
            self._turns[stream] = self._step
            self._turns.move_to_end(stream)
        return chosen

    def _is_due(self, turn: int) -> bool:
        return self._step - turn >= self._steps
