"""``sse-push doctor`` against servers that send anything, or nothing."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sse_push.cli import main
from sse_push.doctor import Address, Examination, Fault, Result, Target
from sse_push.doctor.asking import Stage, exchange
from sse_push.errors import ConfigError
from tests.harness.nginx import copy_shipped, make_certificate
from tests.harness.programs import run
from tests.harness.waiting import SECOND, free_port

TIMEOUT_S = 0.3 * SECOND
"""How long a server that stays silent is waited for."""
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-store, no-transform\r\n"
)
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
READY = b'event: ready\ndata: {"heartbeat_s":"\xff","connection_id":7,"merchant_id":[]}\n\n'

ANSWERS: dict[str, tuple[bytes, set[Fault]]] = {
    "nothing": (b"", {Fault.NO_ANSWER}),
    "garbage": (b"\x00\xff\x1b[31m" * 99, {Fault.NO_ANSWER}),
    "half a head": (b"HTTP/1.1 200 OK\r\nA: b\r\n", {Fault.NO_ANSWER}),
    "an endless head": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, {Fault.NO_ANSWER}),
    "an upgrade": (
        b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        {Fault.NO_ANSWER},
    ),
    "an endless line": (HEAD + b"\r\ndata: " + b"x" * 1_200_000, {Fault.NO_ANSWER}),
    "no chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {Fault.NO_ANSWER}),
    "half an answer": (HEAD + b"Content-Length: 99\r\n\r\n: x\n", {Fault.NO_ANSWER}),
    "a goodbye of an array": (HEAD + b"\r\nevent: goodbye\ndata: [[\n\n", {Fault.NOT_SERVED}),
    "a strange redirect": (
        b"HTTP/1.1 302 \xff\r\nLocation: \xe2\x80\xae\r\nContent-Length: 0\r\n\r\n",
        {Fault.REDIRECT},
    ),
    "a page for all": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nDate: now\r\n"
        b"Content-Type: text/html\r\nContent-Length: 3\r\n\r\n<a>",
        {Fault.WRONG_ANSWER},
    ),
    "one stream for all, which ends": (HEAD + b"\r\n" + READY, {Fault.CACHE}),
}


@asynccontextmanager
async def answering(
    answer: bytes | None, trust: ssl.SSLContext | None = None
) -> AsyncGenerator[int]:
    """Run a server that gives this answer to anything, and closes; None: that stays silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if answer is None:
                await reader.read()  # until the client has had enough
            elif answer:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(answer or b"")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=trust) as server:
        yield server.sockets[0].getsockname()[1]


async def examine(url: str, **options: object) -> list[Result]:
    target = Target.of(url, **{"timeout_s": TIMEOUT_S, **options})
    async with asyncio.timeout(30 * SECOND):
        return await Examination(target, lambda _text: None).run()


def faults(results: list[Result]) -> set[Fault]:
    return {each.fault for each in results if each.fault is not None}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_of_any_kind_is_a_fault_and_no_traceback(name: str) -> None:
    answer, expected = ANSWERS[name]
    async with answering(answer) as port:
        results = await examine(f"http://127.0.0.1:{port}", wait_s=0.0, timeout_s=5.0 * SECOND)

    assert faults(results) == expected, [each.finding.text for each in results]


async def test_a_stream_that_is_held_back_is_told_from_a_server_that_is_silent() -> None:
    """As by a proxy that buffers: the answers without a body arrive."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HEAD"):
            writer.write(HEAD + b"\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        results = await examine(f"http://127.0.0.1:{port}", timeout_s=0.5 * SECOND)

    assert faults(results) == {Fault.BUFFERING}


async def test_streams_that_have_no_id_are_not_asked_to_go_on() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        ready = b'event: ready\ndata: {"connection_id":"%d"}\n\n' % id(writer)
        writer.write(HEAD + b"\r\n" + ready if b" /events" in head else NOT_FOUND)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        results = await examine(f"http://127.0.0.1:{port}", wait_s=0.1, timeout_s=5.0 * SECOND)

    assert faults(results) == set()
    assert "resumption" not in [each.check for each in results]


async def test_a_server_that_stays_silent_is_waited_for_within_the_limit() -> None:
    async with answering(None) as port:
        results = await examine(f"http://127.0.0.1:{port}")

    assert faults(results) == {Fault.NO_ANSWER}
    assert results[-1].got == "no answer"


async def test_a_port_that_is_closed_and_a_name_that_is_none_are_unreachable() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid"):
        assert faults(await examine(url)) == {Fault.UNREACHABLE}, url


async def test_a_head_of_any_length_is_not_read() -> None:
    async with answering(ANSWERS["an endless head"][0]) as port:
        address = Address.parse(f"http://127.0.0.1:{port}")
        async with exchange(address, "/events", {}) as asked:
            await asked.wait(lambda answer: answer.has_ended, 5 * SECOND)

    assert asked.answer.trouble == "expected at most 65536 bytes, got more"


async def test_a_body_of_any_length_is_not_read() -> None:
    async with answering(HEAD + b"\r\n" + b": x\n" * 400_000) as port:
        address = Address.parse(f"http://127.0.0.1:{port}")
        async with exchange(address, "/events", {}) as asked:
            await asked.wait(lambda answer: answer.has_ended, 5 * SECOND)

    assert asked.answer.stage is Stage.FAILED
    assert asked.answer.trouble == "expected at most 1048576 bytes, got more"
    assert len(asked.answer.body) < 1_200_000


async def test_an_answer_to_head_ends_with_its_head() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 99\r\n\r\n")
        await reader.read()  # until the client has gone
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = Address.parse(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with exchange(address, "/events", {}, method="HEAD") as asked:
            has_ended = await asked.wait(lambda answer: answer.has_ended, 5 * SECOND)

    assert has_ended


async def test_a_connection_that_is_refused_later_is_no_answer() -> None:
    address = Address.parse(f"http://127.0.0.1:{free_port()}")

    async with exchange(address, "/events", {}) as asked:
        await asked.wait(lambda answer: answer.has_ended, TIMEOUT_S)

    assert asked.answer.stage is Stage.FAILED
    assert str(asked.answer).startswith("no connection: ")


async def test_a_server_without_tls_and_one_that_does_not_answer_are_unreachable() -> None:
    async with answering(b"HTTP/1.1 400 no\r\n\r\n") as plain, answering(None) as silent:
        found = [await examine(f"https://127.0.0.1:{port}") for port in (plain, silent)]

    assert [faults(each) for each in found] == [{Fault.UNREACHABLE}] * 2


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", "100 at once"),
        (b"\0\0\7\4\0\0\0\0\0\0\1\0\0\0\x64\0", "without a limit"),
        (b"\0\0\6\7\0\0\0\0\0\0\3\0\0\0\x64", "without a limit"),
        (b"\0\0\6\4", "without a limit"),
    ],
)
async def test_the_first_frame_of_http_2_may_be_anything(
    tmp_path: Path, settings: bytes, text: str
) -> None:
    copy_shipped(tmp_path / "nginx")
    make_certificate(tmp_path / "nginx")
    files = tmp_path / "nginx/tls"
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(files / "certificate.pem", files / "key.pem")
    trust.set_alpn_protocols(["h2"])

    async with answering(settings, trust) as port:
        results = await examine(
            f"https://localhost:{port}",
            ca_file=files / "certificate.pem",
            timeout_s=5.0 * SECOND,
        )

    (streams,) = [each for each in results if each.check == "streams"]
    assert streams.got.endswith(text)


# -- the command


def test_a_fault_is_an_exit_status_and_a_line_that_no_terminal_obeys() -> None:
    port = free_port()

    done = run("doctor", f"http://127.0.0.1:{port}", "--quick")

    first, *lines, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert first == last
    assert first.startswith("FAILED: unreachable on the way from a browser to http://127.0.0.1")
    assert lines[0].startswith(f"failure  address: connect to 127.0.0.1:{port}; got ")
    assert done.stderr.endswith(f"asking http://127.0.0.1:{port} …\n")


def test_a_script_reads_one_object() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    done = CliRunner().invoke(main, ["doctor", url, "--json"], standalone_mode=False)

    assert done.return_value == 1
    told = json.loads(done.stdout)
    assert (told["ok"], [each["name"] for each in told["findings"]]) == (False, ["unreachable"])


@pytest.mark.parametrize(("key", "is_used"), [({}, False), ({"SSE_PUSH_NOTIFY_KEY": "k"}, True)])
def test_an_address_for_backends_in_a_variable_is_used_with_a_key_only(
    key: dict[str, str], *, is_used: bool
) -> None:
    environ = {"SSE_PUSH_URL": "no-url", **key}

    done = CliRunner().invoke(
        main, ["doctor", f"http://127.0.0.1:{free_port()}"], env=environ, standalone_mode=False
    )

    assert ("expected a URL" in str(done.exception)) is is_used


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["push.example"], "expected a URL"),
        (["http://x", "--notify-url", "x"], "expected a URL"),
        (["http://x", "--cookie", "push"], "expected NAME=VALUE"),
        (["http://x", "--cookie", "a=b\r\nX: y"], "expected NAME=VALUE"),
        (["http://x", "--token", "secret\n"], "expected printable ASCII"),
        (["http://x", "--key", "sécret"], "expected printable ASCII"),
        (["http://x", "--origin", "\x1b"], "expected printable ASCII"),
        (["https://x", "--ca-file", "/nowhere"], "expected certificates in PEM"),
    ],
)
def test_a_wrong_argument_is_named_without_its_secret(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(main, ["doctor", *arguments], standalone_mode=False)

    assert isinstance(done.exception, ConfigError | click.BadParameter)
    assert text in str(done.exception)
    assert "secret" not in str(done.exception)
