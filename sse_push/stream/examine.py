"""Examine a Redis before the service relies on it: version, delivery, rights, what it may lose.

Knows which setting of a server breaks which promise. Does not know the running service.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import closing
from typing import cast

from sse_push.runtime.finding import Finding, Level
from sse_push.stream.bell import BellChoice
from sse_push.stream.connection import Connection
from sse_push.stream.contract import (
    Command,
    lifetime_command,
    try_script_command,
)
from sse_push.stream.delivery import MERCHANT, ask, delivers
from sse_push.stream.failures import RedisError
from sse_push.stream.keys import Keys
from sse_push.stream.obstacles import of_connection, of_replies
from sse_push.stream.opening import connect
from sse_push.stream.replies import ErrorReply
from sse_push.stream.sentinel import Answer, Login, PrimaryAddress, parse_address
from sse_push.stream.window import EXPECTED_BYTES

_INFO: Command = ("INFO",)

_OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
"""The oldest versions that the service is tested with."""

_FIELD_LIMIT_BYTES = 8_388_608
"""How large a field of an entry may be, so that Redis is soon done with its reply."""


async def examine(
    url: str,
    keys: Keys,
    *,
    timeout_s: float,
    login: Login = Login(),  # noqa: B008 (it never changes)
    bell: BellChoice = "auto",
) -> list[Finding]:
    """Check a server's version, whether it delivers an entry, and what it may lose."""
    address = parse_address(url, login)
    found: list[Finding] = []
    if isinstance(address, PrimaryAddress):
        found += _sentinels(address.service, await address.answers())
    try:
        async with asyncio.timeout(3 * timeout_s):
            with closing(await connect(address)) as adding, closing(await connect(address)) as also:
                return found + await _examine(url, keys, adding, also, timeout_s, bell)
    except (RedisError, OSError, TimeoutError) as exc:
        if _lacks_hello(exc):
            return [*found, await _without_hello(url, keys, exc, timeout_s, login)]
        return [*found, of_connection(url, exc, keys)]


def _sentinels(service: str, answers: list[Answer]) -> list[Finding]:
    """Return whom the Sentinels name; nothing if none names any, as no connection is made then."""
    named = Counter(answer.place for answer in answers if answer.place is not None)
    if not named:
        return []
    counts = (f"{count} of {len(answers)} name {place}" for place, count in named.most_common())
    text = f"{', '.join(counts)} as the primary of {service}"
    if len(named) > 1:
        text += ": expected one server; is a failover going on, or is a Sentinel cut off?"
    failures = [f"{answer.sentinel}: {answer.failure}" for answer in answers if answer.failure]
    if failures:
        text += f"; expected an answer of each, got none of {'; '.join(failures)}"
    level: Level = "warning" if failures or len(named) > 1 else "ok"
    return [Finding(level, "sentinels", text)]


async def _examine(
    url: str,
    keys: Keys,
    adding: Connection,
    tracked: Connection,
    timeout_s: float,
    bell: BellChoice,
) -> list[Finding]:
    (info,) = await ask(adding, [_INFO])
    facts = {} if isinstance(info, ErrorReply) else _facts(cast("bytes", info))
    refused = list(of_replies(url, [(_INFO, info)], keys))
    kind = _kind(facts)
    delivery = [kind] if kind else await delivers(url, keys, adding, tracked, timeout_s, bell)
    is_delivered = all(each.level == "ok" or each.name == "bell" for each in delivery)
    return [
        *([_version(facts)] if facts else []),
        *refused,
        *delivery,
        *(await _plants(keys, adding) if is_delivered else []),
        *([_eviction(facts), _persistence(facts)] if facts else []),
        await _sizes(adding),
    ]


def _lacks_hello(exc: BaseException) -> bool:
    """Return whether a server does not know how to begin RESP3."""
    return re.search("unknown command .?HELLO|NOPROTO|unsupported protocol", str(exc)) is not None


async def _without_hello(
    url: str, keys: Keys, exc: BaseException, timeout_s: float, login: Login
) -> Finding:
    """Ask a server without RESP3 for its version, in the words of older ones."""
    opening = connect(parse_address(url, login), protocol=2)
    try:
        async with asyncio.timeout(timeout_s):
            with closing(await opening) as connection:
                (info,) = await ask(connection, [_INFO])
    except (RedisError, OSError, TimeoutError) as another:
        return of_connection(url, another, keys)
    if isinstance(info, ErrorReply) and str(info).startswith("NOAUTH"):
        return of_connection(url, RedisError(str(info)), keys)
    version = None if isinstance(info, ErrorReply) else _version(_facts(cast("bytes", info)))
    if version is not None and version.level == "failure":
        return version
    name = "this server" if version is None else version.text
    return Finding(
        "failure",
        "hello",
        f"{name} does not know HELLO 3 (RESP3), with which the service begins: expected Redis 6.2, "
        "Valkey 7.2 or newer, without rename-command for HELLO in redis.conf, and no proxy; "
        f"got: {exc}",
    )


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines if value}


def _version(facts: dict[str, str]) -> Finding:
    name = "valkey" if facts.get("server_name") == "valkey" else "redis"
    text = facts.get("valkey_version") or facts.get("redis_version", "0")
    found = tuple(int(part) for part in text.split(".")[:2])
    oldest = _OLDEST[name]
    if found < oldest:
        expected = ".".join(map(str, oldest))
        return Finding(
            "failure", "version", f"{name} {text} is too old: expected {expected} or newer"
        )
    return Finding("ok", "version", f"{name} {text}")


def _kind(facts: dict[str, str]) -> Finding | None:
    """Return why this server can't serve us, whatever it answers; None if it can."""
    if facts.get("cluster_enabled") == "1":
        return Finding(
            "failure",
            "cluster",
            "this is a node of a cluster, which has the streams of some merchants only: expected a "
            "single server",
        )
    if facts.get("role") == "slave":
        return Finding(
            "failure",
            "replica",
            f"this is a replica of {facts.get('master_host')}, which takes no entries: expected "
            "the primary",
        )
    return None


async def _sizes(adding: Connection) -> Finding:
    """Return whether an entry, or a reply, may be larger than is good for other merchants."""
    names = ("proto-max-bulk-len", "client-output-buffer-limit")
    field, output = await ask(adding, [("CONFIG", "GET", name) for name in names])
    if isinstance(field, ErrorReply) or isinstance(output, ErrorReply):
        return Finding(
            "ok", "sizes", f"{names[0]} can't be read by this user: expected 8mb or less"
        )
    field_bytes = int(cast("dict[bytes, bytes]", field)[names[0].encode()])
    of_classes = cast("dict[bytes, bytes]", output)[names[1].encode()].split()
    output_bytes = int(of_classes[of_classes.index(b"normal") + 1])
    if 0 < output_bytes < 2 * EXPECTED_BYTES:
        return Finding(
            "warning",
            "sizes",
            f"{names[1]} normal is {output_bytes} bytes: Redis may end our connections; expected "
            "0 (none), or 1mb or more",
        )
    if field_bytes > _FIELD_LIMIT_BYTES:
        return Finding(
            "warning",
            "sizes",
            f"{names[0]} is {field_bytes} bytes: a backend that adds to streams itself can add an "
            "entry that keeps Redis busy for seconds; expected 8mb or less",
        )
    return Finding("ok", "sizes", f"a field of an entry has {field_bytes} bytes at most")


async def _plants(keys: Keys, adding: Connection) -> list[Finding]:
    """Find out which rights are missing for planted entries; the service works without them."""
    replies = await ask(
        adding, [try_script_command(keys.script), lifetime_command(keys.stream(MERCHANT))]
    )
    refused = [str(reply) for reply in replies if isinstance(reply, ErrorReply)]
    if not refused:
        return []
    return [
        Finding(
            "warning",
            "rights_for_planting",
            f"expected that Redis runs a script, and tells how long a stream lives, got: "
            f"{'; '.join(refused)}: a merchant without a stream may get two planted entries, and "
            "its browsers refetch when these expire",
        )
    ]


def _eviction(facts: dict[str, str]) -> Finding:
    policy = facts.get("maxmemory_policy", "unknown")
    if policy != "noeviction" and int(facts.get("maxmemory", "0")) > 0:
        return Finding(
            "warning",
            "eviction",
            f"maxmemory-policy is {policy}: whole streams may vanish, and their browsers refetch; "
            "expected noeviction",
        )
    return Finding("ok", "eviction", f"nothing is evicted (maxmemory-policy {policy})")


def _persistence(facts: dict[str, str]) -> Finding:
    if facts.get("aof_enabled") == "1":
        return Finding(
            "ok",
            "persistence",
            "the append-only file is on: a crash of Redis loses no notification",
        )
    return Finding(
        "warning",
        "persistence",
        "appendonly is off: when Redis crashes, notifications since its last snapshot are lost, "
        "and every connected browser refetches",
    )
