"""Plant entries that say nothing in streams that are missing, so that quiet merchants have an ID.

A merchant that was never notified, or not for ``stream_ttl_s``, has no stream, and so its browsers
have no last event ID: each of their reconnections would be a refetch. A planted entry is a position
for them. Knows when one may be planted, and keeps them alive while somebody listens. Does not know
what a planted entry means to those who read it (``tail``), nor how commands are sent.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from sse_push.stream.contract import (
    Command,
    expire_command,
    lifetime_command,
    parse_evicted_keys,
    plant_commands,
    try_script_command,
)
from sse_push.stream.keys import Keys
from sse_push.stream.lifetimes import lifetime_s
from sse_push.stream.pipeline import OnReply, Request
from sse_push.stream.reads import Read
from sse_push.stream.replies import ErrorReply, Whose
from sse_push.stream.watch import Watch

logger = logging.getLogger(__name__)

_AGAIN_S = 600.0
"""At least this long between two plants of one merchant, and without any after an eviction. In a
memory that is too small each plant throws out a stream, whose browsers lead to the next plant."""

_REFUSED_S = 30.0
"""How long nothing is planted after Redis has refused to."""

_PLANTS_PER_S = 1000.0
_PLANTS_AT_ONCE = 10_000.0
"""10 000 plants take Redis 0.4 s."""

_PLANTS_PER_LOOK = 256
"""After so many plants Redis is asked again whether it evicts, and after each second with any."""

_LOOKS_AT_LIFETIME = (0.1, 0.2)
"""After which share of ``stream_ttl_s`` the lifetime of a planted entry is looked at again; at
random, so that the processes that follow one stream do not all renew it."""


@dataclass(slots=True)
class PlantTally:
    """How many entries were planted, and how often Redis refused; the numbers only rise."""

    outcomes: dict[Literal["planted", "refused"], int] = field(
        default_factory=lambda: {"planted": 0, "refused": 0}
    )


class Planting:
    """Decide on plants, and make their commands.

    At most ``max_planted`` merchants have an entry of this process; 0 plants nothing. What is to be
    sent otherwise is asked for with ``take``, at least after ``connected`` and ``swept``.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        max_planted: int,
        stream_ttl_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        # A stream that lives shorter than the time between two plants would come and go.
        self._max_planted = max_planted if stream_ttl_s >= _AGAIN_S else 0
        self._ttl_s = stream_ttl_s
        self._lifetime_s = lifetime_s(stream_ttl_s)
        self._now = now
        self._planted_at: OrderedDict[str, float] = OrderedDict()
        """When each merchant was planted, the oldest first; at most ``max_planted``."""
        self._not_before = -math.inf
        self._has_scripts = True
        self._evicted: int | None = None
        """Keys that Redis has evicted; None: not known on this connection."""
        self._unseen = 0
        """How many entries were planted since the evictions were last asked for."""
        self._allowance = _PLANTS_AT_ONCE
        self._allowance_at = now()
        self._requests: deque[Request] = deque()
        self.tally = PlantTally()

    def connected(self, script_key: str | None = None) -> None:
        """Begin again on a new connection: another server may forbid scripts.

        A script is tried with ``script_key``, which in a cluster is to be one that the node has.
        """
        self._requests.clear()
        self._evicted = None
        if self._max_planted:
            self._ask(try_script_command(script_key or self._keys.script), self._on_scripts)
            self._look()

    def may_plant(self, merchant_id: str) -> bool:
        """Whether an entry may be planted now; if so, it counts as planted."""
        now = self._now()
        self._forget(now)
        at = self._planted_at.get(merchant_id, -math.inf)
        is_over = merchant_id not in self._planted_at and len(self._planted_at) >= self._max_planted
        if now < max(self._not_before, at + _AGAIN_S) or is_over or not self._spend(now):
            return False
        self._planted_at[merchant_id] = now
        self._planted_at.move_to_end(merchant_id)
        return True

    def before(self, read: Read) -> list[Request]:
        """Return what is to be sent right before a read: the commands that plant, if it says so."""
        if not read.is_planting:
            return []
        self._unseen += 1
        if self._unseen >= _PLANTS_PER_LOOK:
            self._look()
        commands = plant_commands(
            self._keys.stream(read.merchant_id),
            lifetime_s=self._lifetime_s,
            has_scripts=self._has_scripts,
        )

        def on_reply(reply: object) -> None:
            self._on_planted(read.merchant_id, reply)

        return [(commands[0], on_reply), *((command, _ignore) for command in commands[1:])]

    def take(self, most: int) -> list[Request]:
        """Return at most ``most`` other commands that are to be sent now."""
        return [self._requests.popleft() for _ in range(min(most, len(self._requests)))]

    def swept(self, watches: Iterable[Watch]) -> None:
        """Look after what was planted, once a second: its lifetime, and whether Redis evicts.

        ``watches`` are those whose turn it is in the sweep.
        """
        for watch in watches:
            self._keep_alive(watch)
        if self._unseen:
            self._look()

    def _keep_alive(self, watch: Watch) -> None:
        """Renew a stream while somebody listens, if a planted entry is the newest one."""
        now = self._now()
        if watch.held is None or not watch.held.is_planted or now < watch.lifetime_due_at:
            return
        watch.lifetime_due_at = now + self._ttl_s * random.uniform(*_LOOKS_AT_LIFETIME)  # noqa: S311

        def on_lifetime(reply: object) -> None:
            # A bare EXPIRE is announced to each process that follows the stream: only if needed.
            if isinstance(reply, int) and reply != _MISSING and reply < self._lifetime_s / 2:
                self._ask(
                    expire_command(self._keys.stream(watch.merchant_id), self._lifetime_s), _ignore
                )

        self._ask(lifetime_command(self._keys.stream(watch.merchant_id)), on_lifetime)

    def _look(self) -> None:
        self._unseen = 0
        self._ask(("INFO", "stats"), self._on_statistics)

    def _ask(self, command: Command, on_reply: OnReply) -> None:
        self._requests.append((command, on_reply))

    def _forget(self, now: float) -> None:
        while self._planted_at:
            merchant_id, at = next(iter(self._planted_at.items()))
            if now - at < self._ttl_s:
                return
            del self._planted_at[merchant_id]

    def _spend(self, now: float) -> bool:
        gained = (now - self._allowance_at) * _PLANTS_PER_S
        self._allowance = min(_PLANTS_AT_ONCE, self._allowance + gained)
        self._allowance_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _on_scripts(self, reply: object) -> None:
        self._has_scripts = not isinstance(reply, Exception)

    def _on_planted(self, merchant_id: str, reply: object) -> None:
        if reply and not isinstance(reply, Exception):
            self.tally.outcomes["planted"] += 1
            return
        # The stream has an entry meanwhile, or its key something else, or is on its way to another
        # node; or the connection is lost, or Redis is full or read only.
        self._planted_at.pop(merchant_id, None)
        if isinstance(reply, ErrorReply) and reply.whose not in _OF_ONE_STREAM:
            self.tally.outcomes["refused"] += 1
            self._not_before = max(self._not_before, self._now() + _REFUSED_S)

    def _on_statistics(self, reply: object) -> None:
        evicted = parse_evicted_keys(reply)
        if evicted is None:
            return
        if self._evicted is not None and evicted > self._evicted:
            now = self._now()
            if now >= self._not_before:
                logger.warning("redis evicts keys, nothing is planted pause_s=%d", _AGAIN_S)
            self._not_before = now + _AGAIN_S
            self._unseen += 1
        self._evicted = evicted


_OF_ONE_STREAM = (Whose.STREAM, Whose.ELSEWHERE)

_MISSING = -2
"""The lifetime of a stream that is missing."""


def _ignore(_reply: object) -> None:
    """Do without a reply: the sweep comes again."""
