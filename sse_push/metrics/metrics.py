"""The numbers of one worker, copied from its parts, and the answer for all workers.

Knows where each number is counted. A stuck worker could not report its own probe age or memory: the
worker that answers reads these from the board and from ``/proc``. Does not know what the others'
files look like.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sse_push import __version__
from sse_push.access.keyless import Keyless
from sse_push.event_stream import EventStreams
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub
from sse_push.metrics.files import AllFiles, own_files
from sse_push.metrics.series import SERIES
from sse_push.notification import EntryId
from sse_push.runtime.metrics_folder import SHARED, is_shared
from sse_push.runtime.readiness import WorkerBoard
from sse_push.runtime.refusals import Refusals
from sse_push.stream import Adds, Follows

_AGE_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0),
)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


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
        follower: Follows,
        appender: Adds,
        event_streams: EventStreams,
        refusals: Refusals,
        keyless: Keyless,
        connections_limit: int,
    ) -> None:
        disable_created_metrics()
        self._hub = hub
        self._follower = follower
        self._appender = appender
        self._event_streams = event_streams
        self._refusals = refusals
        self._keyless = keyless
        self._own = CollectorRegistry()
        self._files = own_files(folder / SHARED if is_shared() else None)
        self._answer = self._registry_of_all(board, folder)
        self._copied: dict[tuple[str, str], int] = {}
        """The count of each series, by name and label, at the last update."""
        counters = (name for name, each in SERIES.items() if each.kind == "counter")
        self._counters = {name: self._counter(name) for name in counters}
        self._connections = self._gauge("sse_push_connections_open", "livesum")
        self._limit = self._gauge("sse_push_connections_limit", "livesum")
        self._connections_limit = connections_limit
        self._merchants = self._gauge("sse_push_merchants_live", "livesum")
        self._tasks = self._gauge("sse_push_event_loop_tasks", "livesum")
        self._pubsub = self._gauge("sse_push_pubsub_workers", "livesum")
        self._away = self._gauge("sse_push_primaries_away", "livemax")
        self._lag = self._gauge("sse_push_loop_lag_seconds", "livemax")
        self._age = self._histogram("sse_push_delivery_age_seconds")
        self._ages = [0] * (len(_AGE_BUCKETS_S) + 1)
        """The ages since the last update, by bucket."""
        self._age_sum_s = 0.0
        self.update()

    def _registry_of_all(self, board: WorkerBoard, folder: Path) -> CollectorRegistry:
        registry = self._own if self._files is None else CollectorRegistry()
        if self._files is not None:
            registry.register(AllFiles(board, folder / SHARED))
        registry.register(_Workers(board))
        return registry

    def observe_fan_out(self, newest: EntryId) -> None:
        """Observe the age of the newest entry of a fan-out that begins."""
        age_s = max(0.0, self._follower.redis_time_s - newest.ms / 1000)
        self._ages[bisect_left(_AGE_BUCKETS_S, age_s)] += 1
        self._age_sum_s += age_s

    def observe_lag(self, lag_s: float) -> None:
        """Observe how late the event loop was."""
        self._lag.set(lag_s)

    def update(self) -> None:
        """Bring the series up to date with the counts and the current state of the parts."""
        if self._files is not None and self._files.are_new():
            self._copied.clear()
        for name, label, count in self._counts():
            self._increase(name, label, count)
        self._copy_ages()
        self._limit.set(self._connections_limit)
        self._connections.set(len(self._hub))
        self._merchants.set(self._hub.merchant_count)
        self._tasks.set(len(asyncio.all_tasks()))
        self._pubsub.set(self._follower.bell == "pubsub")
        self._away.set(len(self._follower.primaries_away))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the answer to a scrape, and its media type: the plain one for a broken header."""
        encode, media_type = choose_encoder("")
        with contextlib.suppress(TypeError, ValueError):  # a version that is no number
            encode, media_type = choose_encoder(accept)
        return encode(self._answer), media_type

    def _counts(self) -> Iterator[tuple[str, str, int]]:
        hub, tail, appended = self._hub.tally, self._follower.tally, self._appender.tally
        yield "sse_push_connections_opened_total", "", hub.opened
        for end in hub.closed:
            yield "sse_push_connections_closed_total", end.value, hub.closed[end]
        for reason, count in self._event_streams.soft_answers.items():
            yield "sse_push_soft_answers_total", reason.value, count
        for outcome, count in appended.outcomes.items():
            yield "sse_push_notifications_total", outcome, count
        yield from (("sse_push_stream_faults_total", *each) for each in appended.faults.items())
        for code, count in self._refusals.codes.items():
            yield "sse_push_errors_total", code.value, count
        for why, count in self._refusals.reasons.items():
            yield "sse_push_refusals_total", why.value, count
        yield "sse_push_swoole_requests_total", "", self._keyless.admitted
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

    def _copy_ages(self) -> None:
        # The library observes one value at a time, at 5 µs in a file. Read from version 0.26.0.
        for number, count in enumerate(self._ages):
            if count:
                self._age._buckets[number].inc(count)  # noqa: SLF001
        if self._age_sum_s:
            self._age._sum.inc(self._age_sum_s)  # noqa: SLF001
        self._ages = [0] * len(self._ages)
        self._age_sum_s = 0.0

    def _counter(self, name: str) -> Counter:
        series = SERIES[name]
        return Counter(name, series.meaning, series.labels, registry=self._own)

    def _histogram(self, name: str) -> Histogram:
        meaning = SERIES[name].meaning
        return Histogram(name, meaning, registry=self._own, buckets=_AGE_BUCKETS_S)

    def _gauge(self, name: str, mode: Literal["livesum", "livemax"]) -> Gauge:
        return Gauge(name, SERIES[name].meaning, multiprocess_mode=mode, registry=self._own)


class _Workers(Collector):
    """The values that are read from outside of each worker, so that stuck workers are included."""

    def __init__(self, board: WorkerBoard) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        """Return the sums, or the worst value, over the living workers."""
        living = self._board.living()
        yield _build_info()
        yield _family("sse_push_workers_alive", len(living))
        yield _family("sse_push_probe_age_seconds", max(living.values(), default=float("inf")))
        if _PROC.joinpath("self", "statm").exists():
            yield _family("sse_push_resident_memory_bytes", sum(map(_resident_bytes, living)))
            yield _family("sse_push_open_fds", sum(map(_open_fds, living)))


def _build_info() -> GaugeMetricFamily:
    series = SERIES["sse_push_build_info"]
    family = GaugeMetricFamily("sse_push_build_info", series.meaning, labels=series.labels)
    family.add_metric((__version__, platform.python_version()), 1)
    return family


def _family(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, SERIES[name].meaning, value)


# https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
def _resident_bytes(process_id: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int((_PROC / str(process_id) / "statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _open_fds(process_id: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return sum(1 for _ in (_PROC / str(process_id) / "fd").iterdir())
    return 0
