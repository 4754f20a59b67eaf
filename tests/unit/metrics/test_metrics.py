"""The metrics of a process without workers; the integration tests have several."""

from __future__ import annotations

import asyncio
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sse_push import __version__
from sse_push.access.grant import Grant
from sse_push.access.keyless import Keyless
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason, RefusalReason
from sse_push.event_stream import EventStreams, Gaps, wire
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub
from sse_push.metrics import SERIES, Metrics, metrics
from sse_push.notification import EntryId
from sse_push.runtime.readiness import WorkerBoard
from sse_push.runtime.refusals import Refusals
from sse_push.stream import Appender, Follower, parse_address
from sse_push.stream.announcing import Announcing
from sse_push.stream.planting import Planting
from sse_push.stream.probe import ProbePace
from tests.harness.clock import PACE, ManualClock, WatchList
from tests.harness.keys import KEYS
from tests.harness.waiting import SECOND

NOWHERE = parse_address("redis://127.0.0.1:1/0")
PLAIN = ""


class Sink:
    """A client that accepts every frame."""

    def offer(self, _frame: Frame) -> bool:
        return True

    def end(self, reason: EndReason) -> None:
        pass


@dataclass
class Worker:
    """The parts that metrics read, without any connection."""

    hub: Hub[Frame]
    follower: Follower
    appender: Appender
    event_streams: EventStreams
    board: WorkerBoard
    refusals: Refusals
    metrics: Metrics

    def scraped(self, accept: str = PLAIN) -> dict[str, float]:
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
    hub: Hub[Frame] = Hub(
        encode=wire.encode_refreshes,
        encode_expiring=wire.encode_expiring,
        heartbeat=wire.HEARTBEAT,
        pace=PACE,
        revocations=Revocations(3600, 5),
        clock=ManualClock(),
    )
    hub.source = WatchList()
    appender = Appender(
        NOWHERE,
        KEYS,
        timeout_s=1,
        stream_max_entries=100,
        stream_ttl_s=60,
        revocation_lifetime_s=60,
    )
    follower = Follower(
        Announcing(NOWHERE, KEYS.bell, "auto", reply_limit_bytes=1_000_000),
        hub,
        appender,
        Planting(KEYS, max_planted=0, stream_ttl_s=60),
        KEYS,
        ProbePace(3, 6, 20),
        data_limit_bytes=8192,
    )
    event_streams = EventStreams(
        hub=hub,
        gaps=Gaps(follower),
        heartbeat_s=15,
        retry_ms=2000,
        soft_retry_min_ms=5000,
        soft_retry_max_ms=30_000,
        send_timeout_s=15,
        send_buffer_bytes=16_384,
        poll_interval_s=10,
    )
    board = WorkerBoard(tmp_path)
    refusals = Refusals()
    metrics_of_worker = Metrics(
        board,
        tmp_path,
        hub=hub,
        follower=follower,
        appender=appender,
        event_streams=event_streams,
        refusals=refusals,
        keyless=Keyless((), ()),
        connections_limit=15_000,
    )
    return Worker(hub, follower, appender, event_streams, board, refusals, metrics_of_worker)


def base_name(series: str) -> str:
    return series.removesuffix("_total")


async def test_a_scrape_has_every_series_as_declared_and_no_other(worker: Worker) -> None:
    content, media_type = worker.metrics.render(PLAIN)

    assert media_type.startswith("text/plain; version=")
    found = {
        family.name: (family.type, family.documentation)
        for family in text_string_to_metric_families(content.decode())
    }
    assert found == {
        base_name(name): (series.kind, series.meaning) for name, series in SERIES.items()
    }


async def test_every_label_is_in_the_first_scrape_with_zero(worker: Worker) -> None:
    samples = worker.scraped()

    for name, series in SERIES.items():
        if series.kind == "counter":
            named = {key: value for key, value in samples.items() if key.partition("{")[0] == name}
            assert named, name
            assert set(named.values()) == {0}
            assert all(key.count("{") == len(series.labels) for key in named)


async def test_a_scrape_tells_which_version_runs_on_which_python(worker: Worker) -> None:
    python = platform.python_version()

    assert worker.scraped()[f"sse_push_build_info{{{python}}}{{{__version__}}}"] == 1


async def test_a_server_that_prefers_open_metrics_gets_it(worker: Worker) -> None:
    content, media_type = worker.metrics.render("application/openmetrics-text; version=1.0.0")

    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert content.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=x",
        "text/plain; version=1.0.x",
        "application/openmetrics-text; version=; q=1",
        "application/openmetrics-text;version=-.-",
        ";;,=;q=",
    ],
)
async def test_a_server_whose_preference_is_broken_gets_a_scrape(
    worker: Worker, accept: str
) -> None:
    content, media_type = worker.metrics.render(accept)

    assert b"sse_push_connections_open" in content
    assert media_type.startswith(("text/plain; version=", "application/openmetrics-text; version="))


@pytest.mark.parametrize("times", [1, 2])
async def test_a_count_is_copied_once_however_often_the_series_are_updated(
    worker: Worker, times: int
) -> None:
    first = worker.hub.subscribe(Grant("a"), Sink())
    worker.hub.subscribe(Grant("a"), Sink())
    worker.hub.subscribe(Grant("b"), Sink())
    worker.hub.end(first, EndReason.STALLED)
    worker.hub.tally.written = 5
    worker.hub.tally.merged = 6
    worker.hub.tally.skipped = 7
    worker.follower.tally.reconnects = 8
    worker.follower.announcing.kind = "pubsub"
    worker.follower.tally.tail.resyncs["stream_gone"] = 9
    worker.appender.tally.outcomes["unknown"] = 10
    worker.appender.tally.faults["exhausted"] = 14
    worker.follower.planting.tally.outcomes["planted"] = 13
    worker.event_streams.soft_answers[EndReason.SERVER_STOPPING] = 11
    for _ in range(12):
        worker.refusals.add(RefusalReason.NOT_HTTP, "-", "address 192.0.2.1")

    for _ in range(times):
        worker.metrics.update()

    samples = worker.scraped()
    assert {key: value for key, value in samples.items() if value and "age" not in key} == {
        key: 1 for key in samples if key.startswith("sse_push_build_info")
    } | {
        "sse_push_connections_open": 2,
        "sse_push_connections_limit": 15_000,
        "sse_push_merchants_live": 2,
        "sse_push_connections_opened_total": 3,
        "sse_push_connections_closed_total{stalled}": 1,
        "sse_push_refreshes_written_total": 5,
        "sse_push_refreshes_merged_total": 6,
        "sse_push_refreshes_skipped_total": 7,
        "sse_push_tail_reconnects_total": 8,
        "sse_push_pubsub_workers": 1,
        "sse_push_resyncs_total{stream_gone}": 9,
        "sse_push_plants_total{planted}": 13,
        "sse_push_notifications_total{unknown}": 10,
        "sse_push_stream_faults_total{exhausted}": 14,
        "sse_push_soft_answers_total{server_stopping}": 11,
        "sse_push_errors_total{malformed}": 12,
        "sse_push_refusals_total{not_http}": 12,
        "sse_push_event_loop_tasks": len(asyncio.all_tasks()),
    }


async def test_only_the_difference_is_added(worker: Worker) -> None:
    for written in (3, 3, 10):
        worker.hub.tally.written = written
        worker.metrics.update()

    assert worker.scraped()["sse_push_refreshes_written_total"] == 10


async def test_the_lag_of_the_loop_is_the_last_that_was_observed(worker: Worker) -> None:
    worker.metrics.observe_lag(0.75)
    assert worker.scraped()["sse_push_loop_lag_seconds"] == 0.75

    worker.metrics.observe_lag(0)
    assert worker.scraped()["sse_push_loop_lag_seconds"] == 0


def aged(worker: Worker, age_s: float) -> EntryId:
    return EntryId(round((worker.follower.probe.redis_time_s - age_s) * 1000), 0)


def cumulated(samples: dict[str, float]) -> Iterator[tuple[float, float]]:
    for key, value in samples.items():
        name, _, bound = key.partition("{")
        if name == "sse_push_delivery_age_seconds_bucket":
            yield float(bound[:-1]), value


async def test_the_delivery_age_is_by_the_clock_of_redis(worker: Worker) -> None:
    worker.follower.probe._redis_ahead_s -= 1_000_000  # its clock is days behind ours

    for age_s in (0.3, 3, 300):
        worker.metrics.observe_fan_out(aged(worker, age_s))
    worker.metrics.update()
    worker.metrics.update()

    buckets = dict(cumulated(worker.scraped()))
    assert (min(buckets), sorted(buckets)[-2], max(buckets)) == (0.001, 60, math.inf)
    assert [buckets[bound] for bound in (0.2, 0.5, 2, 5, 60, math.inf)] == [0, 1, 1, 2, 2, 3]
    assert worker.scraped()["sse_push_delivery_age_seconds_sum"] == pytest.approx(303.3, abs=1)


async def test_an_entry_of_the_future_is_new(worker: Worker) -> None:
    worker.metrics.observe_fan_out(aged(worker, -500))
    worker.metrics.update()

    samples = worker.scraped()
    assert samples["sse_push_delivery_age_seconds_sum"] == 0
    assert samples["sse_push_delivery_age_seconds_bucket{0.001}"] == 1


async def test_the_clock_of_redis_is_assumed_to_be_right_until_it_is_read(worker: Worker) -> None:
    assert worker.follower.probe.redis_time_s == pytest.approx(time.time(), abs=SECOND)


async def test_the_state_of_a_worker_is_read_from_the_board_and_the_system(worker: Worker) -> None:
    assert worker.scraped()["sse_push_workers_alive"] == 0

    worker.board.write(2.5)

    samples = worker.scraped()
    assert samples["sse_push_workers_alive"] == 1
    assert 2.5 <= samples["sse_push_probe_age_seconds"] < 60
    assert samples["sse_push_resident_memory_bytes"] > 2**20
    assert samples["sse_push_open_fds"] >= 3


@pytest.mark.parametrize(
    "arrange", [ignore, lambda worker: worker.board.write(math.inf)], ids=["nobody", "never"]
)
async def test_a_probe_that_was_never_announced_is_older_than_any_limit(
    worker: Worker, arrange: Callable[[Worker], None]
) -> None:
    arrange(worker)

    assert worker.scraped()["sse_push_probe_age_seconds"] == math.inf


async def test_a_system_without_proc_has_neither_memory_nor_files(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_PROC", tmp_path)

    samples = worker.scraped()

    assert samples["sse_push_workers_alive"] == 0
    assert not {"sse_push_resident_memory_bytes", "sse_push_open_fds"} & set(samples)


def test_a_process_that_has_just_ended_has_neither_memory_nor_files() -> None:
    beyond_every_process_id = 2**22 + 1

    assert metrics._resident_bytes(beyond_every_process_id) == 0
    assert metrics._open_fds(beyond_every_process_id) == 0
