"""How long to wait after a start that failed, until the next one.

Does not know what is started.
"""

from __future__ import annotations

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 15.0
"""How long after a failed start the next one begins: the first time, and at most; it doubles."""

_MOST_DOUBLINGS = 20
"""Far beyond the longest wait, and no number that grows for ever."""


class Backoff:
    """The failures of starts; time is passed to it."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.failures = 0
        """How many starts have failed, all in all."""
        self.in_a_row = 0
        """How many of them since a start that began after them was steady."""

    def on_failure(self) -> None:
        """Note that a start has failed."""
        self.failures += 1
        self.in_a_row += 1
        doublings = min(self.in_a_row - 1, _MOST_DOUBLINGS)
        self.wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2**doublings)

    def on_steady(self, failures_before: int) -> None:
        """Note that a start which began after so many failures was steady."""
        if failures_before == self.failures:
            self.in_a_row = 0

    def pass_time(self, elapsed_s: float) -> None:
        """Wait."""
        self.wait_s = max(0.0, self.wait_s - elapsed_s)
