"""A Redis that tracks fewer keys than are read, so that each read has it announce another key."""

from __future__ import annotations

import time
from pathlib import Path

from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server

STREAMS = 50


async def test_a_tracking_table_that_is_too_small_costs_few_reads_and_delays_no_entry_for_long(
    tmp_path: Path,
) -> None:
    redis = Redis.start(tmp_path, "--tracking-table-max-keys", "10")
    server, merchants = Server(redis.url), [f"m{number}" for number in range(STREAMS)]
    try:
        for merchant in merchants:
            server.add(merchant)
        async with following(redis.url) as followed:
            await followed.watch(*merchants)
            await until(lambda: bool(followed.follower._tail.turns.has_late), "a circle")
            server.cli("CONFIG", "RESETSTAT")
            began_at = time.monotonic()
            await until(lambda: time.monotonic() - began_at > SECOND, "a second of it")
            lasted_s = time.monotonic() - began_at
            reads = server.calls("xrange") + server.calls("xrevrange")
            added_at = time.monotonic()
            await followed.until_newest(server.add("m7"))
            took_s = time.monotonic() - added_at
    finally:
        redis.kill()

    assert reads / lasted_s < 40 * STREAMS
    assert took_s < 2 * SECOND
    assert len(followed.changes) == 1
