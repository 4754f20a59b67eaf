"""Why a server does not let us in, or does not do what it is asked: each cause by its name.

Knows the words of Redis, of its client library and of the system, and what to do about each. Does
not know which commands the service needs (``examine``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sse_push.runtime.finding import Finding
from sse_push.stream.contract import Command
from sse_push.stream.keys import Keys
from sse_push.stream.replies import ErrorReply


class Obstacle(NamedTuple):
    """A cause: the words by which it is recognized, its name, and what to do."""

    words: re.Pattern[str]
    name: str
    cure: str


def _obstacles(*rows: tuple[str, str, str]) -> tuple[Obstacle, ...]:
    return tuple(
        Obstacle(re.compile(words, re.IGNORECASE), name, cure) for words, name, cure in rows
    )


_OF_CONNECTIONS = _obstacles(
    (
        "cluster support disabled",
        "not_a_cluster",
        "this is a single server: expected redis:// in redis_url, or the nodes of a cluster",
    ),
    (
        "nodes of a cluster, got NOPERM",
        "cluster_right",
        "expected a user who may ask for the nodes: +cluster|nodes +asking, at each of them",
    ),
    (
        "names the primary.*(WRONGPASS|NOAUTH|NOPERM|without any password|invalid password)",
        "sentinel_password",
        "expected sentinel_user and sentinel_password as the Sentinels have them: they do not take "
        "those in redis_url, which are for the primary",
    ),
    (
        "names the primary.*knows no service",
        "sentinel_service",
        "expected the name that sentinel.conf has behind `sentinel monitor`, in redis_url behind "
        "the hosts",
    ),
    (
        "names the primary",
        "sentinel_unreachable",
        "expected a Sentinel at one of these addresses, by default at port 26379",
    ),
    (
        "is what Sentinels name",
        "primary_unreachable",
        "the Sentinels name an address that can't be reached from here: set replica-announce-ip "
        "and sentinel announce-ip where addresses are translated",
    ),
    (
        "invalid username-password|WRONGPASS|without any password|invalid password",
        "password_wrong",
        "expected a user that is on, and its password, in redis_url: redis://USER:PASSWORD@…, or "
        "redis://:PASSWORD@… for the user `default`",
    ),
    (
        "NOAUTH|already authenticated|authentication required",
        "password_missing",
        "expected redis_url with a password: redis://:PASSWORD@…, or redis://USER:PASSWORD@…",
    ),
    (
        "DB index|SELECT is not allowed|invalid DB",
        "database",
        "redis_url ends with the number of a database: expected one that is there, such as /0",
    ),
    ("loading the dataset", "loading", "Redis has just started: wait until it has read its data"),
    ("max number of clients", "clients_limit", "raise maxclients in redis.conf"),
    (
        "protected mode",
        "protected_mode",
        "Redis takes connections of its own machine only until it has a password (requirepass, or "
        "a user)",
    ),
    (
        "SSL|TLS|certificate",
        "tls",
        "rediss:// is for a server with TLS; ssl_ca_certs in redis_url names the certificates to "
        "believe",
    ),
    (
        "name or service not known|name resolution|no address associated",
        "host_unknown",
        "expected a host in redis_url that this machine can look up",
    ),
    (
        "refused|Error 111|Connect call failed",
        "refused",
        "nothing listens there: is Redis started, with this port and this `bind`?",
    ),
    ("No such file", "socket_missing", "expected the unixsocket of redis.conf in redis_url"),
    (
        "Permission denied",
        "socket_right",
        "this user may not use the socket: unixsocketperm 770, and its group for this user",
    ),
    (
        "unreachable|No route",
        "network",
        "this machine has no way there: is the address in redis_url right?",
    ),
    (
        "timeout|timed out",
        "no_answer",
        "a firewall drops what is sent, Redis hangs, or the port expects TLS (rediss://) or is not "
        "Redis's",
    ),
    (
        "closed|reset by peer",
        "closed",
        "the server ended the connection: does it expect TLS (rediss://), or is it no Redis?",
    ),
    (
        "reply of at most",
        "reply_too_large",
        "somebody else has written to PREFIX:revocations or PREFIX:{~check}: DEL that",
    ),
    ("protocol error", "not_redis", "what answers there is no Redis"),
)

_OF_REPLIES = _obstacles(
    (
        "^OOM",
        "memory_full",
        "its memory is full, so it takes no notifications: raise maxmemory, or remove other data",
    ),
    (
        "^MISCONF",
        "disk",
        "it can't write to its disk, so it takes no notifications: is the disk full? See its log",
    ),
    ("^READONLY", "replica", "it is a replica, which takes no entries: expected the primary"),
    ("^LOADING", "loading", "it has just started: wait until it has read its data"),
    ("^BUSY", "busy", "a script keeps it busy: SCRIPT KILL ends that"),
    ("^(NOREPLICAS|MASTERDOWN)", "replicas", "it waits for its replicas, or its primary"),
    ("^WRONGTYPE", "wrong_type", "a key of PREFIX:* holds something else: DEL it"),
    (
        "unknown (sub)?command|wrong number of arguments|syntax error|^MOVED|^CROSSSLOT|proxy",
        "command_unknown",
        "expected the server itself, Redis 6.2 or Valkey 7.2 or newer: a proxy, or a hosted "
        "service, may lack the command",
    ),
)

_WORKS_WITHOUT = {
    "+time": "metrics can't correct the age of a refresh, and revocations are kept longer",
    "+expire": "the streams of merchants that are gone stay for ever",
}
"""The rights without which the service works, and what it lacks then."""

_TRACKING = ("CLIENT", "TRACKING")
_CURE_OF_TRACKING = (
    "without CLIENT TRACKING no change is announced: expected the server itself, Redis 6.2 or "
    "Valkey 7.2 or newer, and not a proxy or a hosted service that lacks it; or bell=auto, and the "
    "rights +publish +subscribe &PREFIX:bell"
)


def of_connection(url: str, exc: BaseException, keys: Keys) -> Finding:
    """Return why no connection can be made; the text shows no password."""
    said = str(exc) or type(exc).__name__
    for words, name, cure in _OF_CONNECTIONS:
        if words.search(said):
            return Finding("failure", name, f"{_where(url)}: {_named(cure, keys)}; got: {said}")
    return Finding("failure", "unreachable", f"{_where(url)}: expected Redis, got: {said}")


def of_replies(
    url: str, replies: Iterable[tuple[Command, object]], keys: Keys
) -> Iterator[Finding]:
    """Yield why commands were refused: one finding for all rights, and one for each other cause."""
    refused = [(command, str(reply)) for command, reply in replies if isinstance(reply, ErrorReply)]
    lacking = {_right(command, said, keys): command for command, said in refused if _is_right(said)}
    needed = [right for right in lacking if right not in _WORKS_WITHOUT]
    if needed:
        yield Finding("failure", "rights", _lacks(url, needed, "which the service needs"))
    for right, consequence in _WORKS_WITHOUT.items():
        if right in lacking:
            yield Finding("warning", "rights", _lacks(url, [right], consequence))
    causes = (_cause(command, said, keys) for command, said in refused if not _is_right(said))
    yield from dict.fromkeys(causes)


def _cause(command: Command, said: str, keys: Keys) -> Finding:
    if command[:2] == _TRACKING:
        return Finding("failure", "tracking", f"{_named(_CURE_OF_TRACKING, keys)}; got: {said}")
    for words, name, cure in _OF_REPLIES:
        if words.search(said):
            return Finding("failure", name, f"{_named(cure, keys)}; got: {said}")
    return Finding("failure", "refused", f"expected that Redis does {command[0]!s}, got: {said}")


def _named(cure: str, keys: Keys) -> str:
    return cure.replace("PREFIX", keys.prefix)


def _is_right(said: str) -> bool:
    return said.startswith("NOPERM")


def _right(command: Command, said: str, keys: Keys) -> str:
    """Return the right that is missing, as ACL SETUSER takes it."""
    if re.search("access (a|one of the) key", said, re.IGNORECASE):
        return f"~{keys.pattern}"
    if re.search("access (a|one of the) channel", said, re.IGNORECASE):
        return f"&{keys.bell}"
    name, *more = (word.lower() for word in command if isinstance(word, str))
    return f"+{name}|{more[0]}" if name == "client" else f"+{name}"


def _lacks(url: str, rights: list[str], consequence: str) -> str:
    user = unquote(urlsplit(url).username or "") or "default"
    listed = " ".join(rights)
    return f"the user {user} of Redis lacks {listed} ({consequence}): ACL SETUSER {user} {listed}"


def _where(url: str) -> str:
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
