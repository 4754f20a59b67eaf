"""nginx with the shipped files, at addresses of the test's own, and servers behind it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from tests.harness import plain_http
from tests.harness.waiting import SECOND, STOP_S, accepts, free_port, program, wait_for

SHIPPED = Path(__file__).parents[2] / "nginx"
SITE = "conf.d/sse-push.conf"
HOSTS = "test x shop shop.test"
"""What tests call the servers, beside the names in the files."""
OUTSIDER = "127.0.0.2"
"""The address of a client that the internal server refuses."""

OPEN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\n:\n\n\r\n"
)
"""The head of an event stream and a comment, for ``Recorder.answer``."""
EVENTS = (
    b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: x\r\nAccept: %s\r\nConnection: close\r\n\r\n"
)

SPOOFED = (
    b"X-Merchant-Id: 7\r\nx-merchant-ID: 8\r\nX_Merchant_Id: 9\r\nX-Forwarded-For: 127.0.0.1\r\n"
    b"X-Forwarded-For: 192.0.2.9\r\nX_Forwarded_For: 192.0.2.9\r\nForwarded: for=192.0.2.9\r\n"
    b"X-Forwarded-Proto: https\r\n"
)

CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


@dataclass
class Nginx:
    """A master with its workers, in the foreground, its logs in files."""

    port: int
    internal_port: int
    is_tls: bool
    main_file: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        """The address for browsers."""
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def internal_url(self) -> str:
        """The address for backends and monitoring."""
        return f"http://127.0.0.1:{self.internal_port}"

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
        *,
        tls: bool = False,
        main_file: str | None = None,
        auth_backend: str | None = None,
    ) -> Nginx:
        """Serve ``upstream``, as nginx's ``server`` directive names it: host:port or unix:path.

        ``adapt`` may change the copied files before they are read. ``through`` is a program that
        starts another one, such as ``ip netns exec``, and ``host`` where nginx is then reached.
        ``tls``: with a certificate of ``make-certificate``, and another main file, unless it is
        named. ``auth_backend``: this address is asked who may listen.
        """
        port, internal_port = port or free_port(), free_port()
        copy_shipped(folder)
        replace(folder, "127.0.0.1:8000", upstream)
        # Most of them are in the main files that are not used.
        replace(folder, "listen 8080", f"listen {port}", times=4)
        replace(folder, "listen 8443", f"listen {port}", times=2)
        replace(folder, "127.0.0.1:8081", f"127.0.0.1:{internal_port}", times=2)
        replace(folder, "server_name localhost", f"server_name {HOSTS} localhost", times=4)
        if auth_backend is not None:
            replace(folder, "127.0.0.1:9000", auth_backend)
            replace(folder, "snippets/events.conf", "snippets/events-auth-request.conf", times=2)
        adapt(folder)
        if tls:
            make_certificate(folder)
        main_file = main_file or ("nginx-tls.conf" if tls else "nginx.conf")
        with (
            (folder / "access.log").open("ab") as access_log,
            (folder / "error.log").open("ab") as error_log,
        ):
            command = [*through, *_command(folder, main_file), "-g", "daemon off;"]
            process = subprocess.Popen(command, stdout=access_log, stderr=error_log)
        nginx = cls(port, internal_port, tls, main_file, process, folder)
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
        """Have nginx read its files again, as an operator does."""
        command = [*_command(self.folder, self.main_file), "-s", "reload"]
        subprocess.run(command, check=True, capture_output=True)

    def stop(self) -> None:
        """End nginx at once: a graceful end would wait for open streams."""
        self.process.terminate()
        self.process.wait(STOP_S)

    def kill(self) -> None:
        """Kill it with all its workers, which would outlive it."""
        for pid in (self.process.pid, *self.workers()):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def workers(self) -> list[int]:
        """Return the process IDs of the workers."""
        master = self.process.pid
        return [*map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())]

    def healthz(self, source: str = "127.0.0.1") -> int:
        """Return the status that a new connection from this address gets."""
        transport = httpx2.HTTPTransport(local_address=source, verify=plain_http.TRUSTS_NOBODY)
        with plain_http.Client(transport=transport) as client:
            return client.get(f"{self.internal_url}/healthz").status_code

    def trust(self) -> ssl.SSLContext:
        """Return a context that believes this nginx's certificate, and no other."""
        return ssl.create_default_context(cafile=self.folder / "tls/certificate.pem")

    def client(
        self, source: str = "127.0.0.1", *, internal: bool = False, http2: bool = False
    ) -> httpx2.AsyncClient:
        """Return a client whose connections come from this address."""
        verify = self.trust() if self.is_tls else plain_http.TRUSTS_NOBODY
        return plain_http.AsyncClient(
            base_url=self.internal_url if internal else self.url,
            transport=httpx2.AsyncHTTPTransport(
                local_address=source, verify=verify, http1=not http2, http2=http2
            ),
        )


class Recorder:
    """A server that records each request byte for byte, and gives the answer that a test sets."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        """The answer to every request; empty: the connection is closed instead."""
        self.connections: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"\r\ncontent-length: ([0-9]+)", head, re.IGNORECASE)
                await reader.readexactly(0 if length is None else int(length[1]))
                self.requests.append(head)
                if not self.answer:
                    break
                writer.write(self.answer)
        writer.close()
        await writer.wait_closed()


def copy_shipped(folder: Path) -> None:
    """Copy the shipped folder, without what a run of it may have left there."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("run", "run.pid", "tls"))


def make_certificate(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Make a certificate with the script of the folder."""
    program("openssl")
    command = [str(folder / "make-certificate"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or names, done.stderr
    return done


def replacing(texts: Mapping[str, str]) -> Callable[[Path], None]:
    """Return an ``adapt`` that replaces these texts, each of which stands in directives once."""

    def adapt(folder: Path) -> None:
        for old, new in texts.items():
            replace(folder, old, new)

    return adapt


def replace(folder: Path, old: str, new: str, times: int = 1) -> None:
    """Replace a text that stands so often in the directives, not the comments, of all files."""
    pattern = re.compile(rf"^([^#\n]*){re.escape(old)}", re.MULTILINE)
    counts = {path: len(pattern.findall(path.read_text())) for path in folder.rglob("*.conf")}
    assert sum(counts.values()) == times, f"expected {old!r} {times} times, got {counts}"
    for path in (path for path, count in counts.items() if count):
        path.write_text(pattern.sub(lambda found: f"{found[1]}{new}", path.read_text()))


def _command(folder: Path, main_file: str) -> list[str]:
    return [program("nginx"), "-p", f"{folder}/", "-c", main_file]


@asynccontextmanager
async def recording() -> AsyncGenerator[tuple[Recorder, str]]:
    """Run a recorder; yield the recorder and its address."""
    recorder = Recorder()
    async with await asyncio.start_server(recorder.accept, "127.0.0.1", 0) as listening:
        yield recorder, f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(5 * SECOND):  # nginx has gone, and its connections with it
        await asyncio.gather(*recorder.connections)


async def ask(
    port: int, request: bytes, trust: ssl.SSLContext | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes, read until nginx closes; return status, headers and what follows them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    try:
        writer.write(request)
        async with asyncio.timeout(5 * SECOND):
            got = await reader.read()
    finally:
        writer.transport.abort()
    head, _, body = got.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in pairs}
    assert len(headers) == len(pairs), f"expected each header once, got {lines}"
    return int(first.split()[1]), headers, body


def line(text: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"{text} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    ).encode()


def fields(request: str) -> dict[str, str]:
    """Return the headers of a recorded request; a repeated header fails."""
    lines = request.rstrip().split("\r\n")[1:]
    named = [line.partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in named}
    assert len(headers) == len(named), f"expected each header once, got {lines}"
    return headers


ERRORS = {
    400: ("malformed", line("GET /%zz")),
    403: ("forbidden", line("POST /notify")),
    404: ("not_found", line("GET /elsewhere")),
    405: ("method_not_allowed", line("TRACE /events")),
    413: ("too_large", line("POST /notify", "Content-Length: 1048577") + b"x" * 1_048_577),
    # Without an end, and as long as nginx reads: it resets a connection that sends more meanwhile.
    414: ("too_large", f"GET /{'x' * 9000}".encode()[:8192]),
    431: ("headers_too_large", line("GET /", f"X: {'x' * 9000}")),
    501: ("unsupported", line("POST /", "Transfer-Encoding: gzip")),
    505: ("unsupported", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
}
"""For each status that nginx gives by itself: the code, and a request that gets it."""


def yes(*lines: str) -> bytes:
    """Return the answer of a backend that allows a stream, with these headers."""
    headers = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok".encode()
