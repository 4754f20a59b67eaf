"""A worker's end of the socket between it and its supervisor.

Knows what the two say: the worker that it serves, that it is alive, and that it is well; the
supervisor that the service is about to stop, and that all connections are to be cut. The end of the
socket is the end of the other process, however that ended. Does not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

SERVING = b"s"
BEAT = b"."
WELL = b"w"
LEAVE = b"l"
CUT = b"c"

_READ_BYTES = 64


class Link:
    """One worker's way to its supervisor; no call of it waits.

    ``on_leave`` is called in the event loop when the service is about to stop, and ``on_cut`` when
    connections are to be cut.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.settimeout(0)
        self._channel = channel
        self.on_leave: Callable[[], object] = lambda: None
        self.on_cut: Callable[[], object] = lambda: None

    async def tell_serving(self) -> None:
        """Tell that connections are accepted; again and again has no other effect."""
        self._send(SERVING)

    def beat(self) -> None:
        """Tell that this process is alive; from any thread, without a lock."""
        self._send(BEAT)

    def tell_well(self) -> None:
        """Tell that entries of this worker are found in Redis, or that Redis is away."""
        self._send(WELL)

    async def follow(self) -> None:
        """Obey the supervisor; return once it is gone.

        The supervisor has held its end since before this process was born. Its process ID would
        not do: a process that asks for it after its parent has died gets that of another one.
        """
        loop, is_gone = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            orders = self._receive()
            if LEAVE in orders:
                self.on_leave()
            if CUT in orders:
                self.on_cut()
            if not orders:
                is_gone.set()
                loop.remove_reader(self._channel)

        loop.add_reader(self._channel, read)
        try:
            await is_gone.wait()
        finally:
            loop.remove_reader(self._channel)

    def _receive(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return self._channel.recv(_READ_BYTES)
        return b""

    def _send(self, word: bytes) -> None:
        # Full, the supervisor stands still; closed, ``follow`` finds out.
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._channel.send(word)
