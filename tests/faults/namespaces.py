"""Network namespaces: another host on this machine, with a cable that can be pulled.

A pulled cable is what a reset is not: nobody is told. Needs root and ``ip``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.harness.waiting import program

_numbers = itertools.count()


@dataclass(frozen=True)
class Host:
    """A namespace with one address, and this side's address of the cable to it."""

    name: str
    address: str
    near_address: str

    @property
    def through(self) -> tuple[str, ...]:
        """The words before a command that runs in the namespace."""
        return (program("ip"), "netns", "exec", self.name)

    def pull(self) -> None:
        """Pull the cable: no packet arrives any more, and neither side gets a reset."""
        self._ip("link", "set", "far", "down")

    def plug(self) -> None:
        """Plug the cable in again."""
        self._ip("link", "set", "far", "up")

    def set(self, name: str, value: int) -> None:
        """Set one of the namespace's own kernel settings."""
        path = f"/proc/sys/{name.replace('.', '/')}"
        subprocess.run([*self.through, "sh", "-c", f"echo {value} > {path}"], check=True)

    def _ip(self, *words: str) -> None:
        subprocess.run([program("ip"), "-n", self.name, *words], check=True)


@contextmanager
def another_host() -> Generator[Host]:
    """Make one, for as long as the context lasts; skip where that is not allowed."""
    third, fourth = divmod((os.getpid() + next(_numbers)) % 16_384 * 4, 256)
    near = f"push{third}-{fourth}"
    host = Host(near, f"10.77.{third}.{fourth + 2}", f"10.77.{third}.{fourth + 1}")
    made = subprocess.run(
        [program("ip"), "netns", "add", host.name], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
    try:
        for command in (
            f"link add {near} type veth peer name far netns {host.name}",
            f"addr add {host.near_address}/30 dev {near}",
            f"link set {near} up",
            f"-n {host.name} addr add {host.address}/30 dev far",
            f"-n {host.name} link set lo up",
            f"-n {host.name} link set far up",
        ):
            subprocess.run([program("ip"), *command.split()], check=True)
        yield host
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([program("ip"), "netns", "del", host.name], check=True)
