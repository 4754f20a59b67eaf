"""The streams as Redis has them: commands that read and add, and replies.

The one place that knows the form of entries. Does not know the names of keys (``keys``), nor
connections.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from typing import cast

from sse_push.access.revocation import Revocation
from sse_push.errors import InvalidRevocation
from sse_push.notification import Entry, EntryId, Notification
from sse_push.stream.reads import (
    NEW_ENTRIES,
    PAGE_ENTRIES,
    REVOCATIONS_MAX,
    Read,
    ReadFrom,
    RevocationEntry,
)

logger = logging.getLogger(__name__)

Command = tuple[str | bytes | int, ...]
"""A command of Redis and its arguments."""

_PROBE_ENTRIES = 4
"""How many entries of its own a process keeps; a probe looks for the newest only."""

_PROBE_LIFETIME_S = 60
"""How long the stream of a process outlives the process."""

PLANTED_FIELD = "sse_push:planted"
"""The one field of a planted entry; its value is random."""

_EVICTED_KEYS = re.compile(rb"^evicted_keys:(\d+)", re.MULTILINE)

_PLANTED_VALUE = re.compile(rb"[0-9a-f]{16}")

_PLANT_IF_MISSING = (
    "if redis.call('XLEN', KEYS[1]) > 0 then return 0 end "
    f"redis.call('XADD', KEYS[1], '*', '{PLANTED_FIELD}', ARGV[1]) "
    "redis.pcall('EXPIRE', KEYS[1], ARGV[2]) "
    "return 1"
)
"""A user without the right to EXPIRE plants streams that stay, as it does by notifications."""

_FORGET_IF_MISSING = (
    "if redis.call('TTL', KEYS[1]) ~= -2 then return 0 end "
    "redis.call('EXPIRE', KEYS[1], 0) "
    f"redis.call('XADD', KEYS[1], '*', '{PLANTED_FIELD}', '') "
    "redis.call('EXPIRE', KEYS[1], 0) "
    "return 1"
)
"""The first EXPIRE does nothing, and fails for a user who may not do the second one: no entry is
left behind. A lifetime of -2 is that of a key that is missing, and one of 0 deletes."""

_KEPT_LONGER_S = 60
"""How much longer the stream lives than its newest revocation, to be on the safe side."""


def read_command(key: str, read: Read) -> Command:
    """Return the command of one read of the stream that has this key.

    https://redis.io/docs/latest/commands/xrange/
    """
    if read.start is None:
        return ("XREVRANGE", key, "+", "-", "COUNT", 1)
    end = "+" if read.end is None else str(read.end)
    return ("XRANGE", key, str(read.start), end, "COUNT", NEW_ENTRIES + 1)


def arm_command(read: Command) -> Command:
    """Return a command that has changes of the key of a read announced, and returns no entry."""
    return ("XRANGE", read[1], "-", "+", "COUNT", 0)


def append_command(
    key: str, notification: Notification, *, max_entries: int, begins: bool
) -> Command:
    """Return the command that adds a notification, and trims the oldest entries.

    Approximately (``~``): Redis removes whole nodes only, which costs it next to nothing. Unless
    the entry ``begins`` a stream that is missing, Redis adds nothing there, and replies null.

    https://redis.io/docs/latest/commands/xadd/
    """
    fields = (text for pair in notification.to_fields().items() for text in pair)
    if begins:
        return ("XADD", key, "MAXLEN", "~", max_entries, "*", *fields)
    return ("XADD", key, "NOMKSTREAM", "MAXLEN", "~", max_entries, "*", *fields)


def probe_commands(key: str) -> tuple[Command, Command]:
    """Return the commands that add an entry to the stream of a process, and renew its lifetime.

    https://redis.io/docs/latest/commands/xadd/
    """
    return (
        ("XADD", key, "MAXLEN", _PROBE_ENTRIES, "*", "topic", "probe"),
        ("EXPIRE", key, _PROBE_LIFETIME_S),
    )


def plant_commands(key: str, *, lifetime_s: int, has_scripts: bool) -> tuple[Command, ...]:
    """Return the commands that plant an entry in a stream that is missing.

    Without scripts the entry is added even if the stream exists meanwhile, which does no harm.

    https://redis.io/docs/latest/commands/eval/
    """
    value = secrets.token_hex(8)
    if has_scripts:
        return (("EVAL", _PLANT_IF_MISSING, 1, key, value, lifetime_s),)
    return ("XADD", key, "*", PLANTED_FIELD, value), expire_command(key, lifetime_s)


def try_script_command(key: str) -> Command:
    """Return a script that does nothing: an error says that this user may not plant by one."""
    return ("EVAL", "return redis.call('XLEN', KEYS[1])", 1, key)


def forget_command(key: str) -> Command:
    """Return the command that has Redis forget that it tracks a key, if its stream is missing.

    The stream is there for no moment in which another client could see it; its key counts as
    changed, which is announced to all who follow it.

    https://redis.io/docs/latest/commands/eval/
    """
    return ("EVAL", _FORGET_IF_MISSING, 1, key)


def lifetime_command(key: str) -> Command:
    """Return the command that asks how many seconds a stream lives; -1: for ever; -2: not at all.

    https://redis.io/docs/latest/commands/ttl/
    """
    return ("TTL", key)


def expire_command(key: str, lifetime_s: int) -> Command:
    """Return the command that gives a stream its lifetime.

    https://redis.io/docs/latest/commands/expire/
    """
    return ("EXPIRE", key, lifetime_s)


ASKING: Command = ("ASKING",)
"""Has a node of a cluster answer the next command though the slot of its key is still to come.

https://redis.io/docs/latest/commands/asking/
"""


def publish_command(channel: str, message: str) -> Command:
    """Return the command that sends a message to all who are subscribed to a channel.

    https://redis.io/docs/latest/commands/publish/
    """
    return ("PUBLISH", channel, message)


def subscribe_command(channel: str) -> Command:
    """Return the command after which a connection receives the messages of a channel.

    https://redis.io/docs/latest/commands/subscribe/
    """
    return ("SUBSCRIBE", channel)


def wait_command(replicas: int, timeout_ms: int) -> Command:
    """Return the command that waits until so many replicas have all that its connection has sent.

    The reply is how many have it, after ``timeout_ms`` as well; 0 there would be for ever.

    https://redis.io/docs/latest/commands/wait/
    """
    assert timeout_ms > 0, "a wait has an end"
    return ("WAIT", replicas, timeout_ms)


def is_planted(fields: list[bytes]) -> bool:
    """Whether an entry says nothing: it has exactly the one field, with such a value.

    Anything beside it makes an entry that says something, whoever wrote it.
    """
    return (
        len(fields) == 2
        and fields[0] == PLANTED_FIELD.encode()
        and _PLANTED_VALUE.fullmatch(fields[1]) is not None
    )


class RevokeCommands:
    """Makes the commands that add revocations, and trim those that have expired or are too many.

    A revocation has expired when it is ``lifetime_s`` old: no token that it revokes lives longer.
    A command trims either by age or by count, so that they do so by turns.

    https://redis.io/docs/latest/commands/xadd/
    """

    def __init__(self, key: str, lifetime_s: float) -> None:
        self._key = key
        self._lifetime_s = lifetime_s
        self._trims_by_age = False

    def of(self, revocation: Revocation, *, now_s: float) -> tuple[Command, Command]:
        """Return the commands of one revocation.

        ``now_s`` is the time by Redis's own clock, which numbers the entries; 0 expires nothing.
        """
        self._trims_by_age = not self._trims_by_age
        oldest_ms = max(0, math.floor((now_s - self._lifetime_s) * 1000))
        trim = ("MINID", "~", oldest_ms) if self._trims_by_age else ("MAXLEN", "~", REVOCATIONS_MAX)
        fields = (text for pair in revocation.to_fields().items() for text in pair)
        return (
            ("XADD", self._key, *trim, "*", *fields),
            ("EXPIRE", self._key, math.ceil(self._lifetime_s + _KEPT_LONGER_S)),
        )


def read_revocations_command(key: str, read: ReadFrom) -> Command:
    """Return the command of one read of revocations.

    https://redis.io/docs/latest/commands/xrange/
    """
    first = "-" if read.start is None else str(read.start)
    return ("XRANGE", key, first, "+", "COUNT", PAGE_ENTRIES)


def parse_entry_id(raw: bytes) -> EntryId:
    """Parse an entry ID in a reply of Redis."""
    ms, _, seq = raw.partition(b"-")
    return EntryId(int(ms), int(seq))


def parse_ids(reply: object) -> list[EntryId]:
    """Return the IDs in a reply to a read, oldest first; none if the reply is an error."""
    if isinstance(reply, Exception):
        return []
    return [parse_entry_id(entry_id) for entry_id, _ in cast("list[tuple[bytes, object]]", reply)]


def parse_entries(merchant_id: str, reply: object, *, data_limit_bytes: int) -> list[Entry] | None:
    """Return the entries of a reply to a read, oldest first; None if the reply is an error."""
    if isinstance(reply, Exception):
        return None
    return [
        Entry(
            parse_entry_id(entry_id),
            Notification.from_fields(
                merchant_id,
                dict(zip(fields[::2], fields[1::2], strict=True)),
                data_limit_bytes=data_limit_bytes,
            ),
            hash(tuple(fields)),
            is_planted(fields),
        )
        for entry_id, fields in cast("list[tuple[bytes, list[bytes]]]", reply)
    ]


def parse_evicted_keys(reply: object) -> int | None:
    """Return how many keys Redis has evicted, from the reply to ``INFO stats``; None: unknown."""
    if not isinstance(reply, bytes):
        return None
    match = _EVICTED_KEYS.search(reply)
    return None if match is None else int(match[1])


def parse_revocations(reply: object) -> list[RevocationEntry] | None:
    """Return the entries of a reply to a read, oldest first; None if the reply is an error."""
    if isinstance(reply, Exception):
        return None
    return [
        RevocationEntry(parse_entry_id(entry_id), _parse_revocation(fields), hash(tuple(fields)))
        for entry_id, fields in cast("list[tuple[bytes, list[bytes]]]", reply)
    ]


def _parse_revocation(fields: list[bytes]) -> Revocation | None:
    try:
        return Revocation.from_fields(dict(zip(fields[::2], fields[1::2], strict=True)))
    except InvalidRevocation as exc:
        logger.warning("malformed revocation ignored cause=%s", exc)
        return None
