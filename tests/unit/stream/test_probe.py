"""The probe, with what it asks answered by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sse_push.stream.probe import Probe
from sse_push.stream.replies import Refusals


async def test_a_connection_that_is_lost_while_the_probe_reads_is_no_refusal() -> None:
    lost, refusals = RedisConnectionError("cut"), Refusals()

    async def ask(_command: object) -> object:
        return lost

    unused = cast("Any", None)
    probe = Probe(
        ask, lambda: 0, unused, unused, refusals, interval_s=1, deadline_s=60, deaf_limit_s=60
    )

    with pytest.raises(RedisConnectionError) as raised:
        await probe.check(b"run_id:1")

    assert raised.value is lost
    assert not refusals
