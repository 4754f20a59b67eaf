"""Every series: its type, its meaning and its labels, as the documentation has them.

Knows the words. Does not know where a number comes from.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Series(NamedTuple):
    """One series: its type, its meaning, and its labels, as in the documentation."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


SERIES: dict[str, Series] = {
    "sse_push_build_info": Series("gauge", "always 1; what runs", ("version", "python")),
    "sse_push_connections_open": Series(
        "gauge", "open connections; one to several merchants counts once"
    ),
    "sse_push_connections_limit": Series("gauge", "maximum number of connections"),
    "sse_push_connections_opened_total": Series("counter", "connections opened, polls too"),
    "sse_push_connections_closed_total": Series("counter", "connections ended", ("reason",)),
    "sse_push_soft_answers_total": Series(
        "counter", "clients asked to come back later", ("reason",)
    ),
    "sse_push_merchants_live": Series("gauge", "merchants with a connection, once per worker"),
    "sse_push_notifications_total": Series(
        "counter", "notifications, by their outcome in Redis", ("outcome",)
    ),
    "sse_push_stream_faults_total": Series(
        "counter",
        "records refused because their merchant's key takes none until somebody repairs it",
        ("fault",),
    ),
    "sse_push_errors_total": Series(
        "counter", "error answers, and refused items of an array, by code", ("error",)
    ),
    "sse_push_refusals_total": Series(
        "counter",
        "refused requests and items of an array, and clients asked to come back later, by reason",
        ("reason",),
    ),
    "sse_push_swoole_requests_total": Series(
        "counter", "requests of backends that still ask as the old Swoole server was asked"
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
    "sse_push_pubsub_workers": Series(
        "gauge", "workers that hear of changes by PUBLISH, and not from Redis itself"
    ),
    "sse_push_primaries_away": Series(
        "gauge",
        "primaries of a cluster that take no entries, as the worst worker sees it; if none takes "
        "any, all of them, and /readyz is 503",
    ),
    "sse_push_resyncs_total": Series(
        "counter",
        "merchants' streams that could not be continued, so that every client had to refetch",
        ("reason",),
    ),
    "sse_push_plants_total": Series(
        "counter", "entries planted, or refused by Redis", ("outcome",)
    ),
    "sse_push_loop_lag_seconds": Series(
        "gauge", "delay of the event loop in the last second, in the worst worker"
    ),
    "sse_push_event_loop_tasks": Series("gauge", "tasks in the event loops"),
    "sse_push_workers_alive": Series("gauge", "live workers"),
    "sse_push_resident_memory_bytes": Series("gauge", "resident memory of the workers; Linux only"),
    "sse_push_open_fds": Series("gauge", "open file descriptors of the workers; Linux only"),
}
"""Every series, in the order of the documentation."""
