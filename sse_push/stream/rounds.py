"""Reads that time alone leads to: a sweep over all streams, late reads, and refused ones again.

Knows how often. Does not know which stream's turn it is (``turns``), nor what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sse_push.stream.bell import BellKind
from sse_push.stream.known_revocations import KnownRevocations
from sse_push.stream.pipeline import AT_ONCE
from sse_push.stream.planting import Planting
from sse_push.stream.turns import Turns

SWEEP_STEPS = 30

SWEEP_S: dict[BellKind, float] = {"tracking": 30.0, "pubsub": 15.0}
"""Within this time every stream is read again without a cause, whoever joins and leaves. A message
of the bell that is lost with its sender is found by this alone."""

_LATE_S = 0.1
"""How long an announcement waits at most after many that were no change: a tracking table of Redis
that is too small announces without an end, and all reads together would fill a core."""


class Rounds:
    """Have streams read when it is time; ``wake()`` is called when reads are due."""

    def __init__(
        self,
        turns: Turns,
        planting: Planting,
        revocations: KnownRevocations,
        wake: Callable[[], None],
        sweep_s: float | None,
    ) -> None:
        self._turns = turns
        self._planting = planting
        self._revocations = revocations
        self._wake = wake
        self._sweep_s = sweep_s

    def retry(self) -> None:
        """Have the reads sent again that were refused."""
        self._turns.retry(AT_ONCE)
        self._revocations.mark()
        self._wake()

    async def read_late(self) -> None:
        """Have those streams read, for ever, that wait after many announcements in vain."""
        while True:
            await asyncio.sleep(_LATE_S)
            if self._turns.has_late:
                self._turns.collect()
                self._wake()

    async def sweep(self, kind: BellKind) -> None:
        """Have every stream read once in a round, for ever."""
        while True:
            for steps_left in reversed(range(SWEEP_STEPS)):
                await asyncio.sleep((self._sweep_s or SWEEP_S[kind]) / SWEEP_STEPS)
                self._planting.swept(self._turns.sweep())
                # Revocations are read once in a round, or in each step while they are not known.
                if steps_left == 0 or not self._revocations.is_complete:
                    self._revocations.mark()
                self._wake()
