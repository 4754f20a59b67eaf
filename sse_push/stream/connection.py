"""Connections to Redis, without the retries and the hidden waits of the client library.

The one place that uses private names of redis-py. Does not know keys or commands.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, cast

from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from sse_push.stream.contract import Command
from sse_push.stream.parser import BoundedParser
from sse_push.stream.replies import ERROR_REPLIES, ErrorReply

CONNECT_LIMIT_S = 10.0
"""How long connecting may take: some round trips, each of them of a second or two."""

REPLY_LIMIT_BYTES = 1_048_576
"""How large a reply may be that holds no entries: Redis tells about itself, or an ID."""

TRACKING: Command = ("CLIENT", "TRACKING", "ON")
"""Asks Redis to announce, on this connection, each key that it reads."""

_CONTINUED = b"master_replid2:"
_CONTINUES_NONE = _CONTINUED + b"0" * 40

_CLUSTER_MODES = (b"redis_mode:cluster", b"server_mode:cluster")


class Unsuited(RedisError):
    """A server can't serve us: a right is missing, or it is a node of a cluster."""


class Announcement(NamedTuple):
    """An invalidation message: these keys have changed since they were read; None: any may have.

    https://redis.io/docs/latest/develop/reference/client-side-caching/
    """

    keys: list[bytes] | None


def connection_pool(
    url: str, *, reply_limit_bytes: int = REPLY_LIMIT_BYTES, protocol: Literal[2, 3] = 3
) -> ConnectionPool:
    """Return a pool of connections (RESP3) that never repeat anything by themselves.

    A reply above the limit is not read to its end: ``parser.ReplyTooLarge``.

    redis-py would repeat an XADD whose reply was lost, and so store it twice; and it would replace
    a lost connection by one without tracking, unnoticed. Its time limit for each command is off
    too: on Python 3.11 that limit can swallow a cancellation, and a canceled task would never end.
    Every use has a time limit of its own instead.
    """
    return ConnectionPool.from_url(
        url,
        parser_class=partial(BoundedParser, limit_bytes=reply_limit_bytes),
        protocol=protocol,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=CONNECT_LIMIT_S,
        client_name=None,
        driver_info=None,  # each would be a round trip of its own
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


async def open_connection(connection: AbstractConnection, name: str, *, tracks: bool) -> bytes:
    """Connect, and return the ID of this run of the server; none if it has no name.

    Another run may have lost the newest entries, and so may a replica that was promoted: that is
    another run here. With ``tracks`` Redis announces, on this connection, each key that it reads.
    All that is asked for goes out in one round trip.

    Raises:
        Unsuited: the server refuses, or can't serve us.
        RedisError, OSError: the connection can't be made within ``CONNECT_LIMIT_S``.

    https://redis.io/docs/latest/commands/client-tracking/
    https://redis.io/docs/latest/commands/info/
    """
    commands: list[Command] = [
        ("CLIENT", "SETNAME", f"sse_push-{name}-{os.getpid()}"),
        ("INFO", "server"),
        ("INFO", "replication"),
    ]
    async with asyncio.timeout(CONNECT_LIMIT_S):
        await connection.connect()
        if tracks:
            commands.append(TRACKING)
            track(connection)
        await send_commands(connection, commands)
        replies = [await read_reply(connection) for _ in commands]
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise Unsuited(str(reply))
    lines = [line for reply in replies[1:3] for line in cast("bytes", reply).splitlines()]
    if any(line in _CLUSTER_MODES for line in lines):
        raise Unsuited("expected a single server, got a node of a cluster")
    return _run_id(lines)


def _run_id(lines: Sequence[bytes]) -> bytes:
    """Return the ID of the server's run, and of the history that it went on with, if any.

    A primary that was a replica for a while, between two failovers, has thrown away what it alone
    had. Its run is still the same, but it goes on with a history that was another server's.
    """
    run_id = next((line for line in lines if line.startswith(b"run_id:")), b"")
    continued = next((line for line in lines if line.startswith(_CONTINUED)), _CONTINUES_NONE)
    return run_id if not run_id or continued == _CONTINUES_NONE else run_id + b" " + continued


async def dial(pool: ConnectionPool) -> bytes:
    """Return the ID of the run of the server that the address leads to now.

    Raises:
        OSError: there is none that lets us in.
    """
    connection = pool.make_connection()
    try:
        return await open_connection(connection, "probe", tracks=False)
    except RedisError as exc:
        raise OSError(str(exc)) from exc
    finally:
        await connection.disconnect(nowait=True)


def track(connection: AbstractConnection) -> None:
    """Have announcements returned as ``Announcement``; Redis makes them after ``TRACKING``."""
    parser = cast("_AsyncHiredisParser", _parser_of(connection))
    parser.set_invalidation_push_handler(_to_announcement)


def bytes_received(connection: AbstractConnection) -> int:
    """Return how much has arrived on a connection since it was made."""
    return _parser_of(connection).received_bytes


def partial_reply_bytes(connection: AbstractConnection) -> int:
    """Return how much has arrived of the reply that is waited for."""
    return _parser_of(connection).partial_bytes


def _parser_of(connection: AbstractConnection) -> BoundedParser:
    # until redis-py offers this publicly for a single connection: its parser's push handler is the
    # only way to an invalidation message. tests/integration/stream/test_connection.py fails when
    # it moves.
    return cast("BoundedParser", connection._parser)  # noqa: SLF001


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
    """Return one reply, an error reply as an ``ErrorReply``.

    Raises:
        RedisError: the connection is lost.
    """
    _parser_of(connection).partial_bytes = 0
    try:
        return cast("object", await connection.read_response(disconnect_on_error=False))
    except ERROR_REPLIES as exc:
        return ErrorReply(exc)


async def read_reply_or_announcement(connection: AbstractConnection) -> object:
    """Wait for the next reply or announcement; an error reply is returned as an ``ErrorReply``.

    Never call this within a time limit: a canceled read may have taken a part of a reply. The probe
    notices silence.

    Raises:
        RedisError: the connection is lost.
    """
    connection._parser.partial_bytes = 0  # type: ignore[attr-defined]  # noqa: SLF001 (_parser_of)
    try:
        reply = await connection.read_response(
            timeout=math.inf, push_request=True, disconnect_on_error=False
        )
        return cast("object", reply)
    except ERROR_REPLIES as exc:
        return ErrorReply(exc)
