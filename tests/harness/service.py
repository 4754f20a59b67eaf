"""``sse-push serve`` and what serves like it, ready before a test gets it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.harness import plain_http
from tests.harness.processes import workers_of
from tests.harness.programs import NOTHING, Running, spawn, variables
from tests.harness.waiting import accepts, free_port, wait_for

KEY = "a-key-of-the-tests-3f9a1c7e5b2d8604"

_ALARM = re.compile(
    r'\blevel=(error|critical)\b|"level": ?"(error|critical)"| (ERROR|CRITICAL) |Traceback'
)


@dataclass
class Service(Running):
    """``sse-push serve``, without tokens and with one key unless a test says otherwise."""

    port: int
    key: str = KEY

    @classmethod
    def start(  # type: ignore[override]  # a service is ready, and takes settings by their names
        cls,
        folder: Path,
        redis_url: str | None,
        *arguments: str,
        uds: Path | None = None,
        module: Sequence[str] = ("sse_push", "serve"),
        port: int | None = None,
        through: Sequence[str] = (),
        cwd: Path | None = None,
        settings: Mapping[str, object] = NOTHING,
        **more_settings: object,
    ) -> Service:
        """Start a service and wait until it is ready; with a socket, until the socket is there.

        A later argument wins over the defaults here. Without a Redis, the service embeds one.
        """
        port = port or free_port()
        command = [*module[1:], "--subscribe-auth", "none", *arguments]
        command += ["--uds", str(uds)] if uds is not None else ["--port", str(port)]
        command += ["--embedded"] if redis_url is None else []
        redis = {} if redis_url is None else {"redis_url": redis_url}  # which may have a password
        hosts = {"allowed_hosts": "*"} if cwd is None else {}  # another version may not know it
        given = variables({"notify_keys": KEY, **redis, **hosts, **settings, **more_settings})
        name, program = f"service-{port}", module[0]
        started = spawn(
            folder, name, command, module=program, through=through, environ=given, cwd=cwd
        )
        service = cls(*started, port)
        try:
            service.wait_ready(uds)
        except BaseException:
            service.kill()
            raise
        return service

    def wait_ready(self, uds: Path | None = None) -> None:
        """Wait until the service answers that it is ready, or until its socket is there."""

        def is_there() -> bool:
            if uds is not None:
                return uds.exists()
            # A client of HTTP takes 3 ms of CPU to be refused, and a start is looked at ten times.
            return accepts(("127.0.0.1", self.port)) and self.is_ready()

        wait_for(lambda: is_there() or self.process.poll() is not None, "the service")
        assert self.process.poll() is None, self.log

    def kill(self) -> None:
        """Leave no worker behind either: one that saw the supervisor end would say goodbye."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
        for pid in self.workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().kill()

    @property
    def workers(self) -> list[int]:
        """The process IDs of the workers, oldest first."""
        return sorted(workers_of(self.process.pid))

    @property
    def worker(self) -> int:
        """The process ID of the one worker."""
        (pid,) = self.workers
        return pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        try:
            return plain_http.get(f"{self.url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def assert_no_errors(self, tolerated: str = "(?!)") -> None:
        assert_no_errors(self.log, tolerated)


@contextmanager
def serving(
    folder: Path, redis_url: str | None, *arguments: str, tolerated: str = "(?!)", **options: Any
) -> Generator[Service]:
    """Serve as ``Service.start`` does, and see that the service ends with status 0.

    Its log has no errors then, but for lines in which ``tolerated`` is found.
    """
    service = Service.start(folder, redis_url, *arguments, **options)
    try:
        yield service
    except BaseException:
        service.kill()
        raise
    assert service.stop() == 0, service.log
    service.assert_no_errors(tolerated)


def alarms(log: str) -> list[str]:
    """Return the lines that alarm an operator, in any form of log, and from any process."""
    return [line for line in log.splitlines() if _ALARM.search(line)]


def assert_no_errors(log: str, tolerated: str = "(?!)") -> None:
    found = [line for line in alarms(log) if not re.search(tolerated, line)]
    assert not found, "\n".join([*found, "-- in", log])
