"""Metrics for Prometheus: the sum over all workers, whichever worker answers the scrape.

The only module that imports prometheus-client. The parts of the service count, as plain integers
(``hub.tally`` and so on). This module copies these once a second, so that counting a delivery costs
no call of the library.

Each worker keeps its numbers in files of one folder (the library's multiprocess mode), and the
worker that answers adds them up. A stuck worker could not report its own probe age
or memory: the worker that answers reads these from the board and from ``/proc``.

https://prometheus.github.io/client_python/multiprocess/
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sse_push.errors import Refusal
from sse_push.event_stream import EventStreams
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub
from sse_push.notification import EntryId
from sse_push.runtime.metrics_folder import SHARED, is_shared
from sse_push.runtime.readiness import WorkerBoard
from sse_push.stream import Appender, Follower

_AGE_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0),
)
_RETIRED = "retired"
"""The name, instead of a process ID, of the files that hold the counts of all dead workers."""

_LOCK_STEP_S = 0.01
_LOCK_TRIES = 100
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


class Series(NamedTuple):
    """One series: its type, its meaning, and its label, as in the documentation."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    label: str | None = None


SERIES: dict[str, Series] = {
    "sse_push_connections_open": Series("gauge", "open connections"),
    "sse_push_connections_limit": Series("gauge", "maximum number of connections"),
    "sse_push_connections_opened_total": Series("counter", "connections opened"),
    "sse_push_connections_closed_total": Series("counter", "connections ended", "reason"),
    "sse_push_soft_answers_total": Series("counter", "clients asked to come back later", "reason"),
    "sse_push_merchants_live": Series("gauge", "merchants with a connection, once per worker"),
    "sse_push_notifications_total": Series(
        "counter", "notifications, by their outcome in Redis", "outcome"
    ),
    "sse_push_errors_total": Series(
        "counter", "error answers, and refused items of an array, by code", "error"
    ),
    "sse_push_refreshes_written_total": Series("counter", "refreshes handed to connections"),
    "sse_push_refreshes_merged_total": Series(
        "counter", "refreshes merged into another refresh before they were written"
    ),
    "sse_push_refreshes_skipped_total": Series(
        "counter", "refreshes left in the slot of a connection that accepted no bytes at that time"
    ),
    "sse_push_delivery_age_seconds": Series(
        "histogram", "age of the newest entry when its fan-out begins, by the clock of Redis"
    ),
    "sse_push_probe_age_seconds": Series(
        "gauge",
        "time since the worst worker saw Redis announce a probe, and knew which tokens are "
        "revoked; +Inf: never, or Redis refuses reads",
    ),
    "sse_push_tail_reconnects_total": Series(
        "counter", "replaced connections to Redis on which changes are announced"
    ),
    "sse_push_resyncs_total": Series(
        "counter",
        "merchants' streams that could not be continued, so that every client had to refetch",
        "reason",
    ),
    "sse_push_plants_total": Series("counter", "entries planted, or refused by Redis", "outcome"),
    "sse_push_loop_lag_seconds": Series(
        "gauge", "delay of the event loop in the last second, in the worst worker"
    ),
    "sse_push_event_loop_tasks": Series("gauge", "tasks in the event loops"),
    "sse_push_workers_alive": Series("gauge", "live workers"),
    "sse_push_resident_memory_bytes": Series("gauge", "resident memory of the workers; Linux only"),
    "sse_push_open_fds": Series("gauge", "open file descriptors of the workers; Linux only"),
}
"""Every series, in the order of the documentation."""


class Metrics:
    """The series of one worker, and the answer to a scrape for all workers.

    Belongs to the event loop, except ``render``, which may run in any thread.
    """

    def __init__(
        self,
        board: WorkerBoard,
        folder: Path,
        *,
        hub: Hub[Frame],
        follower: Follower,
        appender: Appender,
        event_streams: EventStreams,
        errors: Mapping[Refusal, int],
        connections_limit: int,
    ) -> None:
        disable_created_metrics()
        self._hub = hub
        self._follower = follower
        self._appender = appender
        self._event_streams = event_streams
        self._errors = errors
        self._own = CollectorRegistry()
        self._answer = self._own
        # prometheus-client decides as it is imported, which may be before there is a folder.
        values.ValueClass = values.MultiProcessValue() if is_shared() else values.MutexValue
        if is_shared():
            self._answer = CollectorRegistry()
            self._answer.register(_Files(board, folder / SHARED))
        self._answer.register(_Workers(board))
        self._copied: dict[tuple[str, str], int] = {}
        """The count of each series, by name and label, at the last update."""
        self._counters = {
            name: self._counter(name) for name, each in SERIES.items() if each.kind == "counter"
        }
        self._connections = self._gauge("sse_push_connections_open", "livesum")
        self._gauge("sse_push_connections_limit", "livesum").set(connections_limit)
        self._merchants = self._gauge("sse_push_merchants_live", "livesum")
        self._tasks = self._gauge("sse_push_event_loop_tasks", "livesum")
        self._lag = self._gauge("sse_push_loop_lag_seconds", "livemax")
        age = "sse_push_delivery_age_seconds"
        self._age = Histogram(age, SERIES[age].meaning, registry=self._own, buckets=_AGE_BUCKETS_S)
        self.update()

    def observe_fan_out(self, newest: EntryId) -> None:
        """Observe the age of the newest entry of a fan-out that begins."""
        self._age.observe(max(0.0, self._follower.probe.redis_time_s - newest.ms / 1000))

    def observe_lag(self, lag_s: float) -> None:
        """Observe how late the event loop was."""
        self._lag.set(lag_s)

    def update(self) -> None:
        """Bring the series up to date with the counts and the current state of the parts."""
        for name, label, count in self._counts():
            self._increase(name, label, count)
        self._connections.set(len(self._hub))
        self._merchants.set(self._hub.merchant_count)
        self._tasks.set(len(asyncio.all_tasks()))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the answer to a scrape, and its media type: the plain one for a broken header."""
        encode, media_type = choose_encoder("")
        with contextlib.suppress(TypeError, ValueError):  # a version that is no number
            encode, media_type = choose_encoder(accept)
        return encode(self._answer), media_type

    def _counts(self) -> Iterator[tuple[str, str, int]]:
        hub, tail = self._hub.tally, self._follower.tally
        yield "sse_push_connections_opened_total", "", hub.opened
        for end in hub.closed:
            yield "sse_push_connections_closed_total", end.value, hub.closed[end]
        for reason, count in self._event_streams.soft_answers.items():
            yield "sse_push_soft_answers_total", reason.value, count
        for outcome, count in self._appender.tally.outcomes.items():
            yield "sse_push_notifications_total", outcome, count
        for error, count in self._errors.items():
            yield "sse_push_errors_total", error.value, count
        yield "sse_push_refreshes_written_total", "", hub.written
        yield "sse_push_refreshes_merged_total", "", hub.merged
        yield "sse_push_refreshes_skipped_total", "", hub.skipped
        yield "sse_push_tail_reconnects_total", "", tail.reconnects
        yield from (("sse_push_resyncs_total", *each) for each in tail.tail.resyncs.items())
        yield from (("sse_push_plants_total", *each) for each in tail.plants.outcomes.items())

    def _increase(self, name: str, label: str, count: int) -> None:
        copied = self._copied.get((name, label))
        if count != copied:  # None at first, so that each label is in the first scrape, with 0
            counter = self._counters[name]
            (counter.labels(label) if label else counter).inc(count - (copied or 0))
            self._copied[name, label] = count

    def _counter(self, name: str) -> Counter:
        series = SERIES[name]
        labels = () if series.label is None else (series.label,)
        return Counter(name, series.meaning, labels, registry=self._own)

    def _gauge(self, name: str, mode: Literal["livesum", "livemax"]) -> Gauge:
        return Gauge(name, SERIES[name].meaning, multiprocess_mode=mode, registry=self._own)


class _Files(Collector):
    """The files of all workers: the gauges of the living, the counters of all."""

    def __init__(self, board: WorkerBoard, folder: Path) -> None:
        self._board = board
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the sums over all files."""
        with _locked(self._folder / "lock", fcntl.LOCK_EX, tries=1) as is_alone:
            if is_alone:
                self._retire_the_dead()
        with _locked(self._folder / "lock", fcntl.LOCK_SH, tries=_LOCK_TRIES):
            # A worker that has just started has created its file, and not filled it yet.
            files = [str(path) for path in self._folder.glob("*.db") if _size_of(path) > 0]
            return cast("Iterable[Metric]", MultiProcessCollector.merge(files))

    def _retire_the_dead(self) -> None:
        """Delete dead workers' gauges, and add their counts to one file of all dead workers.

        Otherwise a worker that dies again and again would leave ever more files to read.
        """
        # Files first, board second: a worker is on the board before it has files.
        files = [path for path in self._folder.glob("*_*.db") if not _is_retired(path)]
        living = self._board.living()
        for path in files:
            kind, _, process_id = path.stem.rpartition("_")
            if int(process_id) not in living:
                if kind in ("counter", "histogram") and _size_of(path) > 0:
                    _add(path, path.with_name(f"{kind}_{_RETIRED}.db"))
                path.unlink(missing_ok=True)


class _Workers(Collector):
    """The values that are read from outside of each worker, so that stuck workers are included."""

    def __init__(self, board: WorkerBoard) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        """Return the sums, or the worst value, over the living workers."""
        living = self._board.living()
        yield _family("sse_push_workers_alive", len(living))
        yield _family("sse_push_probe_age_seconds", max(living.values(), default=float("inf")))
        if _PROC.joinpath("self", "statm").exists():
            yield _family("sse_push_resident_memory_bytes", sum(map(_resident_bytes, living)))
            yield _family("sse_push_open_fds", sum(map(_open_fds, living)))


def _is_retired(path: Path) -> bool:
    return path.stem.endswith(f"_{_RETIRED}")


def _add(source: Path, target: Path) -> None:
    # MmapedDict is not documented; read from prometheus-client 0.26.0. The last argument of
    # write_value is the time of a gauge, which a counter does not have.
    total = MmapedDict(str(target))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, 0.0)
    finally:
        total.close()


@contextmanager
def _locked(path: Path, mode: int, *, tries: int) -> Generator[bool]:
    """Hold a lock, or yield False after some tries: its holder may be stuck for ever."""
    with path.open("a") as lock:
        is_held = False
        for number in range(tries):
            if number:
                time.sleep(_LOCK_STEP_S)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, mode | fcntl.LOCK_NB)
                is_held = True
                break
        yield is_held


def _family(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, SERIES[name].meaning, value)


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


# https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
def _resident_bytes(process_id: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int((_PROC / str(process_id) / "statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _open_fds(process_id: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return sum(1 for _ in (_PROC / str(process_id) / "fd").iterdir())
    return 0
