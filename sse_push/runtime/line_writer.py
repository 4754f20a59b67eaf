"""Writes lines to a file descriptor that may take none, without making anybody wait.

Knows a file descriptor and threads. Does not know what the lines say.
"""

from __future__ import annotations

import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable

LIMIT_BYTES = 4 * 1024 * 1024
"""At most this much waits to be written: some seconds of a storm of errors."""


class LineWriter:
    """A bounded queue of lines, and the thread that writes them in order.

    A pipe that nobody reads takes 64 KiB, and then a write to it waits for ever. Only this thread
    waits then, in the system call, and holds no lock.
    """

    def __init__(self, fd: int, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._fd = fd
        self._limit_bytes = limit_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        """Of all lines that are not written in full."""
        self._changed = threading.Condition()
        self._dropped = 0
        self._start()
        _writers.add(self)

    def _start(self) -> None:
        threading.Thread(target=self._run, name="log", daemon=True).start()

    # A fork copies the lock, and not the thread: no thread may hold the lock then, and the copy
    # starts a thread of its own, with none of the lines that this process writes.

    def hold(self) -> None:
        """Stand still, before a fork."""
        self._changed.acquire()

    def go_on(self) -> None:
        """Go on after a fork, in the parent."""
        self._changed.release()

    def begin_anew(self) -> None:
        """Begin empty, in the child of a fork."""
        self._lines.clear()
        self._waiting_bytes = self._dropped = 0
        self._changed = threading.Condition()
        self._start()

    def put(self, line: bytes) -> bool:
        """Have a line written; False if there is no room, and the line is dropped."""
        with self._changed:
            has_room = self._waiting_bytes + len(line) <= self._limit_bytes
            if has_room:
                self._lines.append(line)
                self._waiting_bytes += len(line)
                self._changed.notify_all()
            else:
                self._dropped += 1
            return has_room

    def take_dropped(self) -> int:
        """Return how many lines were dropped since the last call, once there is room again."""
        with self._changed:
            if self._waiting_bytes > self._limit_bytes // 2:
                return 0
            dropped, self._dropped = self._dropped, 0
            return dropped

    def flush(self, timeout_s: float) -> bool:
        """Wait until all lines are written; False if the time is up before."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
            self._write(line)
            with self._changed:
                self._waiting_bytes -= len(line)
                self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process has made the file non-blocking
                select.select([], [self._fd], [])
            except OSError:  # the reader is gone, or the disk is full: there is nowhere to say so
                return


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def _each(act: Callable[[LineWriter], None]) -> Callable[[], None]:
    def act_on_all() -> None:
        for writer in list(_writers):
            act(writer)

    return act_on_all


os.register_at_fork(
    before=_each(LineWriter.hold),
    after_in_parent=_each(LineWriter.go_on),
    after_in_child=_each(LineWriter.begin_anew),
)
