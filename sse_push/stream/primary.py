"""One primary, and all that a process does with it: what follows its streams, and what adds there.

Knows the parts of a primary by their constructors. Does not know what they do, nor which merchants'
streams the primary has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from sse_push.stream.address import Address
from sse_push.stream.announcing import Announcing
from sse_push.stream.append import Appender
from sse_push.stream.bell import BellChoice
from sse_push.stream.follow import Follower
from sse_push.stream.keys import Keys
from sse_push.stream.listener import Listener
from sse_push.stream.moving import Membership
from sse_push.stream.outcomes import AppendTally
from sse_push.stream.planting import Planting
from sse_push.stream.probe import ProbePace
from sse_push.stream.reads import reply_limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a process works with each primary: settings of the same names."""

    keys: Keys
    bell: BellChoice
    wait_replicas: int
    data_limit_bytes: int
    notify_timeout_s: float
    stream_max_entries: int
    stream_ttl_s: float
    revocation_lifetime_s: float
    max_planted: int
    probe_interval_s: float
    probe_deadline_s: float
    deaf_limit_s: float
    sweep_s: float | None


class Primary(NamedTuple):
    """What follows the streams of a primary, and what adds to them; neither runs yet."""

    follower: Follower
    appender: Appender

    @classmethod
    def at(
        cls,
        address: Address,
        listener: Listener,
        terms: Terms,
        membership: Membership | None = None,
        tally: AppendTally | None = None,
    ) -> Self:
        """Return the parts for the primary at an address; called in the event loop.

        In a cluster the primary has a ``membership``, and all primaries count in one ``tally``.
        """
        keys = terms.keys
        appender = appender_at(address, terms, tally)
        limit_bytes = reply_limit_bytes(terms.data_limit_bytes)
        follower = Follower(
            Announcing(address, keys.bell, terms.bell, reply_limit_bytes=limit_bytes),
            listener,
            appender,
            Planting(keys, max_planted=terms.max_planted, stream_ttl_s=terms.stream_ttl_s),
            keys,
            ProbePace(terms.probe_interval_s, terms.probe_deadline_s, terms.deaf_limit_s),
            data_limit_bytes=terms.data_limit_bytes,
            sweep_s=terms.sweep_s,
            membership=membership,
        )
        return cls(follower, appender)


def appender_at(address: Address, terms: Terms, tally: AppendTally | None = None) -> Appender:
    """Return what adds to the streams of the server at an address."""
    return Appender(
        address,
        terms.keys,
        timeout_s=terms.notify_timeout_s,
        stream_max_entries=terms.stream_max_entries,
        stream_ttl_s=terms.stream_ttl_s,
        revocation_lifetime_s=terms.revocation_lifetime_s,
        bell=terms.bell,
        tally=tally,
        wait_replicas=terms.wait_replicas,
    )
