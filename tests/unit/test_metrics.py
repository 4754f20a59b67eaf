"""What is told of what was counted, in a process that is alone; ``integration`` has several."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sse_push import wire
from sse_push.event_stream import Streaming
from sse_push.hub import EndReason, Hub
from sse_push.metrics import SERIES, Metrics
from sse_push.notification import EntryId
from sse_push.readiness import Board
from sse_push.stream import Appender, Follower
from sse_push.wire import Frame
from tests.unit.simulation import ManualClock
from tests.unit.test_hub import PACE, WatchList

NOWHERE = "redis://127.0.0.1:1/0"
PLAIN = ""


class Sink:
    """A client that takes everything."""

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, reason: EndReason) -> None:
        pass


@dataclass
class Worker:
    """What metrics are made of, none of it connected to anything."""

    hub: Hub[Frame]
    follower: Follower
    appender: Appender
    streaming: Streaming
    board: Board
    errors: dict[str, int]
    metrics: Metrics

    def told(self, accept: str = PLAIN) -> dict[str, float]:
        """Return the samples of a scrape: ``name`` or ``name{label value}``."""
        content, _ = self.metrics.render(accept)
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(content.decode())
            for sample in family.samples
        }


def ignore(*_: object) -> None:
    pass


@pytest.fixture
async def worker(tmp_path: Path) -> Worker:
    hub: Hub[Frame] = Hub(WatchList(), wire.encode_refreshes, wire.HEARTBEAT, PACE, ManualClock())
    follower = Follower(
        NOWHERE,
        on_armed=ignore,
        on_change=ignore,
        data_limit_bytes=8192,
        probe_interval_s=3,
        probe_deadline_s=6,
        deaf_limit_s=20,
    )
    appender = Appender(NOWHERE, timeout_s=1, stream_max_entries=100, stream_ttl_s=60)
    streaming = Streaming(
        hub=hub,
        archive=follower,
        heartbeat_s=15,
        retry_ms=2000,
        soft_retry_min_ms=5000,
        soft_retry_max_ms=30_000,
        send_timeout_s=15,
        send_buffer_bytes=16_384,
    )
    board = Board(tmp_path)
    errors = {"malformed": 0}
    metrics = Metrics(
        board,
        tmp_path,
        hub=hub,
        follower=follower,
        appender=appender,
        streaming=streaming,
        errors=errors,
    )
    return Worker(hub, follower, appender, streaming, board, errors, metrics)


def base_name(series: str) -> str:
    return series.removesuffix("_total")


async def test_a_scrape_has_every_series_as_it_is_declared_and_no_other(worker: Worker) -> None:
    content, media_type = worker.metrics.render(PLAIN)

    assert media_type.startswith("text/plain; version=")
    found = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(content.decode())
    }
    assert found == {
        base_name(name): (series.kind, series.meaning) for name, series in SERIES.items()
    }


async def test_every_label_is_there_from_the_beginning_with_zero(worker: Worker) -> None:
    told = worker.told()

    for name, series in SERIES.items():
        if series.kind == "counter":
            samples = {key: value for key, value in told.items() if key.partition("{")[0] == name}
            assert samples, name
            assert set(samples.values()) == {0}
            assert all(("{" in key) == (series.label is not None) for key in samples)


async def test_open_metrics_is_spoken_to_whoever_asks_for_it(worker: Worker) -> None:
    content, media_type = worker.metrics.render("application/openmetrics-text; version=1.0.0")

    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert content.endswith(b"# EOF\n")


@pytest.mark.parametrize("times", [1, 2])
async def test_what_was_counted_is_copied_once_however_often_it_is_looked_at(
    worker: Worker, times: int
) -> None:
    first = worker.hub.subscribe("a", Sink())
    worker.hub.subscribe("a", Sink())
    worker.hub.subscribe("b", Sink())
    worker.hub.end(first, EndReason.STALLED)
    worker.hub.tally.written = 5
    worker.hub.tally.merged = 6
    worker.hub.tally.skipped = 7
    worker.follower.tally.reconnects = 8
    worker.follower.tally.tail.resyncs["stream_gone"] = 9
    worker.appender.tally.outcomes["unknown"] = 10
    worker.streaming.soft_answers["server_stopping"] = 11
    worker.errors["malformed"] = 12

    for _ in range(times):
        worker.metrics.copy()

    told = worker.told()
    assert {key: value for key, value in told.items() if value and "age" not in key} == {
        "sse_push_streams_open": 2,
        "sse_push_merchants_live": 2,
        "sse_push_streams_opened_total": 3,
        "sse_push_streams_closed_total{stalled}": 1,
        "sse_push_refreshes_written_total": 5,
        "sse_push_refreshes_merged_total": 6,
        "sse_push_refreshes_skipped_total": 7,
        "sse_push_tail_reconnects_total": 8,
        "sse_push_resyncs_total{stream_gone}": 9,
        "sse_push_notifications_total{unknown}": 10,
        "sse_push_soft_answers_total{server_stopping}": 11,
        "sse_push_errors_total{malformed}": 12,
        "sse_push_event_loop_tasks": len(asyncio.all_tasks()),
    }


async def test_only_the_difference_is_added(worker: Worker) -> None:
    for written in (3, 3, 10):
        worker.hub.tally.written = written
        worker.metrics.copy()

    assert worker.told()["sse_push_refreshes_written_total"] == 10


async def test_a_tick_tells_how_late_the_loop_was(worker: Worker) -> None:
    worker.metrics.tick(0.75)
    assert worker.told()["sse_push_loop_lag_seconds"] == 0.75

    worker.metrics.tick(0)
    assert worker.told()["sse_push_loop_lag_seconds"] == 0


def aged(worker: Worker, age_s: float) -> EntryId:
    return EntryId(round((worker.follower.redis_time_s - age_s) * 1000), 0)


def cumulated(told: dict[str, float]) -> Iterator[tuple[float, float]]:
    for key, value in told.items():
        name, _, bound = key.partition("{")
        if name == "sse_push_delivery_age_seconds_bucket":
            yield float(bound[:-1]), value


async def test_the_delivery_age_is_by_the_clock_of_redis(worker: Worker) -> None:
    worker.follower._redis_ahead_s -= 1_000_000  # its clock is days behind ours

    for age_s in (0.3, 3, 300):
        worker.metrics.fan_out_begins(aged(worker, age_s))

    buckets = dict(cumulated(worker.told()))
    assert (min(buckets), sorted(buckets)[-2], max(buckets)) == (0.001, 60, math.inf)
    assert [buckets[bound] for bound in (0.2, 0.5, 2, 5, 60, math.inf)] == [0, 1, 1, 2, 2, 3]
    assert worker.told()["sse_push_delivery_age_seconds_sum"] == pytest.approx(303.3, abs=1)


async def test_an_entry_of_the_future_is_new(worker: Worker) -> None:
    worker.metrics.fan_out_begins(aged(worker, -500))

    told = worker.told()
    assert told["sse_push_delivery_age_seconds_sum"] == 0
    assert told["sse_push_delivery_age_seconds_bucket{0.001}"] == 1


async def test_until_redis_has_told_its_time_ours_is_as_good(worker: Worker) -> None:
    assert worker.follower.redis_time_s == pytest.approx(time.time(), abs=1)


async def test_a_worker_is_seen_from_outside(worker: Worker) -> None:
    assert worker.told()["sse_push_workers_alive"] == 0

    worker.board.write(2.5)

    told = worker.told()
    assert told["sse_push_workers_alive"] == 1
    assert 2.5 <= told["sse_push_probe_age_seconds"] < 60
    assert told["sse_push_resident_memory_bytes"] > 2**20
    assert told["sse_push_open_fds"] >= 3


@pytest.mark.parametrize(
    "arrange", [ignore, lambda worker: worker.board.write(math.inf)], ids=["nobody", "never"]
)
async def test_a_probe_that_never_came_back_is_above_every_limit(
    worker: Worker, arrange: Callable[[Worker], None]
) -> None:
    arrange(worker)

    assert worker.told()["sse_push_probe_age_seconds"] == math.inf
