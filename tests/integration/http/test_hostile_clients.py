"""Hostile clients: slow ones, ones that hold connections, ones that forge log lines."""

from __future__ import annotations

import contextlib
import json
import random
import re
import resource
import socket
import struct
import time
from pathlib import Path
from urllib.parse import quote_from_bytes

import httpx2
import pytest

from tests.harness.nginx import Nginx, replacing
from tests.harness.processes import cpu_s, open_fds
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, until
from tests.harness.wire import ANSWER_S, Wire
from tests.integration.http.requests import (
    BODY,
    FORM,
    LENGTH,
    commands,
    listen,
    post,
    request_of,
)

# -- those who are slow, and those who hold connections


@pytest.mark.nginx
async def test_a_client_that_trickles_at_nginx_delays_nobody_and_reaches_no_service(
    watched: Redis, target: Service, merchant: str, tmp_path: Path
) -> None:
    """A whole header has 500 ms, a body 500 ms between two pieces: the shipped 10 s by 20."""
    shorter = {
        f"client_{part}_timeout 10s": f"client_{part}_timeout 500ms" for part in ("header", "body")
    }
    upstream = f"127.0.0.1:{target.port}"
    head = request_of("POST /notify HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", LENGTH)
    with (
        Nginx.start(tmp_path / "nginx", upstream, replacing(shorter)) as nginx,
        commands(watched) as sent,
        contextlib.ExitStack() as stack,
    ):
        before = open_fds(target.worker)
        in_header = [stack.enter_context(Wire(nginx.internal_port)) for _ in range(50)]
        in_body = [stack.enter_context(Wire(nginx.internal_port, head)) for _ in range(50)]
        stopped = [stack.enter_context(Wire(nginx.internal_port, head)) for _ in range(50)]
        began_at = time.monotonic()
        position, gone = 0, 0
        while gone < len(in_header):
            assert time.monotonic() - began_at < 5 * SECOND, "headers that take so long are ended"
            for wire in in_header:
                with contextlib.suppress(ConnectionError):
                    wire.send(head[position : position + 1])
            for wire in in_body:
                wire.send(BODY[position : position + 1])
            position += 1
            await until_next_byte()
            gone = sum(has_gone(wire) for wire in in_header)
            assert open_fds(target.worker) <= before + 1, "nginx asks when it has all"
        assert position < len(BODY) < len(head)
        assert all(not has_gone(wire) for wire in in_body)
        assert all(wire.answer() is None for wire in stopped)

        async with open_stream(nginx.url, merchant) as stream:
            await stream.next("refresh")
        for wire in in_body:
            wire.send(BODY[position:])
        answers = [wire.answer() for wire in in_body]

    assert [answer.status for answer in answers if answer is not None] == [200] * 50
    assert sum('"XADD"' in command for command in sent) == 50


async def until_next_byte() -> None:
    """Wait a little: the slowness of the client is under test."""
    await until(iter([False] * 10 + [True]).__next__, "the next byte")


def has_gone(wire: Wire) -> bool:
    """Return whether the other end has closed, without waiting for it."""
    wire.socket.settimeout(0)
    try:
        return wire.socket.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        wire.socket.settimeout(ANSWER_S)


async def test_half_open_connections_up_to_the_file_limit_harm_no_open_connection(
    redis: Redis, merchant: str, tmp_path: Path
) -> None:
    service = Service.start(tmp_path, redis.url, drain_s=SECOND, probe_interval_s=0.2)
    pid = service.worker
    publisher = Publisher(service.url)
    half = [*listen(f"merchant_id={merchant}").split(b"\r\n\r\n"), b"GET", b"\x16\x03", b""]
    try:
        async with open_stream(service.url, merchant) as stream:
            await stream.next("refresh")
            await publisher.notify(merchant)  # over a connection that stays
            await stream.next("refresh", 2)
            limit, before = open_fds(pid) + 50, open_fds(pid)
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
            with contextlib.ExitStack() as stack:
                for number in range(100):
                    wire = stack.enter_context(Wire(service.port))
                    with contextlib.suppress(ConnectionError):
                        wire.send(half[number % len(half)])
                await until(lambda: open_fds(pid) >= limit - 1, "every file to be taken")

                before_s, began_at = cpu_s(pid), time.monotonic()
                for count in range(3, 23):
                    entry_id = await publisher.notify(merchant)
                    assert (await stream.next("refresh", count)).id == entry_id
                share = (cpu_s(pid) - before_s) / (time.monotonic() - began_at)
            await until(lambda: open_fds(pid) <= before + 1, "files to be free again")
            assert (await publisher.client.get("/readyz")).status_code == 200
            async with open_stream(service.url, merchant) as another:
                await another.next("refresh")
    finally:
        await publisher.close()
        assert service.stop() == 0, service.log
    service.assert_no_errors()
    assert share < 0.9, "it does not turn in circles for want of a file"


# -- logs


LINE = re.compile(
    r"time=[0-9T:.-]+Z level=(debug|info|warning) logger=[a-z_.]+ message=[\x20-\x7e]+"
)
FORGED = b"time=2026-01-01T00:00:00.000Z level=error logger=sse_push message=forged"


def test_no_input_writes_a_line_of_a_log(watched: Redis, target: Service, merchant: str) -> None:
    evil = [b"\n" + FORGED, b"\r\n" + FORGED, b"\x1b[2J\x1b[31m" + FORGED, b"\0" + FORGED]
    evil += ["\u2028".encode() + FORGED, "\u202e".encode() + FORGED, b"\x85" + FORGED]
    evil += [
        "\x85".encode() + FORGED,
        b'" level=error message="' + FORGED,
        b"%(message)s%s" + FORGED,
    ]
    for raw in evil:
        quoted = quote_from_bytes(raw)
        body = json.dumps(
            {"merchant_id": raw.decode("latin-1"), "topic": raw.decode("latin-1")}
        ).encode()
        for request in (
            listen(f"merchant_id={quoted}"),
            listen(f"merchant_id={merchant}&last_event_id={quoted}&token={quoted}"),
            listen(f"merchant_id={merchant}&{quoted}={quoted}"),
            listen(f"merchant_id={merchant}", b"User-Agent: a" + raw),
            listen(f"merchant_id={merchant}", b"Last-Event-ID: a" + raw),
            listen(f"merchant_id={merchant}", b"Origin: https://a" + raw),
            listen(f"merchant_id={merchant}", b"X-Forwarded-For: a" + raw),
            listen(f"merchant_id={merchant}", b"Upgrade: a" + raw, b"Connection: upgrade"),
            request_of(f"GET /{quoted} HTTP/1.1", "Host: test"),
            request_of(f"GET /events?{quoted} HTTP/1.1", b"Host: a" + raw),
            request_of(b"GET /" + raw + b" HTTP/1.1", "Host: test"),
            post(body),
            post(b'{"merchant_id":"%b","topic":"%b"}' % (raw, raw)),
            post(b"merchant_id=" + quoted.encode() + b"&topic=" + quoted.encode(), FORM),
            post(BODY, "text/" + quoted),
        ):
            with Wire(target.port, request) as wire:
                answer = wire.answer()
                assert answer is not None
                assert answer.status in {200, 400, 403, 404, 415}, request
        watched.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", quoted, "by", quoted)

    lines = target.log.split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert FORGED.decode()[-20:] not in target.log


HEALTHZ = request_of("GET /healthz HTTP/1.1", "Host: test")
HUGE = request_of("GET /openapi.json HTTP/1.1", "Host: test")
WISH = request_of("GET /healthz HTTP/1.1", "Host: test", "Connection: upgrade", "Upgrade: h2c")
FLOODS = [
    HEALTHZ * 40,
    HUGE * 40,
    HEALTHZ * 3 + listen("merchant_id=42"),
    listen("merchant_id=42") + HEALTHZ,
    post(BODY) * 3 + HEALTHZ,
    post(BODY)[:-5],
    request_of("POST /notify HTTP/1.1", "Host: test", "Transfer-Encoding: chunked") + b"zz\r\n",
    WISH * 3,
    HEALTHZ + b"\x16\x03\x01\0\r\n\r\n",
    HEALTHZ + b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 9000 + b"\r\n",
    request_of("GET /events?merchant_id=42 HTTP/1.0"),
    request_of("GET /%ff HTTP/1.1", b"Host: \xff", b"Origin: \xff", b"Cookie: \xff=\xff"),
]


async def test_clients_that_ask_and_reset_cause_no_warning_but_that_they_are_refused(
    target: Service, publisher_of_target: httpx2.Client, merchant: str
) -> None:
    """At random: cut short, in two pieces, unread, reset. Pipelining caused a traceback each."""
    chance = random.Random(7)
    before, logged = open_fds(target.worker), len(target.log)
    for _ in range(300):
        flood = chance.choice(FLOODS)
        if chance.random() < 0.2:
            flood = flood[: chance.randrange(len(flood))]
        cut = chance.randrange(len(flood) + 1)
        with Wire(target.port) as wire, contextlib.suppress(ConnectionError):
            wire.send(flood[:cut])
            if chance.random() < 0.5:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            wire.send(flood[cut:])
            if chance.random() < 0.3:
                has_gone(wire)
    await until(lambda: open_fds(target.worker) <= before, "all files again")
    # Behind it, what was on its way to Redis has arrived: the next test counts what arrives.
    assert publisher_of_target.post("/notify", json={"merchant_id": merchant}).status_code == 200

    warned = re.findall(r".*\blevel=(?:warning|error|critical)\b.*", target.log[logged:])
    assert [line for line in warned if " message=refused " not in line] == []


RESET = struct.pack("ii", 1, 0)
"""A close that resets: https://man7.org/linux/man-pages/man7/socket.7.html"""
