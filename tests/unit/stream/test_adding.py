"""The commands that add records; ``test_append`` has what Redis makes of them."""

from __future__ import annotations

import asyncio

from sse_push.access.revocation import Revocation
from sse_push.notification import Notification
from sse_push.stream.adding import Adding
from sse_push.stream.lifetimes import Lifetimes
from sse_push.stream.outcomes import Record, Waiting
from sse_push.stream.reads import ProbeEntry
from tests.harness.keys import KEYS


def waiting(record: Record, *, is_asked: bool = False) -> Waiting:
    return Waiting(record, asyncio.get_running_loop().create_future(), 0.0, is_asked)


async def test_each_command_has_a_recipient_in_the_order_of_the_records() -> None:
    adding = Adding(KEYS, max_entries=7, lifetimes=Lifetimes(100), revocation_lifetime_s=50)
    batch = [
        waiting(Notification("42"), is_asked=True),
        waiting(Revocation("42")),
        waiting(ProbeEntry("~1")),
        waiting(Notification("43")),
    ]

    commands, recipients = adding.commands(batch, 1000.0)

    first, revoked, probed, last = batch
    assert [
        (command[:2], recipient) for command, recipient in zip(commands, recipients, strict=True)
    ] == [
        (("ASKING",), None),
        (("XADD", KEYS.stream("42")), first),
        (("EXPIRE", KEYS.stream("42")), "42"),
        (("XADD", KEYS.revocations), revoked),
        (("EXPIRE", KEYS.revocations), None),
        (("XADD", KEYS.stream("~1")), probed),
        (("EXPIRE", KEYS.stream("~1")), None),
        (("XADD", KEYS.stream("43")), last),
        (("EXPIRE", KEYS.stream("43")), "43"),
    ]


async def test_only_an_entry_with_a_lifetime_begins_a_stream() -> None:
    adding = Adding(KEYS, max_entries=7, lifetimes=Lifetimes(100), revocation_lifetime_s=50)
    adding.lifetimes.renewed("42")

    commands, recipients = adding.commands([waiting(Notification("42"))], 0.0)

    assert commands == [
        ("XADD", KEYS.stream("42"), "NOMKSTREAM", "MAXLEN", "~", 7, "*", "topic", "")
    ]
    assert len(recipients) == 1
