"""Waits, deadlines, programs and ports.

Every wait is for a thing, with a deadline. All deadlines are multiples of ``SECOND``, which is
longer on a slow or busy machine; a deadline that is missed moves once more, if the machine has
become slower since the tests began.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.machine import measure, unit

SECOND = unit()
"""Measured once, as the tests begin; ``TEST_SECOND`` overrides the measure."""

START_S = 20 * SECOND
"""How long a server may take to start."""

STOP_S = 20 * SECOND
"""How long a server may take to stop."""

LATE_S = 2 * (SECOND - 1)
"""How late a busy machine may be for a promised moment; 0 on an idle one."""


def stretched(limit_s: float) -> float:
    """Measure the machine; return a limit, longer if it is slower than it was at the start."""
    return limit_s * max(1.0, measure() / SECOND)


def is_late(took_s: float, limit_s: float) -> bool:
    """Return whether something took longer than its limit, also on the machine as it is now."""
    return took_s >= limit_s and took_s >= stretched(limit_s)


class Deadline:
    """The moment until which something has to happen; later if the machine has become slower."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began_at = time.monotonic()

    @property
    def passed_s(self) -> float:
        """The time since the deadline was set."""
        return time.monotonic() - self.began_at

    @property
    def pause_s(self) -> float:
        """How long to wait before the thing is looked for again: a tenth of the time that passed.

        Many a look starts a program, and the CPU is what the thing waits for.
        """
        return min(max(0.005, self.passed_s / 10), 0.05)

    def is_over(self) -> bool:
        """Return whether the time is up; measures the machine if that may be so, and blocks."""
        return is_late(self.passed_s, self.seconds)

    async def is_missed(self) -> bool:
        """As ``is_over``, while the event loop runs on, with its proxies and browsers."""
        return self.passed_s >= self.seconds and await asyncio.to_thread(self.is_over)


def program(*names: str) -> str:
    """Return the path of a program; skip without it on a laptop, fail where CI is set."""
    for name in names:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path is not None:
            return path
    text = f"{' or '.join(names)} is not installed"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


_given: set[int] = set()
"""The ports that this process was given."""


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection is given either.

    A server that is restarted finds it free again only if it lies outside the system's own range.
    Nobody else in the tests is given it while this process lives: a server needs a while to listen.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        if port in _given:  # a lock keeps out other processes only
            continue
        with socket.socket() as sock:
            try:
                fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


@functools.cache
def _claims() -> int:
    """Return a file that all processes of tests have open: a byte is locked by whoever has a port.

    https://man7.org/linux/man-pages/man2/fcntl_locking.2.html (traditional record locks)
    """
    path = Path(tempfile.gettempdir()) / f"ports-of-the-tests-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    """Ask again and again, until the answer is true; fail at the deadline."""
    deadline = Deadline(seconds)
    while not is_there():
        assert not deadline.is_over(), f"expected {what} within {seconds} s"
        time.sleep(deadline.pause_s)


async def until(is_there: Callable[[], bool], what: str, seconds: float = 5 * SECOND) -> None:
    """As ``wait_for``, while the event loop runs on."""
    deadline = Deadline(seconds)
    while not is_there():
        assert not await deadline.is_missed(), f"expected {what} within {seconds} s"
        await asyncio.sleep(deadline.pause_s)


def accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=SECOND):
            return True
    except OSError:
        return False
