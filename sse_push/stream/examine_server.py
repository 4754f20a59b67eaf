"""Examine one server: its version, whether it delivers an entry, rights, and what it may lose.

Knows which setting of a server breaks which promise. Does not know how the server was found
(``examine``), nor the running service.
"""

from __future__ import annotations

import re
from typing import cast

from sse_push.runtime.finding import Finding
from sse_push.stream.bell import BellChoice
from sse_push.stream.connection import Connection
from sse_push.stream.contract import Command, lifetime_command, try_script_command, wait_command
from sse_push.stream.delivery import Trial, ask, delivers
from sse_push.stream.obstacles import of_replies
from sse_push.stream.replies import ErrorReply
from sse_push.stream.window import EXPECTED_BYTES

INFO: Command = ("INFO",)

_OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
"""The oldest versions that the service is tested with."""

_ONLINE = re.compile(rb"^slave[0-9]+:.*\bstate=online", re.MULTILINE)
"""A replica that has everything, or is about to, in INFO; Valkey has the same words."""

_FIELD_LIMIT_BYTES = 8_388_608
"""How large a field of an entry may be, so that Redis is soon done with its reply."""


async def examine_server(
    url: str,
    trial: Trial,
    adding: Connection,
    tracked: Connection,
    timeout_s: float,
    bell: BellChoice,
) -> list[Finding]:
    """Check one server, or one primary of a cluster, on two connections to it."""
    keys = trial.keys
    (info,) = await ask(adding, [INFO])
    facts = {} if isinstance(info, ErrorReply) else facts_of(cast("bytes", info))
    refused = list(of_replies(url, [(INFO, info)], keys))
    kind = _kind(facts, trial)
    delivery = [kind] if kind else await delivers(url, trial, adding, tracked, timeout_s, bell)
    is_delivered = all(each.level == "ok" or each.name == "bell" for each in delivery)
    return [
        *([version_of(facts)] if facts else []),
        *refused,
        *delivery,
        *(await _plants(trial, adding) if is_delivered else []),
        *([_eviction(facts), _persistence(facts)] if facts else []),
        await _sizes(adding),
        *(await _replicas(url, trial, adding)),
    ]


def facts_of(info: bytes) -> dict[str, str]:
    """Return what the reply to INFO says, by name."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines if value}


def version_of(facts: dict[str, str]) -> Finding:
    """Return which server this is, and whether it is too old."""
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


def _kind(facts: dict[str, str], trial: Trial) -> Finding | None:
    """Return why this server can't serve us, whatever it answers; None if it can."""
    if facts.get("cluster_enabled") == "1" and not trial.is_of_cluster:
        return Finding(
            "failure",
            "cluster",
            "this is a node of a cluster, which has the streams of some merchants only: expected a "
            "single server, or redis+cluster:// in redis_url for all of its nodes",
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


async def _plants(trial: Trial, adding: Connection) -> list[Finding]:
    """Find out which rights are missing for planted entries; the service works without them."""
    script_key = trial.key if trial.is_of_cluster else trial.keys.script
    replies = await ask(adding, [try_script_command(script_key), lifetime_command(trial.key)])
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


async def _replicas(url: str, trial: Trial, adding: Connection) -> list[Finding]:
    """Return whether as many replicas are there as an answer waits for; nothing, if for none."""
    if not trial.wait_replicas:
        return []
    command = wait_command(0, 1)
    reply, info = await ask(adding, [command, ("INFO", "replication")])
    if isinstance(reply, ErrorReply) or isinstance(info, ErrorReply):
        return list(of_replies(url, [(command, reply)], trial.keys))  # of INFO it is said already
    online = len(_ONLINE.findall(cast("bytes", info)))
    text = f"{online} replica(s) are connected"
    if online < trial.wait_replicas:
        text += (
            f": expected {trial.wait_replicas} or more, as wait_replicas asks for; every "
            "notification would be answered 503 (unknown)"
        )
    return [Finding("ok" if online >= trial.wait_replicas else "failure", "wait_replicas", text)]


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
