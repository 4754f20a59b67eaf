"""Whether an entry that is added is heard of and found, as ``check`` tries it.

Knows what the service asks of Redis on the way of a notification. Does not know other settings of a
server (``examine``), nor the words of its errors (``obstacles``).
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, cast

from sse_push.notification import EntryId
from sse_push.runtime.finding import Finding
from sse_push.stream.bell import NOBODY, TRIAL, BellChoice
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.contract import (
    Command,
    parse_entry_id,
    parse_ids,
    probe_commands,
    publish_command,
    read_command,
    read_revocations_command,
    subscribe_command,
)
from sse_push.stream.keys import Keys, probe_merchant
from sse_push.stream.obstacles import of_replies
from sse_push.stream.opening import TRACKING, lacks_client, lacks_tracking
from sse_push.stream.reads import Read, ReadFrom
from sse_push.stream.replies import ErrorReply

MERCHANT = probe_merchant("check")
"""Always the same, so that checks without the right to EXPIRE leave one small stream at most."""


class Trial(NamedTuple):
    """What is tried at a server: a stream that it has, and its keys.

    A primary of a cluster ``is_of_cluster``, and has the revocations or not. So many replicas are
    expected as an answer waits for.
    """

    keys: Keys
    merchant_id: str = MERCHANT
    is_of_cluster: bool = False
    has_revocations: bool = True
    wait_replicas: int = 0

    @property
    def key(self) -> str:
        """The key of the stream."""
        return self.keys.stream(self.merchant_id)

    @property
    def message(self) -> str:
        """What the bell says of the stream."""
        return f"{NOBODY} 0 {self.merchant_id}"

    def reads(self) -> list[Command]:
        """Return every kind of read that the service makes there."""
        revocations = read_revocations_command(self.keys.revocations, ReadFrom(None))
        return [
            *([revocations] if self.has_revocations else []),
            read_command(self.key, Read(self.merchant_id, EntryId(0, 1))),
            read_command(self.key, Read(self.merchant_id)),
        ]


async def delivers(
    url: str,
    trial: Trial,
    adding: Connection,
    tracked: Connection,
    timeout_s: float,
    bell: BellChoice,
) -> list[Finding]:
    """Add an entry as a notification is added, and read it as the tail does."""
    began_at, keys = time.monotonic(), trial.keys
    asked: list[Command] = [("CLIENT", "SETNAME", "sse_push-check"), *trial.reads()]
    if bell != "pubsub":
        asked.insert(1, TRACKING)
    replies = await ask(tracked, asked)
    tracking = dict(zip(asked, replies, strict=True)).get(TRACKING)
    rings = bell == "pubsub" or (bell == "auto" and lacks_tracking(tracking))
    writes = [("TIME",), *probe_commands(trial.key)]
    if rings:
        asked.append(subscribe_command(keys.bell))
        replies.append(await _subscribe(tracked, keys))
        writes.append(publish_command(keys.bell, trial.message))
    written = await ask(adding, writes)
    answered = list(zip([*asked, *writes], [*replies, *written], strict=True))
    answered = answered[1:] if lacks_client(replies[0]) else answered
    refused = _refused(url, answered, keys, rings=rings)
    if any(finding.level == "failure" for finding in refused):
        return refused
    delivery = await _arrives(trial, tracked, cast("bytes", written[1]), timeout_s, rings=rings)
    if delivery is None:
        took_ms = (time.monotonic() - began_at) * 1000
        how = f"heard by PUBLISH to {keys.bell}" if rings else "announced"
        delivery = Finding("ok", "delivery", f"a change is {how} and read, {took_ms:.1f} ms")
    if bell == "auto" and not rings:
        refused += await _without_publish(adding, keys)
    return [delivery, *_without_tracking(tracking, keys), *refused]


def _refused(
    url: str, answered: list[tuple[Command, object]], keys: Keys, *, rings: bool
) -> list[Finding]:
    """Return what was refused, without CLIENT TRACKING if all else is there for the bell."""
    of_all = list(of_replies(url, answered, keys))
    rest = list(of_replies(url, [each for each in answered if each[0] != TRACKING], keys))
    return rest if rings and not any(each.level == "failure" for each in rest) else of_all


def _without_tracking(tracking: object, keys: Keys) -> list[Finding]:
    """Return what follows where Redis does not announce changes by itself."""
    if not isinstance(tracking, ErrorReply):
        return []
    return [
        Finding(
            "warning",
            "bell",
            f"without CLIENT TRACKING workers hear of changes by PUBLISH to {keys.bell}; a backend "
            "that adds to a stream itself must publish as well, or is heard within sweep_s; "
            f"expected the right +client|tracking, or bell=pubsub; got: {tracking}",
        )
    ]


async def _without_publish(adding: Connection, keys: Keys) -> list[Finding]:
    """Return what follows where nobody needs the messages, and the user may not publish them."""
    (reply,) = await ask(adding, [publish_command(keys.bell, TRIAL)])
    if not isinstance(reply, ErrorReply):
        return []
    return [
        Finding(
            "ok",
            "bell",
            f"PUBLISH to {keys.bell} is refused and not needed, but each probe tries it, which ACL "
            f"LOG counts: grant +publish &{keys.bell}, or set bell=tracking",
        )
    ]


async def _subscribe(tracked: Connection, keys: Keys) -> object:
    await tracked.send([subscribe_command(keys.bell)])
    return await tracked.read_push()


async def _arrives(
    trial: Trial, tracked: Connection, entry_id: bytes, timeout_s: float, *, rings: bool
) -> Finding | None:
    """Return why an entry that was added is not announced or not there; None if all is well."""
    try:
        async with asyncio.timeout(timeout_s):
            if rings:
                await _wait_for_message(tracked, trial.message.encode())
            else:
                await _wait_for_announcement(tracked, trial.key.encode())
    except TimeoutError:
        return Finding(
            "failure",
            "delivery",
            f"a change was not announced within {timeout_s:g} s: is this a proxy? "
            f"{'SUBSCRIBE' if rings else 'CLIENT TRACKING'} must reach the server itself",
        )
    read = Read(trial.merchant_id, parse_entry_id(entry_id))
    (found,) = await ask(tracked, [read_command(trial.key, read)])
    if parse_entry_id(entry_id) not in parse_ids(found):
        return Finding(
            "failure",
            "delivery",
            "an entry that was added is not there for another connection: does the address lead "
            "to several servers?",
        )
    return None


async def ask(connection: Connection, commands: list[Command]) -> list[object]:
    """Send commands, and return their replies, errors as values."""
    await connection.send(commands)
    return [await connection.read() for _ in commands]


async def _wait_for_message(connection: Connection, message: bytes) -> None:
    while True:
        pushed = await connection.read_push()
        if not isinstance(pushed, ErrorReply) and pushed[-1] == message:
            return


async def _wait_for_announcement(connection: Connection, key: bytes) -> None:
    while True:
        got = await connection.read_or_announcement()
        if isinstance(got, Announcement) and key in (got.keys or ()):
            return
