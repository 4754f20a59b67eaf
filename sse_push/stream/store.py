"""Redis as the rest of a process sees it, whether it is one server or a cluster.

Knows which URL is for which. Does not know what its parts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sse_push.notification import Entry, EntryId, EventId
from sse_push.stream.bell import BellKind
from sse_push.stream.cluster import Cluster
from sse_push.stream.cluster_append import ClusterAppender
from sse_push.stream.follow import FollowTally
from sse_push.stream.listener import Listener
from sse_push.stream.outcomes import AppendTally, Record, Result
from sse_push.stream.primary import Primary, Terms
from sse_push.stream.seeds import Seeds, is_cluster
from sse_push.stream.sentinel import Login, parse_address


class Follows(Protocol):
    """Follows all streams that somebody watches; a ``Follower``, or a ``Cluster``."""

    @property
    def age_s(self) -> float:
        """Seconds since it was last proved that every change is found; infinite if never."""

    @property
    def primaries_away(self) -> tuple[str, ...]:
        """The places of the primaries of a cluster that take no entries, be it all of them."""

    @property
    def is_well(self) -> bool:
        """Whether another process would do no better."""

    @property
    def redis_time_s(self) -> float:
        """The time by the clock of Redis, in seconds since 1970, as in new entry IDs."""

    @property
    def bell(self) -> BellKind:
        """By which changes are heard of."""

    @property
    def tally(self) -> FollowTally:
        """What was counted; the numbers only rise."""

    @property
    def knows_revocations(self) -> bool:
        """Whether all revocations have been passed on that are older than a short while."""

    async def wait_for_revocations(self, timeout_s: float) -> bool:
        """Return ``knows_revocations``, after waiting at most ``timeout_s`` for them to be read."""

    def watch(self, merchant_id: str) -> None:
        """Follow a merchant's stream from now on."""

    def unwatch(self, merchant_id: str) -> None:
        """Follow a merchant's stream no longer."""

    async def between(
        self, merchant_id: str, start: EntryId, end: EntryId
    ) -> tuple[Entry, ...] | None:
        """Return the entries after ``start`` up to ``end``; None if some may be missing."""

    async def give_up_if_deaf(self) -> None:
        """Watch, for ever, whether announcements still arrive."""

    async def run(self) -> None:
        """Follow, for ever."""


class Adds(Protocol):
    """Adds records to their streams; an ``Appender``, or a ``ClusterAppender``."""

    tally: AppendTally

    async def append(self, record: Record) -> EventId:
        """Add one record, and return the ID of its entry, and the history that has it."""

    async def append_all(self, records: Sequence[Record]) -> list[Result]:
        """Add several records at once; return the result of each, in their order."""

    async def run(self) -> None:
        """Send the records that arrive, for ever."""


class Store(NamedTuple):
    """What follows the streams, and what adds to them; neither runs yet."""

    follower: Follows
    appender: Adds

    @classmethod
    def at(cls, url: str, login: Login, listener: Listener, terms: Terms) -> Store:
        """Return both for a URL that ``settings`` has accepted; called in the event loop."""
        if not is_cluster(url):
            return cls(*Primary.at(parse_address(url, login), listener, terms))
        cluster = Cluster(Seeds.parse(url), listener, terms)
        timeout_s = terms.notify_timeout_s
        return cls(
            cluster, ClusterAppender(cluster, terms.keys, cluster.appended, timeout_s=timeout_s)
        )
