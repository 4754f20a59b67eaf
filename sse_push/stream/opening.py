"""How a connection to Redis begins: as whom we come, which server is there, whether it announces.

Knows the commands that a connection begins with. Does not know what it is used for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Literal, TypeGuard, cast

from sse_push.stream.address import Address
from sse_push.stream.connection import Connection
from sse_push.stream.contract import Command
from sse_push.stream.failures import RedisError
from sse_push.stream.replies import WHOSE, ErrorReply

CONNECT_LIMIT_S = 10.0
"""How long connecting may take: some round trips, each of them of a second or two."""

PRIMARY_LIMIT_S = 3.0
"""The same for a server that Sentinels name: if it is frozen, they soon name another one."""

REPLY_LIMIT_BYTES = 1_048_576
"""How large a reply may be that holds no entries: Redis tells about itself, or an ID."""

TRACKING: Command = ("CLIENT", "TRACKING", "ON")
"""Asks Redis to announce, on this connection, each key that it reads."""

_CONTINUED = b"master_replid2:"
_CONTINUES_NONE = _CONTINUED + b"0" * 40

_ROLE_OF_REPLICA = b"role:slave"

_CLUSTER_MODES = (b"redis_mode:cluster", b"server_mode:cluster")


class Unsuited(RedisError):
    """A server can't serve us: a right is missing, or it is a node of a cluster."""


class TrackingRefused(Unsuited):
    """A server, or a user's rights, lack CLIENT TRACKING: asking again would not help."""


async def connect(
    address: Address,
    *further: Command,
    reply_limit_bytes: int = REPLY_LIMIT_BYTES,
    protocol: Literal[2, 3] = 3,
) -> Connection:
    """Connect as the user, and to the database, of the address.

    The ``further`` commands go out in the same round trip; their replies are the next ones.

    Raises:
        Unsuited: the server does not let us in.
        RedisError: the connection can't be made; call it within ``CONNECT_LIMIT_S``.

    https://redis.io/docs/latest/commands/hello/
    """
    connection = await address.reach(
        lambda: Connection(reply_limit_bytes), within_s=CONNECT_LIMIT_S
    )
    try:
        first = _greetings(address, protocol)
        await connection.send([*first, *further])
        _require_welcome([await connection.read() for _ in first], protocol)
    except BaseException:
        connection.close()
        raise
    return connection


async def open_connection(
    address: Address, name: str, reply_limit_bytes: int = REPLY_LIMIT_BYTES, *, tracks: bool
) -> Connection:
    """Connect, and find out the ID of this run of the server; none if it has no name.

    Another run may have lost the newest entries, and so may a replica that was promoted: that is
    another run here. With ``tracks`` Redis announces, on this connection, each key that it reads.
    All that is asked for goes out in one round trip. A reply above the limit is not read to its
    end: ``parser.ReplyTooLarge``.

    Raises:
        TrackingRefused: the server refuses CLIENT TRACKING, and would serve us otherwise.
        Unsuited: the server refuses, or can't serve us.
        RedisError, OSError: the connection can't be made within ``CONNECT_LIMIT_S``, or
            ``PRIMARY_LIMIT_S``.

    https://redis.io/docs/latest/commands/client-tracking/
    https://redis.io/docs/latest/commands/info/
    """
    commands: list[Command] = [
        ("CLIENT", "SETNAME", f"sse_push-{name}-{os.getpid()}"),
        ("INFO", "server"),
        ("INFO", "replication"),
    ]
    if tracks:
        commands.append(TRACKING)
    limit_s = PRIMARY_LIMIT_S if address.needs_primary else CONNECT_LIMIT_S
    async with asyncio.timeout(limit_s):
        connection = await connect(address, *commands, reply_limit_bytes=reply_limit_bytes)
        try:
            replies = [await connection.read() for _ in commands]
            connection.server_id = _judge(replies[:3], address)
            _require_tracking(replies[3:])
        except BaseException:
            connection.close()
            raise
    return connection


async def dial(address: Address) -> bytes:
    """Return the ID of the run of the server that the address leads to now.

    Raises:
        OSError: there is none that lets us in.
    """
    try:
        connection = await open_connection(address, "probe", tracks=False)
    except RedisError as exc:
        raise OSError(str(exc)) from exc
    connection.close()
    return connection.server_id


def _greetings(address: Address, protocol: Literal[2, 3]) -> list[Command]:
    """Return how to begin; in RESP2 in the words of servers that are too old for us."""
    user, password = address.user, address.password
    select: list[Command] = [("SELECT", address.db)] if address.db else []
    if protocol == 3:
        auth = ("AUTH", user or "default", password) if user or password else ()
        return [("HELLO", protocol, *auth), *select]
    names = (user, password) if user else (password,)
    return [("AUTH", *names), *select] if user or password else select


def _require_welcome(replies: Sequence[object], protocol: Literal[2, 3]) -> None:
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise Unsuited(str(reply))
    if protocol == 3:
        facts = replies[0]
        if not isinstance(facts, dict) or facts.get(b"proto") != protocol:
            raise Unsuited("expected a server that speaks RESP3, got another one")


def lacks_tracking(reply: object) -> TypeGuard[ErrorReply]:
    """Tell whether the reply to CLIENT TRACKING says that it will always be refused.

    A code that says what is wrong for now (BUSY, LOADING) says nothing of tracking.
    """
    return isinstance(reply, ErrorReply) and (reply.code == "NOPERM" or reply.code not in WHOSE)


def lacks_client(reply: object) -> bool:
    """Tell whether the reply to CLIENT SETNAME says that the server has no CLIENT at all.

    Then connections have no names; those are for operators alone.
    """
    return isinstance(reply, ErrorReply) and "unknown command" in str(reply)


def _require_tracking(replies: Sequence[object]) -> None:
    for reply in replies:
        if isinstance(reply, ErrorReply):
            raise TrackingRefused(str(reply)) if lacks_tracking(reply) else Unsuited(str(reply))


def _judge(replies: Sequence[object], address: Address) -> bytes:
    """Return the ID of the server's run.

    Raises:
        Unsuited: the server refuses, or can't serve us.
    """
    for reply in replies[1:] if lacks_client(replies[0]) else replies:
        if isinstance(reply, ErrorReply):
            raise Unsuited(str(reply))
    lines = [line for reply in replies[1:3] for line in cast("bytes", reply).splitlines()]
    is_of_cluster = any(line in _CLUSTER_MODES for line in lines)
    if is_of_cluster and not address.is_of_cluster:
        raise Unsuited("expected a single server, got a node of a cluster (redis+cluster://)")
    if address.is_of_cluster and not is_of_cluster:
        raise Unsuited("expected a node of a cluster, got a single server (redis://)")
    if address.needs_primary and _ROLE_OF_REPLICA in lines:
        raise Unsuited("expected a primary, got a replica: is a failover going on?")
    return _run_id(lines)


def _run_id(lines: Sequence[bytes]) -> bytes:
    """Return the ID of the server's run, and of the history that it went on with, if any.

    A primary that was a replica for a while, between two failovers, has thrown away what it alone
    had. Its run is still the same, but it goes on with a history that was another server's.
    """
    run_id = next((line for line in lines if line.startswith(b"run_id:")), b"")
    continued = next((line for line in lines if line.startswith(_CONTINUED)), _CONTINUES_NONE)
    return run_id if not run_id or continued == _CONTINUES_NONE else run_id + b" " + continued
