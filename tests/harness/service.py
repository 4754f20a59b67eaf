"""``sse-push serve`` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from tests.harness.waiting import STOP_S, free_port, wait_for

KEY = "a-key-of-the-tests-0123456789"


@dataclass
class Service:
    """``sse-push serve`` as a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path
    key: str = KEY

    @classmethod
    def start(
        cls,
        folder: Path,
        redis_url: str | None,
        *arguments: str,
        uds: Path | None = None,
        module: Sequence[str] = ("sse_push", "serve"),
        port: int | None = None,
        settings: Mapping[str, object] = MappingProxyType({}),
        **more_settings: object,
    ) -> Service:
        port = port or free_port()
        command = [sys.executable, "-m", *module, "--subscribe-auth", "none"]
        command += ["--notify-keys", KEY, *arguments]
        command += ["--uds", str(uds)] if uds is not None else ["--port", str(port)]
        command += ["--redis-url", redis_url] if redis_url is not None else ["--embedded"]
        environ, given = clean_environ(), {**settings, **more_settings}
        environ |= {f"SSE_PUSH_{name.upper()}": str(value) for name, value in given.items()}
        log_path = folder / f"service-{port}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        service = cls(f"http://127.0.0.1:{port}", process, log_path)
        if uds is not None:
            wait_for(uds.exists, "the service's socket")
            return service
        wait_for(lambda: service.is_ready() or process.poll() is not None, "the service")
        assert process.poll() is None, log_path.read_text()
        return service

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """End it as an operator does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def assert_no_errors(self) -> None:
        assert_no_errors(self.log)


def assert_no_errors(log: str) -> None:
    """Find what an operator would be alarmed by, in any form of log, and from any process."""
    found = [line for line in log.splitlines() if _ALARM.search(line)]
    assert not found, "\n".join([*found, "-- in", log])


_ALARM = re.compile(r'\blevel=(error|critical)\b|"level": ?"(error|critical)"|Traceback')


def clean_environ() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("SSE_PUSH_")}
