"""Causes by their names, from the words of Redis, its library and the system."""

from __future__ import annotations

import pytest

from sse_push.stream.keys import Keys
from sse_push.stream.obstacles import of_connection, of_replies
from sse_push.stream.replies import ErrorReply
from tests.harness.keys import KEYS

URL = "redis://push:hunter2@redis.example:6380/0"
XADD = ("XADD", "sse_push:{42}")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("AUTH <password> called without any password configured", "password_wrong"),
        ("Redis is loading the dataset in memory", "loading"),
        ("max number of clients reached", "clients_limit"),
        ("DENIED Redis is running in protected mode because", "protected_mode"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "tls"),
        ("Error -3 connecting to h. Temporary failure in name resolution.", "host_unknown"),
        ("Error 13 connecting to /run/redis.sock. Permission denied.", "socket_right"),
        ("Error 113 connecting to h. No route to host.", "network"),
        ("Connection closed by server.", "closed"),
        ("Protocol Error: b'TTP/1.1 400'", "not_redis"),
        ("something new", "unreachable"),
        ("", "unreachable"),
    ],
)
def test_a_connection_that_cannot_be_made_has_a_cause(said: str, name: str) -> None:
    finding = of_connection(URL, OSError(said) if said else OSError(), KEYS)

    assert (finding.level, finding.name) == ("failure", name)
    assert finding.text.startswith("redis.example:6380: ")
    assert finding.text.endswith(f"got: {said or 'OSError'}")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "memory_full"),
        ("MISCONF Redis is configured to save RDB snapshots, but", "disk"),
        ("READONLY You can't write against a read only replica.", "replica"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("BUSY Redis is busy running a script.", "busy"),
        ("NOREPLICAS Not enough good replicas to write.", "replicas"),
        ("ERR unknown command 'XADD'", "command_unknown"),
        ("SOMETHING new", "refused"),
    ],
)
def test_a_command_that_is_refused_has_a_cause_that_is_told_once(said: str, name: str) -> None:
    reply = ErrorReply(said)

    (finding,) = of_replies(URL, [(XADD, reply), (("TIME",), [b"1", b"2"]), (XADD, reply)], KEYS)

    assert (finding.level, finding.name) == ("failure", name)
    assert finding.text.endswith(f"got: {said}")


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("NOPERM this user has no permissions to run the 'xadd' command", "+xadd"),
        ("NOPERM No permissions to access a key", "~sse_push:*"),
        ("NOPERM this user has no permissions to access one of the keys used", "~sse_push:*"),
    ],
)
def test_a_right_is_told_as_the_command_that_gives_it(said: str, right: str) -> None:
    (finding,) = of_replies(URL, [(XADD, ErrorReply(said))], KEYS)

    assert finding.text == (
        f"the user push of Redis lacks {right} (which the service needs): ACL SETUSER push {right}"
    )


def test_a_key_that_is_in_the_way_is_named_with_the_prefix_of_the_service() -> None:
    keys = Keys("shop")
    large = of_connection(URL, Exception("expected a reply of at most 9 bytes, got more"), keys)
    (wrong,) = of_replies(URL, [(XADD, ErrorReply("WRONGTYPE Operation against"))], keys)

    assert "written to shop:revocations or shop:{~check}: DEL that; got: " in large.text
    assert wrong.text.startswith("a key of shop:* holds something else: DEL it; got: ")
