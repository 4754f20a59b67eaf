"""What a serving process owes to those outside it: signals, its parent, and its own death.

Knows the operating system. Does not know what is served.
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
_PARENT_INTERVAL_S = 1.0
_HANG_STEPS = 10

HANGING = 70
"""The exit status of a process whose event loop hung: EX_SOFTWARE of sysexits.h."""

broken = threading.Event()
"""Set when this process stops because a part of it has died; its exit status must say so."""


@contextmanager
def hear_stop(begin: Callable[[], None], *, is_supervised: bool) -> Generator[None]:
    """Call ``begin`` in the event loop on the first SIGTERM or SIGINT, before the server reacts.

    The server's own handler runs as well: it stops accepting, and then waits for the streams to
    end, which they do because ``begin`` ends them. A second signal of either kind makes it stop
    waiting. (uvicorn's lifespan shutdown comes too late: it runs after the streams have ended.)

    A supervised process leaves SIGINT, and any second signal, to its supervisor: Ctrl-C, or a
    service manager, reaches both, and then the supervisor's SIGTERM comes as well.

    https://www.uvicorn.org/server-behavior/#graceful-process-shutdown
    """
    loop = asyncio.get_running_loop()
    originals = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    is_stopping = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        original = originals[signal.Signals(number)]
        if is_stopping and is_supervised:
            return  # a service manager may signal all processes; the supervisor decides for us
        if is_stopping:
            server = getattr(original, "__self__", None)
            if server is not None:
                server.force_exit = True
        else:
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
    """Stop the process when a task ends by itself: its supervisor starts a whole one.

    A server whose tail is dead would go on to answer, and its browsers would hear nothing.
    """

    def on_done(done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            logger.critical("%s died, stopping", done.get_name(), exc_info=done.exception())
            broken.set()
            signal.raise_signal(signal.SIGTERM)

    task.add_done_callback(on_done)


def stop_if_a_callback_fails(loop: asyncio.AbstractEventLoop) -> None:
    """Stop the process when a callback of the event loop raises, as ``stop_if_it_dies`` does.

    Timers and fan-outs are callbacks; one that is cut short leaves its state in between. An error
    of a single connection comes without a ``handle``, and is only logged.

    https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_exception_handler
    """

    def on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" in context and "exception" in context:
            logger.critical("a callback failed, stopping")
            broken.set()
            signal.raise_signal(signal.SIGTERM)

    loop.set_exception_handler(on_exception)


@contextmanager
def exit_if_it_hangs(loop: asyncio.AbstractEventLoop, limit_s: float) -> Generator[None]:
    """Exit with ``HANGING`` when the event loop has done nothing for ``limit_s``, or a tenth more.

    A supervisor's own health check is answered by a thread, and does not see it. A thread sees it
    here as well, and counts its own steps, not the time: while the whole process, or the machine,
    is stopped, nothing is counted. There is no clean end for a loop that does not run.
    """
    alive = threading.Event()
    ended = threading.Event()

    def watch() -> None:
        missed = 0
        while not ended.wait(limit_s / _HANG_STEPS):
            if missed == 0 or alive.is_set():
                missed = 0
                alive.clear()
                loop.call_soon_threadsafe(alive.set)
            missed += 1
            if missed > _HANG_STEPS:
                frame = sys._current_frames().get(main)  # noqa: SLF001 (documented)
                where = "".join(traceback.format_stack(frame)) if frame is not None else ""
                logger.critical("the event loop hangs, exiting limit_s=%g at=%r", limit_s, where)
                os._exit(HANGING)

    main = threading.get_ident()
    thread = threading.Thread(target=watch, name="watchdog of the loop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def stop_with_parent() -> None:
    """Stop this process once its parent is gone: a worker without its supervisor is an orphan."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 (no event tells a child of it)
        await asyncio.sleep(_PARENT_INTERVAL_S)
    logger.warning("the supervising process is gone, stopping parent=%d", parent)
    signal.raise_signal(signal.SIGTERM)
