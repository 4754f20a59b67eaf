"""Connections to Redis, without the retries and the hidden waits of the client library.

The one place that uses private names of redis-py. Does not know keys or commands.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple, cast

from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from sse_push.stream.contract import Command


class Announcement(NamedTuple):
    """An invalidation message: these keys have changed since they were read; None: any may have.

    https://redis.io/docs/latest/develop/reference/client-side-caching/
    """

    keys: list[bytes] | None


def connection_pool(url: str, *, connect_timeout_s: float, name: str) -> ConnectionPool:
    """Return a pool of RESP3 connections that never repeat anything by themselves.

    redis-py would repeat an XADD whose reply was lost, and so store it twice; and it would replace
    a lost connection by one without tracking, unnoticed. Its time limit for each command is off
    too: on Python 3.11 that limit can swallow a cancellation, and a canceled task would never end.
    Every use has a time limit of its own instead.
    """
    return ConnectionPool.from_url(
        url,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=connect_timeout_s,
        client_name=f"sse_push-{name}-{os.getpid()}",
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


async def start_tracking(connection: AbstractConnection) -> None:
    """Ask Redis to announce, on this connection, each key that it reads.

    https://redis.io/docs/latest/commands/client-tracking/
    """
    # until redis-py offers this publicly for a single connection: its parser's push handler is the
    # only way to an invalidation message. tests/integration/stream/test_connection.py fails when
    # it moves.
    parser = cast("_AsyncHiredisParser", connection._parser)  # noqa: SLF001
    parser.set_invalidation_push_handler(_to_announcement)
    await connection.send_command("CLIENT", "TRACKING", "ON")
    await connection.read_response()


async def read_server_id(connection: AbstractConnection) -> bytes:
    """Return the ID of this run of the server; another run may have lost the newest entries.

    https://redis.io/docs/latest/commands/info/
    """
    await connection.send_command("INFO", "server")
    info = cast("bytes", await connection.read_response())
    return next((line for line in info.splitlines() if line.startswith(b"run_id:")), b"")


async def _to_announcement(push: list[object]) -> Announcement:
    return Announcement(cast("list[bytes] | None", push[1]))


async def send_commands(connection: AbstractConnection, commands: Sequence[Command]) -> None:
    """Send commands in one pipeline, on this very connection or not at all.

    Raises:
        RedisError: the connection is lost; some of the commands may have been executed.
    """
    if not connection.is_connected:  # redis-py would connect anew, without tracking
        raise RedisConnectionError("the connection to Redis is lost")
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
    except AttributeError as exc:  # pragma: no cover (a race in redis-py that no test can force)
        # A reader has disconnected while this send waited.
        raise RedisConnectionError("the connection to Redis was lost while sending") from exc


async def read_reply(connection: AbstractConnection) -> object:
    """Return one reply, an error reply as a value.

    Raises:
        RedisError: the connection is lost.
    """
    try:
        return cast("object", await connection.read_response())
    except ResponseError as exc:
        return exc


async def read_reply_or_announcement(connection: AbstractConnection) -> object:
    """Wait for the next reply or announcement, and return it; an error reply as a value.

    Never call this within a time limit: a canceled read disconnects. The probe notices silence.

    Raises:
        RedisError: the connection is lost.
    """
    try:
        return cast("object", await connection.read_response(timeout=math.inf, push_request=True))
    except ResponseError as exc:
        return exc
