"""Examine a Redis before the service relies on it: one server, that of Sentinels, or a cluster.

Knows how the server is found that a URL leads to, and what is wrong if none is. Does not know what
is examined there (``examine_server``).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import closing
from typing import cast

from sse_push.runtime.finding import Finding, Level
from sse_push.stream.bell import BellChoice
from sse_push.stream.delivery import Trial, ask
from sse_push.stream.examine_cluster import examine_cluster
from sse_push.stream.examine_server import INFO, examine_server, facts_of, version_of
from sse_push.stream.failures import RedisError
from sse_push.stream.keys import Keys
from sse_push.stream.obstacles import of_connection
from sse_push.stream.opening import connect
from sse_push.stream.replies import ErrorReply
from sse_push.stream.seeds import is_cluster
from sse_push.stream.sentinel import Answer, Login, PrimaryAddress, parse_address


async def examine(
    url: str,
    keys: Keys,
    *,
    timeout_s: float,
    login: Login = Login(),  # noqa: B008 (it never changes)
    bell: BellChoice = "auto",
    wait_replicas: int = 0,
) -> list[Finding]:
    """Check a server's version, whether it delivers an entry, and what it may lose."""
    if is_cluster(url):
        return await examine_cluster(
            url, keys, timeout_s=timeout_s, bell=bell, wait_replicas=wait_replicas
        )
    address = parse_address(url, login)
    found: list[Finding] = []
    if isinstance(address, PrimaryAddress):
        found += _sentinels(address.service, await address.answers())
    try:
        async with asyncio.timeout(3 * timeout_s):
            with closing(await connect(address)) as adding, closing(await connect(address)) as also:
                trial = Trial(keys, wait_replicas=wait_replicas)
                return found + await examine_server(url, trial, adding, also, timeout_s, bell)
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
                (info,) = await ask(connection, [INFO])
    except (RedisError, OSError, TimeoutError) as another:
        return of_connection(url, another, keys)
    if isinstance(info, ErrorReply) and str(info).startswith("NOAUTH"):
        return of_connection(url, RedisError(str(info)), keys)
    version = None if isinstance(info, ErrorReply) else version_of(facts_of(cast("bytes", info)))
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
