"""The metrics of a process without workers; the integration tests have several."""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from sse_push import metrics
from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocations
from sse_push.errors import EndReason, Refusal
from sse_push.event_stream import EventStreams, Gaps, wire
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub
from sse_push.metrics import SERIES, Metrics, _Files
from sse_push.notification import EntryId
from sse_push.runtime.readiness import WorkerBoard
from sse_push.stream import Appender, Follower, Planting
from tests.harness.clock import PACE, ManualClock, WatchList
from tests.harness.waiting import SECOND

NOWHERE = "redis://127.0.0.1:1/0"
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
    errors: dict[Refusal, int]
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
        timeout_s=1,
        stream_max_entries=100,
        stream_ttl_s=60,
        revocation_lifetime_s=60,
    )
    follower = Follower(
        NOWHERE,
        hub,
        appender,
        Planting(max_planted=0, stream_ttl_s=60),
        reply_limit_bytes=1_000_000,
        data_limit_bytes=8192,
        probe_interval_s=3,
        probe_deadline_s=6,
        deaf_limit_s=20,
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
    )
    board = WorkerBoard(tmp_path)
    errors = dict.fromkeys(Refusal, 0)
    metrics_of_worker = Metrics(
        board,
        tmp_path,
        hub=hub,
        follower=follower,
        appender=appender,
        event_streams=event_streams,
        errors=errors,
        connections_limit=15_000,
    )
    return Worker(hub, follower, appender, event_streams, board, errors, metrics_of_worker)


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
            assert all(("{" in key) == (series.label is not None) for key in named)


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
    worker.follower.tally.tail.resyncs["stream_gone"] = 9
    worker.appender.tally.outcomes["unknown"] = 10
    worker.follower.planting.tally.outcomes["planted"] = 13
    worker.event_streams.soft_answers[EndReason.SERVER_STOPPING] = 11
    worker.errors[Refusal.MALFORMED] = 12

    for _ in range(times):
        worker.metrics.update()

    samples = worker.scraped()
    assert {key: value for key, value in samples.items() if value and "age" not in key} == {
        "sse_push_connections_open": 2,
        "sse_push_connections_limit": 15_000,
        "sse_push_merchants_live": 2,
        "sse_push_connections_opened_total": 3,
        "sse_push_connections_closed_total{stalled}": 1,
        "sse_push_refreshes_written_total": 5,
        "sse_push_refreshes_merged_total": 6,
        "sse_push_refreshes_skipped_total": 7,
        "sse_push_tail_reconnects_total": 8,
        "sse_push_resyncs_total{stream_gone}": 9,
        "sse_push_plants_total{planted}": 13,
        "sse_push_notifications_total{unknown}": 10,
        "sse_push_soft_answers_total{server_stopping}": 11,
        "sse_push_errors_total{malformed}": 12,
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

    buckets = dict(cumulated(worker.scraped()))
    assert (min(buckets), sorted(buckets)[-2], max(buckets)) == (0.001, 60, math.inf)
    assert [buckets[bound] for bound in (0.2, 0.5, 2, 5, 60, math.inf)] == [0, 1, 1, 2, 2, 3]
    assert worker.scraped()["sse_push_delivery_age_seconds_sum"] == pytest.approx(303.3, abs=1)


async def test_an_entry_of_the_future_is_new(worker: Worker) -> None:
    worker.metrics.observe_fan_out(aged(worker, -500))

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


def test_a_process_that_has_just_ended_has_neither_memory_nor_files(tmp_path: Path) -> None:
    beyond_every_process_id = 2**22 + 1

    assert metrics._resident_bytes(beyond_every_process_id) == 0
    assert metrics._open_fds(beyond_every_process_id) == 0
    assert metrics._size_of(tmp_path / "deleted") == 0


# -- the files of several workers


class Files:
    """A folder with the files of workers; ``DEAD`` is the ID of a process that has ended."""

    DEAD = (1, 2)

    def __init__(self, folder: Path) -> None:
        (folder / "metrics").mkdir()
        self.folder = folder / "metrics"
        self.board = WorkerBoard(folder)
        self.board.write(0)
        self.living = os.getpid()
        self.collector = _Files(self.board, self.folder)

    def write(self, kind: str, process_id: int, **values: float) -> None:
        """Write a counter, a gauge or a bucket of a histogram."""
        samples = MmapedDict(str(self.folder / f"{kind}_{process_id}.db"))
        for name, value in values.items():
            series, labels = name, []
            if kind == "histogram":
                series, _, bound = name.partition("_")
                labels = [bound]
            key = mmap_key(
                series, f"{series}_bucket" if labels else name, ["le"][: len(labels)], labels, "-"
            )
            samples.write_value(key, value, 0.0)
        samples.close()

    def scraped(self) -> dict[str, float]:
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in self.collector.collect()
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.db")}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_counts_of_dead_workers_are_kept_in_one_file(files: Files) -> None:
    first, second = files.DEAD
    for process_id in (files.living, first, second):
        files.write("counter", process_id, a=process_id, b=1)
    files.write("counter", second, c=5)

    for _ in range(2):
        assert files.scraped() == {"a": files.living + first + second, "b": 3, "c": 5}
        assert files.names == {f"counter_{files.living}.db", "counter_retired.db"}

    files.write("counter", first, b=7)  # another one, of the same number, has died since

    assert files.scraped() == {"a": files.living + first + second, "b": 10, "c": 5}
    assert files.names == {f"counter_{files.living}.db", "counter_retired.db"}


def test_the_buckets_of_dead_workers_are_added_up(files: Files) -> None:
    for process_id in (files.living, *files.DEAD):
        files.write("histogram", process_id, **{"h_1.0": 2, "h_+Inf": 1})

    for _ in range(2):
        assert files.scraped() == {"h_bucket{1.0}": 6, "h_bucket{+Inf}": 9, "h_count": 9}
    assert files.names == {f"histogram_{files.living}.db", "histogram_retired.db"}


def test_the_gauges_of_dead_workers_are_deleted(files: Files) -> None:
    for process_id in (files.living, *files.DEAD):
        files.write("gauge_livesum", process_id, streams=process_id)
        files.write("gauge_livemax", process_id, lag=0 if process_id == files.living else 9)

    assert files.scraped() == {"streams": files.living, "lag": 0}
    assert files.names == {f"gauge_live{each}_{files.living}.db" for each in ("sum", "max")}


@pytest.mark.parametrize("process_id", ["living", *Files.DEAD])
def test_a_file_that_is_not_filled_yet_adds_nothing(files: Files, process_id: int | str) -> None:
    files.write("counter", files.living, a=3)
    number = files.living if process_id == "living" else process_id
    (files.folder / f"histogram_{number}.db").touch()

    assert files.scraped() == {"a": 3}


def test_a_worker_that_is_stuck_with_the_lock_keeps_no_other_from_answering(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_LOCK_TRIES", 2)
    files.write("counter", files.living, a=3)
    files.write("counter", files.DEAD[0], a=4)

    with (files.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert files.scraped() == {"a": 7}
        assert "counter_retired.db" not in files.names

    assert files.scraped() == {"a": 7}
    assert "counter_retired.db" in files.names


def test_two_workers_that_answer_at_the_same_time_do_not_wait_for_each_other(files: Files) -> None:
    files.write("counter", files.living, a=3)

    with (files.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        began_at = time.monotonic()
        assert files.scraped() == {"a": 3}

    assert time.monotonic() - began_at < SECOND
