"""The bell: messages by which those who add entries say which streams have changed.

Where Redis refuses to announce changes by itself (CLIENT TRACKING), each process hears of them from
the process that makes them. Knows the form of a message, and which message shows that another one
was lost. Does not know connections: ``append`` publishes, and ``announcing`` subscribes.

A message is ``<appender> <number> <name> <name> ...``. An appender is a process, by a random name,
and numbers its messages from 1 on. A name is a merchant's ID, or ``~`` for the revocations. A
backend that adds to a stream itself has no numbers: its messages begin with ``- 0``.

**Redis may lose messages, and a gap shows it.** A message is lost when a connection is, or a link
between nodes, and nothing repeats it. So a message whose number is not the next one of its appender
means that any stream may have changed. The same holds for the first message that is heard of an
appender, unless its number is 1: those before it were published before we subscribed, or were lost.
Each process adds a probe every few seconds, so a gap shows soon. If a process ends in that moment,
the sweep finds what its last message was about.

**A number counts, whatever becomes of its message.** If Redis refuses one, or the connection is
lost, the next message shows the gap. ``tests/simulation`` takes each rule out, and finds a browser
that shows old data.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sse_push.access.revocation import Revocation
from sse_push.notification import Notification
from sse_push.stream.contract import Command, publish_command
from sse_push.stream.reads import ProbeEntry
from sse_push.stream.replies import ErrorReply

BellKind = Literal["tracking", "pubsub"]
"""By which a process hears of changes: from Redis itself, or by messages."""

BellChoice = Literal["auto", "tracking", "pubsub"]
"""The setting; ``auto``: messages where Redis answers CLIENT TRACKING with an error."""

REVOCATIONS = "~"
"""Stands for the stream of revocations in a message; no merchant has this ID."""

NOBODY = "-"
"""Stands for an appender that does not number its messages."""

TRIAL = f"{NOBODY} 0"
"""A message that names no stream: PUBLISH is tried with it."""

_APPENDERS = 10_000
"""At most this many appenders are remembered; one that is forgotten is new when it is heard again,
which doubts every stream once."""

_MESSAGE = re.compile(rb"(?P<appender>-|[0-9a-f]{16}) (?P<number>[0-9]{1,18})(?P<names>( [!-~]+)*)")


class Ring(NamedTuple):
    """A message: these streams have changed."""

    appender: str
    number: int
    names: tuple[str, ...]

    @classmethod
    def parse(cls, message: bytes) -> Ring | None:
        """Return what a message says; None if it has another form."""
        match = _MESSAGE.fullmatch(message)
        if match is None:
            return None
        names = match["names"].decode("ascii").split()
        return cls(match["appender"].decode("ascii"), int(match["number"]), tuple(names))


class Ringer:
    """Make the messages of one appender."""

    def __init__(self, channel: str, *, rings: bool) -> None:
        self._channel = channel
        self._rings = rings
        self._name = secrets.token_hex(8)
        self._number = 0
        self._is_refused = False

    def commands(self, records: Sequence[Notification | ProbeEntry | Revocation]) -> list[Command]:
        """Return the command that is to follow those that add the records, if there is one.

        A user of Redis who may not publish is no fault as long as Redis announces changes by
        itself. So after a refusal it is tried with each probe only: Redis logs each refusal.
        """
        if not self._rings:
            return []
        self._number += 1
        if self._is_refused and not any(isinstance(each, ProbeEntry) for each in records):
            return []
        names = " ".join(dict.fromkeys(map(_name_of, records)))
        return [publish_command(self._channel, f"{self._name} {self._number} {names}")]

    def answered(self, reply: object) -> None:
        """Note the reply to the command."""
        self._is_refused = isinstance(reply, ErrorReply)


class Hearing:
    """What one subscription has heard; a new one begins with nothing."""

    def __init__(self, most: int = _APPENDERS) -> None:
        self._most = most
        self._numbers: OrderedDict[str, int] = OrderedDict()
        """The last number of each appender; who was heard last is last."""

    def heard(self, message: bytes) -> tuple[str, ...] | None:
        """Return the names of the streams that have changed; None: any may have."""
        ring = Ring.parse(message)
        if ring is None:
            return None
        if ring.appender == NOBODY:
            return ring.names
        last = self._numbers.get(ring.appender, 0)
        # A lower number is of a connection that its appender has given up: the gap before it
        # has been seen, and what it names is read now.
        self._numbers[ring.appender] = max(last, ring.number)
        self._numbers.move_to_end(ring.appender)
        if len(self._numbers) > self._most:
            self._numbers.popitem(last=False)
        return None if ring.number > last + 1 else ring.names


def _name_of(record: Notification | ProbeEntry | Revocation) -> str:
    return REVOCATIONS if isinstance(record, Revocation) else record.merchant_id
