"""How a serving process ends: by a signal, or because a part of it has died.

Knows the operating system. Does not know what is served, nor by which server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HANG_STEPS = 10
"""A loop hangs after this many steps without an answer; each step is a tenth of the limit."""

_REPORT_LIMIT_S = 2.0
"""How long a process whose loop hangs may take to log that."""

HANGING = 70
"""The exit status of a process whose event loop hung: EX_SOFTWARE of sysexits.h."""

broken = threading.Event()
"""Set when this process stops because a part of it has died: its exit status is 1."""

_is_signaled = threading.Event()
"""Set while a signal of ``stop_broken`` is on its way."""


def stop_broken() -> None:
    """Stop this process in order, with exit status 1: its supervisor starts a new one.

    Otherwise a server without that part would go on answering while its browsers get no events. The
    caller logs which part has died, and why.
    """
    broken.set()
    _is_signaled.set()
    # To the process, not to the calling thread: only the main thread handles signals.
    os.kill(os.getpid(), signal.SIGTERM)


def is_of_a_part(number: int) -> bool:
    """Return whether a signal that has come is that of ``stop_broken``; asked once per signal."""
    is_own = number == signal.SIGTERM and _is_signaled.is_set()
    if is_own:
        _is_signaled.clear()
    return is_own


@contextmanager
def on_stop_signal(begin: Callable[[], None], *, is_supervised: bool) -> Generator[None]:
    """Call ``begin`` in the event loop at the first SIGTERM or SIGINT, before the server reacts.

    The server's own handler runs as well: it stops accepting connections, and then waits for the
    responses to end, which they do because ``begin`` ends the event streams. (uvicorn's lifespan
    shutdown runs too late: after the responses have ended.) A later signal is left to the server.

    A supervised process leaves SIGINT, and any second signal, to its supervisor: Ctrl-C, or a
    service manager, signals both, and then the supervisor sends SIGTERM as well. A part that dies
    while the process stops changes nothing: by a second signal the server would cut connections.

    https://www.uvicorn.org/server-behavior/#graceful-process-shutdown
    """
    loop = asyncio.get_running_loop()
    originals = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    is_stopping = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        original = originals[signal.Signals(number)]
        is_own = is_of_a_part(number)
        if is_stopping and (is_supervised or is_own):
            return
        if not is_stopping:
            is_stopping = True
            loop.call_soon_threadsafe(begin)
        if callable(original):
            original(number, frame)

    for number in _STOP_SIGNALS:
        is_left = is_supervised and number is signal.SIGINT
        signal.signal(number, signal.SIG_IGN if is_left else on_signal)
    try:
        yield
    finally:
        for number, original in originals.items():
            signal.signal(number, original)


def stop_if_it_dies(task: asyncio.Task[None]) -> None:
    """Stop the process when a task ends without being canceled, by an error or not."""

    def on_done(done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            logger.critical("%s died, stopping", done.get_name(), exc_info=done.exception())
            stop_broken()

    task.add_done_callback(on_done)


def stop_if_a_callback_fails(loop: asyncio.AbstractEventLoop) -> None:
    """Stop the process when a callback of the event loop raises an exception.

    Timers and fan-outs are callbacks; a callback that is cut short leaves an inconsistent state. An
    error of a single connection is reported without a ``handle``, and is only logged.

    https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_exception_handler
    """

    def on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" in context and "exception" in context:
            logger.critical("a callback failed, stopping")
            stop_broken()

    loop.set_exception_handler(on_exception)


@contextmanager
def exit_if_it_hangs(
    loop: asyncio.AbstractEventLoop, limit_s: float, beat: Callable[[], object] | None = None
) -> Generator[None]:
    """Exit with ``HANGING`` when the event loop has not run for ``limit_s``, or a tenth more.

    The watchdog is a thread, and counts its own steps instead of the time: while the whole process,
    or the machine, is stopped, no step is counted. Each step calls ``beat``, by which a supervisor
    knows that the process is not stopped. A loop that does not run cannot end in order.
    """
    alive = threading.Event()
    ended = threading.Event()

    def watch() -> None:
        missed = 0
        while not ended.wait(limit_s / _HANG_STEPS):
            if beat is not None:
                beat()
            if missed == 0 or alive.is_set():  # pragma: no branch (as below)
                missed = 0
                alive.clear()
                loop.call_soon_threadsafe(alive.set)
            missed += 1
            if missed > _HANG_STEPS:  # pragma: no cover (``os._exit`` saves no coverage)
                # In a thread of its own: the hanging one may hold a lock of the log.
                reporting = threading.Thread(target=_report, args=(main, limit_s), daemon=True)
                reporting.start()
                reporting.join(_REPORT_LIMIT_S)
                os._exit(HANGING)

    main = threading.get_ident()
    thread = threading.Thread(target=watch, name="watchdog of the loop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(main: int, limit_s: float) -> None:  # pragma: no cover (as above)
    frame = sys._current_frames().get(main)  # noqa: SLF001 (documented)
    where = "".join(traceback.format_stack(frame)) if frame is not None else ""
    logger.critical("the event loop hangs, exiting limit_s=%g at=%r", limit_s, where)
    for handler in logging.getLogger().handlers:
        handler.flush()
