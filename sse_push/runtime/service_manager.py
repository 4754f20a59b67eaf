"""What a service manager, such as systemd, gives to this process, and is told by it.

Knows the variables and the datagrams of systemd's protocols. Does not know workers, nor why the
service is in which state.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
https://www.freedesktop.org/software/systemd/man/latest/sd_watchdog_enabled.html
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from enum import Enum
from typing import NamedTuple

from sse_push.errors import ConfigError

logger = logging.getLogger(__name__)

_FIRST_SOCKET = 3
"""The file descriptor of the first socket: SD_LISTEN_FDS_START."""

_FEEDS_PER_LIMIT = 3
"""How often the watchdog is fed within its limit; systemd asks for two."""


class State(Enum):
    """What the manager is told of the service, and which states may follow."""

    STARTING = ""
    READY = "READY=1"
    RELOADING = "RELOADING=1"
    STOPPING = "STOPPING=1"

    @property
    def followers(self) -> frozenset[State]:
        """The states that may follow."""
        return _FOLLOWERS[self]


_FOLLOWERS = {
    # A SIGHUP may come with the first worker that serves, before anything was told.
    State.STARTING: frozenset({State.READY, State.RELOADING, State.STOPPING}),
    State.READY: frozenset({State.RELOADING, State.STOPPING}),
    State.RELOADING: frozenset({State.READY, State.STOPPING}),
    State.STOPPING: frozenset(),
}


class Given(NamedTuple):
    """What the environment has of a service manager."""

    address: str = ""
    """Where it receives datagrams; empty: it wants none."""
    watchdog_s: float = 0.0
    """How long it waits for a sign of life; 0: for ever."""
    sockets: int = 0
    """How many sockets it has opened for this process."""

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> Given:
        """Take the variables out of the environment, so that no child finds them."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = _number(environ.pop("WATCHDOG_USEC", ""))
        if environ.pop("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            watchdog_us = 0
        sockets = _number(environ.pop("LISTEN_FDS", ""))
        if environ.pop("LISTEN_PID", "") != str(os.getpid()):
            sockets = 0
        environ.pop("LISTEN_FDNAMES", None)
        return cls(address, watchdog_us / 1e6, sockets)

    def socket(self) -> socket.socket | None:
        """Return the listening socket that was opened for this process, if one was.

        Raises:
            ConfigError: there are several, or it is no socket that listens for streams.
        """
        if not self.sockets:
            return None
        if self.sockets > 1:
            raise ConfigError(f"expected one socket of the service manager, got {self.sockets}")
        try:
            os.set_inheritable(_FIRST_SOCKET, False)  # noqa: FBT003 (its only argument)
            found = socket.socket(fileno=_FIRST_SOCKET)
            is_right = found.type == socket.SOCK_STREAM and found.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            )
        except OSError as exc:
            raise ConfigError(
                f"expected a socket of the service manager, got {exc.strerror!r}"
            ) from exc
        if not is_right:
            found.detach()
            raise ConfigError(
                "expected a socket of the service manager that listens for streams "
                "(ListenStream=, Accept=no), got another"
            )
        return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


class ServiceManager:
    """The way to the manager; no call of it waits, and none has an effect without a manager."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._state = self._told = State.STARTING
        self._told_text = ""
        self._fed_at = 0.0
        self._is_failing = False

    def tell(self, state: State, text: str) -> None:
        """Tell the state and a text for an operator, if either is new.

        What could not be told is told at the next call.
        """
        if state is not self._state:
            assert state in self._state.followers, f"{state} does not follow {self._state}"
            self._state = state
        words = [f"STATUS={text}"] if text != self._told_text else []
        if state is not self._told:
            words.append(state.value)
        if state is State.RELOADING is not self._told:
            words.append(f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if words and self._send("\n".join(words)):
            self._told, self._told_text = state, text

    def feed(self, now: float) -> None:
        """Tell that the service is well, as often as the manager wants to know it."""
        if (
            self._given.watchdog_s
            and now - self._fed_at >= self._given.watchdog_s / _FEEDS_PER_LIMIT
        ):
            self._fed_at = now
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> bool:
        address = self._given.address
        if not address:
            return True
        if address.startswith("@"):
            address = f"\0{address[1:]}"  # the name of an abstract socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode(), address)
        except OSError as exc:
            if not self._is_failing:
                logger.warning("service manager can't be told cause=%s", exc)
            self._is_failing = True
            return False
        self._is_failing = False
        return True
