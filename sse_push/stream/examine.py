"""Examine a Redis before the service relies on it: version, announcements, eviction, persistence.

Knows which setting of a server breaks which promise. Does not know the running service.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Literal, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from sse_push.errors import StreamUnavailable
from sse_push.stream.connection import (
    Announcement,
    connection_pool,
    read_reply_or_announcement,
    start_tracking,
)
from sse_push.stream.contract import PROBE_PREFIX

_OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
"""The oldest versions that the service is tested with."""


class Finding(NamedTuple):
    """The result of one check; the text says what to do if the level is not ok."""

    level: Literal["ok", "warning", "failure"]
    text: str


async def examine(url: str, *, timeout_s: float) -> list[Finding]:
    """Check a server's version, whether it announces a change, and what it may lose.

    Raises:
        StreamUnavailable: the server does not answer.
    """
    pool = connection_pool(url, connect_timeout_s=timeout_s, name="check")
    redis = Redis(connection_pool=pool)
    try:
        async with asyncio.timeout(3 * timeout_s):
            info = cast("dict[str, object]", await redis.info())
            return [
                _version(info),
                await _announces(redis, pool.make_connection(), timeout_s),
                _eviction(info),
                _persistence(info),
            ]
    except (RedisError, OSError, TimeoutError) as exc:
        raise StreamUnavailable(
            f"expected a Redis that answers, got: {str(exc) or repr(exc)}"
        ) from exc
    finally:
        await redis.aclose()
        await pool.disconnect()


def _version(info: dict[str, object]) -> Finding:
    name = "valkey" if info.get("server_name") == "valkey" else "redis"
    text = str(info.get("valkey_version") or info["redis_version"])
    found = tuple(int(part) for part in text.split(".")[:2])
    oldest = _OLDEST[name]
    if found < oldest:
        expected = ".".join(map(str, oldest))
        return Finding("failure", f"{name} {text} is too old: expected {expected} or newer")
    return Finding("ok", f"{name} {text}")


async def _announces(redis: Redis, connection: AbstractConnection, timeout_s: float) -> Finding:
    key = f"{PROBE_PREFIX}check-{secrets.token_hex(8)}"
    try:
        await connection.connect()
        await start_tracking(connection)
        await connection.send_command("GET", key)
        await connection.read_response()
        began_at = time.monotonic()
        await redis.set(key, "check", ex=10)
        async with asyncio.timeout(timeout_s):
            while True:
                got = await read_reply_or_announcement(connection)
                if isinstance(got, Announcement) and key.encode() in (got.keys or ()):
                    break
    except TimeoutError:
        return Finding(
            "failure",
            f"a change was not announced within {timeout_s:g} s: is this a proxy, or does the "
            "user lack rights? CLIENT TRACKING must reach the server itself",
        )
    finally:
        await connection.disconnect(nowait=True)
    return Finding("ok", f"a change is announced, {(time.monotonic() - began_at) * 1000:.1f} ms")


def _eviction(info: dict[str, object]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy != "noeviction" and int(cast("int", info.get("maxmemory", 0))) > 0:
        return Finding(
            "warning",
            f"maxmemory-policy is {policy}: whole streams may vanish, and their browsers refetch; "
            "expected noeviction",
        )
    return Finding("ok", f"nothing is evicted (maxmemory-policy {policy})")


def _persistence(info: dict[str, object]) -> Finding:
    if info.get("aof_enabled"):
        return Finding("ok", "the append-only file is on: a crash of Redis loses no notification")
    return Finding(
        "warning",
        "appendonly is off: when Redis crashes, notifications since its last snapshot are lost, "
        "and every connected browser refetches",
    )
