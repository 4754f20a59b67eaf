"""The commands that add records, and what each reply is for.

Knows which command gives a stream its lifetime. Does not know connections, nor what follows from a
reply (``append``).
"""

from __future__ import annotations

from collections.abc import Sequence

from sse_push.notification import Notification
from sse_push.stream.contract import (
    ASKING,
    Command,
    RevokeCommands,
    append_command,
    expire_command,
    probe_commands,
)
from sse_push.stream.keys import Keys
from sse_push.stream.lifetimes import Lifetimes
from sse_push.stream.outcomes import Waiting
from sse_push.stream.reads import ProbeEntry

Recipient = Waiting | str | None
"""Whom a reply is for. The recipient of an XADD is its record; that of an EXPIRE is the merchant
whose stream has a new lifetime, or None for any other stream, whose reply is not needed."""


class Adding:
    """Make the commands of the records that go out together."""

    def __init__(
        self, keys: Keys, *, max_entries: int, lifetimes: Lifetimes, revocation_lifetime_s: float
    ) -> None:
        self._keys = keys
        self._max_entries = max_entries
        self.lifetimes = lifetimes
        self._revoke_commands = RevokeCommands(keys.revocations, revocation_lifetime_s)

    def commands(
        self, batch: Sequence[Waiting], now_s: float
    ) -> tuple[list[Command], list[Recipient]]:
        """Return the commands, and for each the recipient of its reply.

        ``now_s`` is the time by Redis's own clock, which is needed if there are revocations.
        """
        commands: list[Command] = []
        recipients: list[Recipient] = []
        # Only an entry with a lifetime may begin a stream, which else would stay for ever.
        expiring = self.lifetimes.due_among([each.record.merchant_id for each in batch])
        for waiting in batch:
            if waiting.is_asked:
                commands.append(ASKING)
                recipients.append(None)
            if not isinstance(waiting.record, Notification):
                commands += (
                    probe_commands(self._keys.stream(waiting.record.merchant_id))
                    if isinstance(waiting.record, ProbeEntry)
                    else self._revoke_commands.of(waiting.record, now_s=now_s)
                )
                recipients += [waiting, None]
                continue
            merchant_id = waiting.record.merchant_id
            key = self._keys.stream(merchant_id)
            begins = merchant_id in expiring
            commands.append(
                append_command(key, waiting.record, max_entries=self._max_entries, begins=begins)
            )
            recipients.append(waiting)
            if begins:
                expiring.remove(merchant_id)
                commands.append(expire_command(key, self.lifetimes.lifetime_s))
                recipients.append(merchant_id)
        return commands, recipients
