"""The parts of one primary, and the terms that they are built on."""

from __future__ import annotations

from unittest.mock import MagicMock

from sse_push.stream import Address, Primary, Terms
from tests.harness.keys import KEYS

TERMS = Terms(
    keys=KEYS,
    bell="pubsub",
    wait_replicas=2,
    data_limit_bytes=1000,
    notify_timeout_s=2,
    stream_max_entries=30,
    stream_ttl_s=4000,
    revocation_lifetime_s=50,
    max_planted=60,
    probe_interval_s=7,
    probe_deadline_s=8,
    deaf_limit_s=9,
    sweep_s=10,
)


async def test_the_parts_of_a_primary_are_built_on_the_terms() -> None:
    address = Address("primary.example", 6380)

    follower, appender = Primary.at(address, MagicMock(), TERMS)

    assert follower.announcing.address is appender._pool.address is address
    assert follower.announcing.kind == "pubsub"
    assert follower.announcing.reply_limit_bytes > 1000
    assert (follower.probe.interval_s, follower.probe.deadline_s) == (7, 8)
    assert follower.probe._deaf_limit_s == 9
    assert follower.probe._adds is appender
    assert follower._rounds._sweep_s == 10
    assert follower.merchants._data_limit_bytes == 1000
    assert (follower.planting._max_planted, follower.planting._ttl_s) == (60, 4000)
    assert (appender._timeout_s, appender._adding._max_entries) == (2, 30)
    assert (appender._adding.lifetimes.lifetime_s, appender._ringer._rings) == (4400, True)
    assert appender._replicas.count == 2
    assert appender._adding._revoke_commands._lifetime_s == 50
