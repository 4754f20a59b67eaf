"""nginx as shipped, for tests: the folder as it stands, with two addresses of the test's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support import STOP_S, accepts, free_port, program, wait_for

SHIPPED = Path(__file__).parent.parent / "nginx"
SITE = "conf.d/sse-push.conf"


@dataclass
class Nginx:
    """A master with its workers, in the foreground, its logs in files."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_log(self) -> str:
        return (self.folder / "access.log").read_text()

    @property
    def error_log(self) -> str:
        return (self.folder / "error.log").read_text()

    @classmethod
    def start(
        cls,
        folder: Path,
        upstream: str,
        adapt: Callable[[Path], None] = lambda _folder: None,
        port: int | None = None,
        through: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> Nginx:
        """Serve ``upstream``, as nginx's ``server`` directive names it: host:port or unix:path.

        ``adapt`` may change the copied files before they are read. ``through`` is a program that
        starts another one, such as ``ip netns exec``, and ``host`` where nginx is then reached.
        """
        port = port or free_port()
        copy_shipped(folder)
        replace_once(folder, "127.0.0.1:8000", upstream)
        replace_once(folder, "listen 8080", f"listen {port}")
        adapt(folder)
        with (
            (folder / "access.log").open("ab") as access_log,
            (folder / "error.log").open("ab") as error_log,
        ):
            command = [*through, *_command(folder), "-g", "daemon off;"]
            process = subprocess.Popen(command, stdout=access_log, stderr=error_log)
        nginx = cls(port, process, folder)
        try:
            wait_for(lambda: accepts((host, port)) or process.poll() is not None, "nginx")
            assert process.poll() is None, nginx.error_log
        except BaseException:
            nginx.stop()
            raise
        return nginx

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def reload(self) -> None:
        """Read the files again, as an operator has it done."""
        subprocess.run([*_command(self.folder), "-s", "reload"], check=True, capture_output=True)

    def stop(self) -> None:
        """End it at once: a quiet end would wait for the streams."""
        self.process.terminate()
        self.process.wait(STOP_S)

    def healthz(self, source: str = "127.0.0.1") -> int:
        """Return the status that a new connection from this address gets."""
        with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
            return client.get(f"{self.url}/healthz").status_code

    def client(self, source: str = "127.0.0.1") -> httpx.AsyncClient:
        """Return a client whose connections come from this address."""
        return httpx.AsyncClient(
            base_url=self.url, transport=httpx.AsyncHTTPTransport(local_address=source)
        )


def copy_shipped(folder: Path) -> None:
    """Copy the shipped folder, without what a run of it may have left there."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("run", "run.pid"))


def replace_once(folder: Path, old: str, new: str) -> None:
    """Replace the only occurrence of a text in all files of the folder."""
    counts = {path: path.read_text().count(old) for path in folder.rglob("*.conf")}
    assert sum(counts.values()) == 1, f"expected {old!r} once, came {counts}"
    (path,) = (path for path, count in counts.items() if count)
    path.write_text(path.read_text().replace(old, new))


def _command(folder: Path) -> list[str]:
    return [program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf"]
