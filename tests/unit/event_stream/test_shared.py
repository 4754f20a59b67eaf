from __future__ import annotations

import asyncio
import dataclasses
import math

from sse_push.errors import EndReason, Occasion
from sse_push.event_stream import EventStreams
from sse_push.event_stream.shared import SOFT_ANSWER_HEADER, cut_time
from tests.harness.waiting import SECOND
from tests.unit.event_stream.service import Serve, Service


async def test_reconnection_times_are_spread_by_half(serve: Serve) -> None:
    streams = serve(retry_ms=2000).streams

    times = {streams.jittered_retry_ms() for _ in range(1000)}

    assert min(times) >= 1000
    assert max(times) <= 3000
    assert len(times) > 300


async def test_polls_are_spread_by_half_in_whole_seconds_without_zero(service: Service) -> None:
    fast = dataclasses.replace(service.streams, poll_interval_s=1)

    assert {service.streams.jittered_poll_s() for _ in range(1000)} == {*range(6, 16)}
    assert {fast.jittered_poll_s() for _ in range(1000)} == {1, 2}


def test_ready_waits_for_redis_for_half_a_second() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(EventStreams)}

    assert fields["arm_timeout_s"] == 0.5


async def test_a_soft_answer_asks_a_client_to_reconnect_later(service: Service) -> None:
    answers = [service.streams.soft_answer(EndReason.SERVER_STOPPING) for _ in range(200)]

    retries = {bytes(answer.body).partition(b"\n")[0] for answer in answers}
    assert retries == {b"retry: 5000", b"retry: 5001", b"retry: 5002", b"retry: 5003"}
    assert answers[0].status_code == 200
    assert bytes(answers[0].body).partition(b"\n")[2] == (
        b'event: goodbye\ndata: {"reason":"server_stopping"}\n\n'
    )
    assert answers[0].headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answers[0].headers["cache-control"] == "no-store, no-transform"
    assert answers[0].headers["x-accel-buffering"] == "no"
    assert answers[0].headers[SOFT_ANSWER_HEADER] == "1"
    assert +service.streams.soft_answers == {EndReason.SERVER_STOPPING: 200}


async def test_a_connection_is_cut_off_when_its_grant_expires() -> None:
    for reason in set(EndReason.on(Occasion.END)) - {EndReason.REVOKED}:
        assert cut_time(reason, 7.5) == 7.5
        assert cut_time(reason, math.inf) == math.inf


async def test_a_revoked_connection_is_cut_off_soon_or_when_its_grant_expires() -> None:
    now = asyncio.get_running_loop().time()

    assert cut_time(EndReason.REVOKED, now - 1) == now - 1
    assert now + 0.5 <= cut_time(EndReason.REVOKED, math.inf) < now + 0.5 + SECOND
