"""Requests written byte by byte, and the commands that Redis was sent meanwhile."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.waiting import SECOND, program
from tests.harness.wire import Answer, Wire

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MALFORMED = (400, "malformed")
NOT_HTTP = MALFORMED
"""The answer of the protocol, which then closes the connection; the application is not asked."""
TOO_LARGE = (413, "too_large")


BODY = b'{"merchant_id":"smuggled"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = f"Content-Length: {len(BODY)}"


def request_of(*lines: str | bytes, body: bytes = b"") -> bytes:
    """Return a request of these lines, each unchanged, and this body."""
    raw = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([*raw, b"", body])


def post(body: bytes, media_type: str = JSON, path: str = "/notify") -> bytes:
    return request_of(
        f"POST {path} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {KEY}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        body=body,
    )


def listen(query: str, *headers: str | bytes, method: str = "GET") -> bytes:
    return request_of(f"{method} /events?{query} HTTP/1.1", "Host: test", *headers)


def asked(target: Service, request: bytes) -> Answer:
    with Wire(target.port, request) as wire:
        answer = wire.answer()
    assert answer is not None, "an answer"
    return answer


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


_OF_NO_REQUEST = (
    '"HELLO"',
    '"CLIENT"',
    '"INFO"',
    '"TIME"',
    '"EVAL"',
    '"XRANGE" "sse_push:revocations"',
)
"""What the probe asks for on the connections that it makes, the sweep's read, and the script."""


@contextmanager
def commands(redis: Redis) -> Iterator[list[str]]:
    """Collect the commands that Redis is sent in this context, except those of no request.

    These are the probe, the read of all revocations once in 30 s, and what gives a merchant without
    a stream a planted entry: a script, and what the script does.
    """
    with socket.create_connection(("127.0.0.1", redis.port), timeout=5 * SECOND) as sock:
        monitor = sock.makefile("rb")
        sock.sendall(b"MONITOR\r\n")
        assert monitor.readline() == b"+OK\r\n"
        sent: list[str] = []
        yield sent
        mark = f"end of {threading.get_native_id()}-{time.monotonic_ns()}"
        subprocess.run(
            [program("redis-cli", "valkey-cli"), "-p", str(redis.port), "ECHO", mark],
            check=True,
            capture_output=True,
        )
        while mark not in (line := monitor.readline().decode()):
            sender, _, command = line.rstrip().partition("] ")
            if not (
                sender.endswith(" lua")
                or "sse_push:{~" in command
                or command.startswith(_OF_NO_REQUEST)
                or (command.startswith('"PUBLISH"') and " ~" in command)
            ):
                sent.append(command)
