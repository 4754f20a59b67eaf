"""The process above the workers: starts them, hears of them, and passes on what an operator wants.

Knows processes, signals, sockets and time. Does not know when a worker is started or ended, which
``supervision`` decides, nor what a worker does.

Workers are forked, not executed anew: they share the memory of everything that is imported, and
start within some milliseconds. A worker that serves another version is another service.

https://man7.org/linux/man-pages/man2/fork.2.html
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from sse_push.runtime.link import BEAT, CUT, LEAVE, SERVING, WELL, Link
from sse_push.runtime.process import is_of_a_part
from sse_push.runtime.service_manager import Given, ServiceManager
from sse_push.runtime.standing import is_well, state_of, text_of
from sse_push.runtime.supervision import Act, Limits, Phase, Supervision

logger = logging.getLogger(__name__)

_STEP_S = 0.5
"""How often the limits are checked."""

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_READ_BYTES = 4096


def supervise(
    work: Callable[[Link], int],
    *,
    workers: int,
    limits: Limits,
    on_stopping: Callable[[], object],
    manager: ServiceManager | None = None,
) -> int:
    """Run ``work`` in as many processes until a signal; return the exit status of the service.

    ``work`` gets its way to this process, and returns its own exit status. ``on_stopping`` is
    called in this process, maybe several times, once no worker is to be started any more.
    ``manager`` is told what happens.

    SIGTERM and SIGINT end the service, which may leave for a while first; the next one cuts its
    connections, and the next one kills. SIGHUP replaces the workers; it ends the service if it
    comes from a terminal that is gone.
    """
    supervision = Supervision(workers, limits)
    return _Supervisor(work, supervision, on_stopping, manager or ServiceManager(Given())).run()


class _Supervisor:
    """Carries out the orders of a ``Supervision``, and tells it what happens."""

    def __init__(
        self,
        work: Callable[[Link], int],
        supervision: Supervision,
        on_stopping: Callable[[], object],
        manager: ServiceManager,
    ) -> None:
        self._work = work
        self._supervision = supervision
        self._on_stopping = on_stopping
        self._manager = manager
        self._channels: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        self._has_terminal = _has_terminal()

    def run(self) -> int:
        """Supervise until the end."""
        supervision = self._supervision
        gc.freeze()  # a collection would write to the memory that workers share
        with _waking(self._signals) as self._waker:
            self._selector.register(self._waker, selectors.EVENT_READ)
            checked_at = time.monotonic()
            while supervision.phase is not Phase.ENDED:
                self._obey()
                if supervision.phase in (Phase.STOPPING, Phase.CUTTING):
                    self._on_stopping()
                self._report()
                self._listen()
                checked_at = self._pass_time(checked_at)
        self._selector.close()
        return supervision.status

    def _report(self) -> None:
        self._manager.tell(state_of(self._supervision), text_of(self._supervision))
        if is_well(self._supervision):
            self._manager.feed(time.monotonic())

    def _pass_time(self, checked_at: float) -> float:
        now = time.monotonic()
        if now - checked_at >= _STEP_S:
            # What is beyond two steps, this process or the machine has slept.
            self._supervision.pass_time(min(now - checked_at, 2 * _STEP_S))
            return now
        return checked_at

    # -- orders

    def _obey(self) -> None:
        for act, pid in self._supervision.orders():
            if act is Act.START:
                self._start()
            elif act is Act.STOP:
                os.kill(pid, signal.SIGTERM)
            elif act is Act.KILL:
                os.kill(pid, signal.SIGKILL)
            elif pid in self._channels:
                # Full, the worker stands still, and is killed in a moment.
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self._channels[pid].send(LEAVE if act is Act.LEAVE else CUT)

    def _start(self) -> None:
        # Blocked: a signal shall not find this process's handlers in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            with contextlib.ExitStack() as undo:
                ours, theirs = map(undo.enter_context, socket.socketpair())
                sys.stdout.flush()  # else the child had the same text to write
                pid = _fork()
                undo.pop_all()
        except OSError as exc:
            self._supervision.on_not_started(str(exc))
            return
        else:
            if pid == 0:  # pragma: no cover (nothing traces a function that a fork is in)
                ours.close()
                self._become_worker(theirs)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        theirs.close()
        ours.settimeout(0)
        self._channels[pid] = ours
        self._selector.register(ours, selectors.EVENT_READ, pid)
        self._supervision.on_started(pid)

    def _become_worker(self, channel: socket.socket) -> NoReturn:
        """Do the work in a process that has just been born; nothing of the parent's is ended."""
        status = 1
        try:
            link = Link(channel)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The supervisor alone decides at Ctrl-C, which goes to all processes of a terminal.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            # Until the server handles it, and when the server raises it again at its end.
            signal.signal(signal.SIGTERM, lambda *_: None)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            self._waker.close()
            for other in self._channels.values():
                other.close()  # else it would not end with the supervisor
            self._selector.close()
            status = self._work(link)
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 1
        except BaseException:  # the edge of a process, which must not unwind into the parent's
            logger.critical("worker failed", exc_info=True)
        finally:
            for handler in logging.getLogger().handlers:
                handler.flush()
            os._exit(status)

    # -- what happens

    def _listen(self) -> None:
        self._read(_STEP_S)
        if self._signals:
            self._read(0)  # what workers have told before the signal
        while self._signals:
            self._handle(self._signals.popleft())
        self._reap()

    def _read(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._waker.recv(_READ_BYTES)
            else:
                self._hear(key.data)

    def _hear(self, pid: int) -> None:
        channel = self._channels[pid]
        try:
            words = channel.recv(_READ_BYTES)
        except ConnectionError:
            words = b""
        if SERVING in words:
            self._supervision.on_serving(pid)
        if BEAT in words:
            self._supervision.on_beat(pid)
        if WELL in words:
            self._supervision.on_well(pid)
        if not words:
            self._close(pid)

    def _handle(self, number: int) -> None:
        if number == signal.SIGHUP and not self._is_hangup():
            self._supervision.restart()
        elif is_of_a_part(number):
            self._supervision.fail()
        elif number != signal.SIGCHLD:
            self._supervision.stop()

    def _is_hangup(self) -> bool:
        """Return whether the terminal is gone in which the service was started."""
        return self._has_terminal and not _has_terminal()

    def _reap(self) -> None:
        for pid in list(self._supervision.workers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._close(pid)
                self._supervision.on_ended(pid, os.waitstatus_to_exitcode(status))

    def _close(self, pid: int) -> None:
        if channel := self._channels.pop(pid, None):
            self._selector.unregister(channel)
            channel.close()


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of other threads. The thread of the log holds no lock now (``LineWriter``);
        # the thread that watches the embedded server only waits.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def _waking(received: deque[int]) -> Generator[socket.socket]:
    """Collect signals; the socket becomes readable at each. Afterwards SIGTERM is ignored.

    A second SIGTERM may arrive after the end and before the process exits. SIGHUP stays ignored if
    it was when the service was started, as with ``nohup``.
    """
    waker, wakes = socket.socketpair()
    waker.settimeout(0)
    wakes.settimeout(0)

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    originals = {number: signal.getsignal(number) for number in _HANDLED}
    for number, original in originals.items():
        if number != signal.SIGHUP or original is not signal.SIG_IGN:
            signal.signal(number, handle)
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    try:
        yield waker
    finally:
        signal.set_wakeup_fd(before)
        for number, original in originals.items():
            signal.signal(number, signal.SIG_IGN if number == signal.SIGTERM else original)
        waker.close()
        wakes.close()
