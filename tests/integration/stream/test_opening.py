"""How connections begin, and end, at a real Redis: TCP, TLS, Unix sockets; users and databases."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from sse_push.stream.address import Address
from sse_push.stream.connection import Connection
from sse_push.stream.failures import RedisConnectionError, RedisError
from sse_push.stream.opening import Unsuited, connect, dial, open_connection
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.sentinel import parse_address
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, accepts, free_port, program, wait_for
from tests.integration.stream.servers import Server, follow, led

LIMIT_BYTES = 300_000
MAKE_CERTIFICATE = [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-subj",
    "/CN=test",
    "-addext",
    "subjectAltName=IP:127.0.0.1",
]
SLACK_BYTES = 2 * 65_536
"""A piece that arrived with the reply before, and the last piece."""


async def reached(address: str) -> dict[str, str]:
    """Return what this connection is, as Redis sees it."""
    async with asyncio.timeout(5 * SECOND):
        opened = await open_connection(Address.parse(address), "test", tracks=True)
        with closing(opened) as connection:
            await connection.send([("CLIENT", "INFO")])
            info = cast("bytes", await connection.read()).decode()
    return dict(word.split("=", 1) for word in info.split())


async def test_replies_up_to_the_limit_are_read_and_no_more_of_a_larger_one(
    server: Server, merchant: str
) -> None:
    server.cli("EVAL", "redis.call('SET', KEYS[1], string.rep('x', 1000000))", "1", merchant)
    opening = open_connection(Address.parse(server.url), "test", LIMIT_BYTES, tracks=False)
    with closing(await opening) as connection:
        small = ("GETRANGE", merchant, 0, LIMIT_BYTES - 20)
        await connection.send([small, small, ("PING",), ("GET", merchant)])
        replies = [await connection.read() for _ in range(3)]
        before = connection.received_bytes
        with pytest.raises(ReplyTooLarge, match="expected a reply of at most 300000 bytes"):
            await connection.read()
        received = connection.received_bytes - before
        partial = connection.partial_bytes

    assert [len(str(reply, "ascii")) for reply in replies if isinstance(reply, bytes)] == [
        LIMIT_BYTES - 19,
        LIMIT_BYTES - 19,
        4,
    ]
    assert LIMIT_BYTES - SLACK_BYTES < received <= LIMIT_BYTES + SLACK_BYTES
    assert received == partial


async def test_a_connection_that_the_server_closes_is_lost(server: Server) -> None:
    opened = await open_connection(Address.parse(server.url), "test", tracks=False)
    with closing(opened) as connection:
        server.cli("CLIENT", "KILL", "ID", *server.clients("test"))
        async with asyncio.timeout(5 * SECOND):
            with pytest.raises(RedisConnectionError, match="closed by server"):
                await connection.read()


async def test_a_connection_has_its_name_its_database_resp3_and_tracking(server: Server) -> None:
    url = server.url.removesuffix("/0") + ("?db=3" if server.url.startswith("unix") else "/3")
    info = await reached(url)

    assert info["name"] == f"sse_push-test-{os.getpid()}"
    assert (info["db"], info["resp"]) == ("3", "3")
    assert "t" in info["flags"]


@pytest.mark.parametrize("user", ["", "default", "alice"])
async def test_a_password_lets_its_user_in(mortal: Redis, user: str) -> None:
    mortal.cli("ACL", "SETUSER", "alice", "on", ">p@ss:/word", "~*", "+@all")
    mortal.cli("CONFIG", "SET", "requirepass", "p@ss:/word")
    try:
        info = await reached(f"redis://{user}:p%40ss%3A%2Fword@127.0.0.1:{mortal.port}")
        assert info["user"] == (user or "default")
        for wrong in ("", "wrong", f"{user}:wrong"):
            with pytest.raises(Unsuited, match=r"^(WRONGPASS|NOAUTH) "):
                await reached(f"redis://{wrong}@127.0.0.1:{mortal.port}")
    finally:
        mortal.kill()


async def test_a_right_that_is_missing_is_named(mortal: Redis) -> None:
    mortal.cli("ACL", "SETUSER", "default", "-client|tracking")

    with pytest.raises(Unsuited, match=r"^NOPERM .*tracking"):
        await reached(mortal.url)


async def test_a_database_that_does_not_exist_is_named(server: Server) -> None:
    url = server.url.removesuffix("/0") + ("?db=99" if server.url.startswith("unix") else "/99")

    with pytest.raises(Unsuited, match="DB index is out of range"):
        await reached(url)


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Redis, int, Path]]:
    """A Redis with a port for TLS, that port, and the folder with its certificate."""
    folder = tmp_path_factory.mktemp("tls_redis")
    port, key, certificate = free_port(), str(folder / "key.pem"), str(folder / "certificate.pem")
    command = [program("openssl"), *MAKE_CERTIFICATE, "-keyout", key, "-out", certificate]
    subprocess.run(command, capture_output=True, check=True)
    started = Redis.start(
        folder,
        *("--tls-port", str(port), "--tls-auth-clients", "optional"),
        *("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate),
    )
    yield started, port, folder
    started.stop()


@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca_certs={files}/certificate.pem",
        "ssl_ca_certs={files}/certificate.pem&ssl_certfile={files}/certificate.pem"
        "&ssl_keyfile={files}/key.pem",
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=none&ssl_check_hostname=true",
        "ssl_cert_reqs=optional&ssl_ca_certs={files}/certificate.pem&ssl_check_hostname=false",
    ],
)
async def test_tls_has_the_options_of_the_url(
    tls_redis: tuple[Redis, int, Path], options: str
) -> None:
    _, port, files = tls_redis

    info = await reached(f"rediss://127.0.0.1:{port}/0?{options.format(files=files)}")

    assert info["resp"] == "3"


async def test_a_certificate_that_is_not_trusted_is_named(
    tls_redis: tuple[Redis, int, Path],
) -> None:
    _, port, _ = tls_redis

    with pytest.raises(RedisConnectionError, match="certificate verify failed"):
        await reached(f"rediss://127.0.0.1:{port}")
    with pytest.raises(RedisError):  # TLS is expected there
        await reached(f"redis://127.0.0.1:{port}")


async def test_sentinels_are_asked_by_tls_and_the_primary_is_reached_by_tls(
    tls_redis: tuple[Redis, int, Path],
) -> None:
    _, port, files = tls_redis
    sentinel_port = free_port()
    conf = files / "sentinel.conf"
    conf.write_text(
        f"port 0\ntls-port {sentinel_port}\ntls-auth-clients optional\ndir {files}\n"
        f"tls-cert-file {files}/certificate.pem\ntls-key-file {files}/key.pem\n"
        f"tls-ca-cert-file {files}/certificate.pem\nsentinel monitor shop 127.0.0.1 {port} 1\n"
    )
    command = [program("redis-server"), str(conf), "--sentinel"]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/shop"
    try:
        wait_for(partial(accepts, ("127.0.0.1", sentinel_port)), "the Sentinel to listen")
        trusted = parse_address(f"{url}?ssl_ca_certs={files}/certificate.pem")
        with closing(await open_connection(trusted, "test", tracks=False)) as connection:
            assert connection.server_id
        with pytest.raises(RedisConnectionError, match=r"names the .*certificate verify failed"):
            await connect(parse_address(url))
    finally:
        sentinel.kill()
        sentinel.wait()


async def test_a_name_that_the_certificate_does_not_have_is_no_name_of_the_server(
    tls_redis: tuple[Redis, int, Path],
) -> None:
    _, port, files = tls_redis
    url = f"rediss://localhost:{port}/0?ssl_ca_certs={files}/certificate.pem"

    with pytest.raises(RedisConnectionError, match=r"is not valid for .localhost."):
        await Address.parse(url).reach(lambda: Connection(1), within_s=5 * SECOND)


async def test_keepalive_is_on_for_tcp(server: Server) -> None:
    with closing(await connect(Address.parse(server.url))) as connection:
        transport = connection._transport
        assert transport is not None
        found = transport.get_extra_info("socket")
        is_on = found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if server.url.startswith("redis"):
            idle_s = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert (is_on, idle_s) == (1, 30)


async def test_an_address_without_a_server_has_no_run(tmp_path: Path) -> None:
    port = free_port()
    text = rf"^Error 111 connecting to 127\.0\.0\.1:{port}\. Connection refused\.$"
    with pytest.raises(OSError, match=text):
        await dial(Address.parse(f"redis://127.0.0.1:{port}/0"))
    with pytest.raises(OSError, match=r"^Error 2 connecting to /.*/none\. No such file"):
        await dial(Address.parse(f"unix://{tmp_path}/none"))


async def test_a_name_without_an_address_is_named() -> None:
    with pytest.raises(OSError, match=r"^Error -\d+ connecting to name\.invalid:6379\. \w+"):
        await dial(Address.parse("redis://name.invalid"))


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    mortal: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.opening.CONNECT_LIMIT_S", 0.2 * SECOND)
    with frozen(mortal.process.pid), pytest.raises(TimeoutError):
        await open_connection(Address.parse(mortal.url), "test", tracks=True)


async def test_the_url_may_allow_less_time_to_connect(
    tls_redis: tuple[Redis, int, Path],
) -> None:
    """The server accepts, and stops before the handshake of TLS."""
    redis, port, _ = tls_redis
    address = Address.parse(f"rediss://127.0.0.1:{port}?socket_connect_timeout=1")
    assert address.connect_timeout_s == 1

    with (
        frozen(redis.process.pid),
        pytest.raises(RedisConnectionError, match=r"^expected a connection to .* within 1 s"),
    ):
        await address.reach(lambda: Connection(1), within_s=60 * SECOND)


async def test_a_greeting_that_is_none_is_an_error_as_any_other(own_redis: Server) -> None:
    async with led(own_redis.url) as proxy:
        for hostile, error in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", RedisError),
            (b"-ERR max number of clients reached\r\n", Unsuited),
            (b"-ERR unknown command 'HELLO'\r\n", Unsuited),
            (b"-NOAUTH Authentication required.\r\n", Unsuited),
            (b"+OK\r\n", Unsuited),
        ):
            proxy.change = lambda _data, hostile=hostile: hostile  # type: ignore[misc]  # a default
            with pytest.raises(error):
                await reached(proxy.url)


async def test_a_run_is_another_one_after_a_time_as_a_replica_and_the_same_with_one(
    mortal: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Redis.start(tmp_path_factory.mktemp("other"))
    address = Address.parse(mortal.url)
    try:
        alone = await dial(address)
        follow(other, mortal)
        with_replica = await dial(address)
        other.cli("REPLICAOF", "NO", "ONE")
        follow(mortal, other)
        mortal.cli("REPLICAOF", "NO", "ONE")
        back = await dial(address)
        again = await dial(address)
    finally:
        other.stop()

    assert alone.startswith(b"run_id:")
    assert with_replica == alone
    assert back.startswith(alone)
    assert back == again != alone
