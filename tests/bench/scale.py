"""Measure what one of each thing costs here, and compute what many browsers need.

    python -m tests.bench.scale                                the tables of sse_push/docs/scale.md
    python -m tests.bench.scale --browsers-per-merchant 20 --notified-every-s 5    for your use
    python -m tests.bench.scale --primaries 3                  and what is other with a cluster
    python -m tests.bench.scale --quick                        a moment of each, to see that it runs

Takes two minutes, three with a cluster, on a machine that does nothing else. Needs redis-server and
nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.__main__ import (
    LOAD_CORE,
    SERVER_CORE,
    Baseline,
    Result,
    load,
    machine,
    ours,
    progress,
)
from tests.bench.__main__ import Server as Measured
from tests.bench.sums import (
    EXAMPLE,
    Units,
    Use,
    cluster_units_table,
    cluster_worth,
    needs_table,
    rounded,
    shown,
    units_table,
    written_out,
)
from tests.harness.nginx import Nginx, replace
from tests.harness.redis import Redis

_MIB = 1024

WORKER_PER_S = 200
"""One worker of many gets few notifications a second; the fewer, the more each of them costs."""
MERCHANTS = 200
"""Few enough that what the opening of their browsers costs does not show beside notifications."""
REDIS_PER_S = 1500
"""The Redis of many workers gets the notifications of all."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    browsers: int
    seconds: float
    settle_s: float
    heartbeat_s: float
    times: int


USUAL = Effort(browsers=3000, seconds=12, settle_s=2, heartbeat_s=4, times=20)
QUICK = Effort(browsers=50, seconds=0.5, settle_s=0.1, heartbeat_s=0.2, times=2)


@contextmanager
def served(primaries: int = 0, **settings: object) -> Generator[tuple[Measured, Redis, Path]]:
    """Run a service of one worker, with a Redis or a cluster, alone; yield its first server."""
    with (
        tempfile.TemporaryDirectory(prefix="sse_push-scale-") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user
        server = stack.enter_context(ours(folder, Baseline(None, settings, primaries)))
        yield server, server.redis[0], folder


def of_info(redis: Redis, section: str, name: str) -> int:
    """Return a number that Redis tells of itself."""
    lines = redis.cli("INFO", section).splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith(f"{name}:"))


def measure_service(effort: Effort) -> Units:
    """Return what the service and Redis use, without a proxy."""
    units: Units = {}
    with served(heartbeat_s=effort.heartbeat_s) as (server, _, _):
        progress("a worker without browsers")
        units |= idle_at(server.redis, effort)
        progress("memory and heartbeats")
        watched: Result = {"seconds": effort.seconds, "settle_s": effort.settle_s}
        idle = run("idle", server, browsers=effort.browsers, **watched)
        units["worker"] = idle["kib_alone"] / _MIB
        units["browser"] = idle["kib_per_browser"]
        units["heartbeat"] = idle["us_per_heartbeat"]
        units["heartbeat bytes"] = idle["bytes_per_heartbeat"]
    with served() as (server, redis, _):
        progress("connections")
        opened = run("connect_storm", server, browsers=effort.browsers, is_first=False)
        units["connection"] = opened["us_per_connection"]
        units["connection bytes"] = opened["bytes_per_connection"]
        progress("refreshes")
        hot = run("fan_out", server, browsers=effort.browsers, times=effort.times, pause_s=0.2)
        units["refresh"] = hot["us_per_delivery"]
        units["refresh bytes"] = hot["bytes_per_delivery"]
        units |= of_notifications(server, effort, units["refresh"])
        progress("a long stream")
        run("notify", server, publishers=1, seconds=1, times=100, merchants=1)
        stream = redis.cli("--scan", "--pattern", "sse_push:{p0}*")
        units["redis merchant"] = int(redis.cli("MEMORY", "USAGE", stream)) / 1024
    return units


def measure_cluster(effort: Effort, primaries: int, refresh: float) -> Units:
    """Return what is another number with a cluster."""
    with served(primaries) as (server, _, _):
        progress("a cluster: a worker without browsers")
        units = idle_at(server.redis, effort)
        return {**units, **of_notifications(server, effort, refresh)}


def idle_at(servers: Sequence[Redis], effort: Effort) -> Units:
    """Return what a worker asks of each server while nothing happens."""
    before = [of_info(each, "stats", "total_commands_processed") for each in servers]
    time.sleep(effort.seconds)
    after = [of_info(each, "stats", "total_commands_processed") for each in servers]
    clients = [each.cli("CLIENT", "LIST").count("name=sse_push-") for each in servers]
    # The question itself is one more.
    asked = sum(after) - sum(before) - len(servers)
    return {
        "redis commands": asked / effort.seconds / len(servers),
        "redis connections": sum(clients) / len(servers),
    }


def of_notifications(server: Measured, effort: Effort, refresh: float) -> Units:
    """Return what notifications cost the service and Redis; a ``refresh`` is known already."""
    progress("notifications, for the service")
    (stored, heard), _ = stored_and_heard(server, effort, WORKER_PER_S)
    progress("notifications, for Redis")
    _, (redis_stored, redis_heard) = stored_and_heard(server, effort, REDIS_PER_S)
    return {
        "notification": stored,
        "hearing": max(0.0, heard - refresh),
        "redis notification": redis_stored,
        "redis hearing": redis_heard,
    }


Costs = tuple[float, float]
"""µs to store a notification, and µs more if a worker hears it and tells one browser."""


def stored_and_heard(server: Measured, effort: Effort, per_s: float) -> tuple[Costs, Costs]:
    """Return what the service uses at this rate, and what Redis uses, all of its servers."""
    pids = [each.process.pid for each in server.redis]
    options: Result = {"merchants": MERCHANTS, "per_s": per_s, "redis_pids": pids}
    options["seconds"] = effort.seconds
    unheard = run("many_merchants", server, **options, is_heard=False)
    heard = run("many_merchants", server, **options)

    def costs(name: str) -> Costs:
        return unheard[name], max(0.0, heard[name] - unheard[name])

    return costs("us_per_notification"), costs("redis_us_per_notification")


def measure_nginx(effort: Effort) -> Units:
    """Return what nginx uses, with the files as they ship, for plain HTTP."""
    browsers = max(1, effort.browsers // 3)
    with served(heartbeat_s=effort.heartbeat_s) as (server, _, folder):
        nginx = Nginx.start(folder / "nginx", f"127.0.0.1:{server.port}", _without_limits)
        try:
            pids = nginx.workers()
            for pid in pids:
                os.sched_setaffinity(pid, {SERVER_CORE})
            at_nginx = {"backends_port": server.port, "port": nginx.port}
            progress("nginx: memory and heartbeats")
            watched: Result = {"seconds": effort.seconds, "settle_s": effort.settle_s}
            idle = run("idle", server, pids, at_nginx, browsers=browsers, **watched)
            progress("nginx: connections")
            opened = run("connect_storm", server, pids, at_nginx, browsers=browsers, is_first=False)
            progress("nginx: refreshes")
            told = run(
                "fan_out",
                server,
                pids,
                at_nginx,
                browsers=browsers,
                times=effort.times,
                pause_s=0.2,
            )
        finally:
            nginx.stop()
    return {
        "nginx connection": opened["us_per_connection"],
        "nginx refresh": told["us_per_delivery"],
        "nginx heartbeat": idle["us_per_heartbeat"],
        "nginx browser": idle["kib_per_browser"],
    }


def _without_limits(folder: Path) -> None:
    replace(folder, "limit_conn sse_push_address 200", "limit_conn sse_push_address 65535")
    replace(folder, "rate=50r/s", "rate=100000r/s")


def run(
    case: str,
    server: Measured,
    pids: list[int] | None = None,
    ports: dict[str, int] | None = None,
    **options: object,
) -> Result:
    """Run one case of ``load``, and return what these processes used, or the worker."""
    given = {**options, "pid": server.pid if pids is None else pids}
    return load(case, "ours", server, given, ports or {})


def report(units: Units, use: Use, server: str) -> str:
    """Return all that is printed, as Markdown."""
    return (
        f"Measured on {server}.\n\n## Unit costs\n\n{units_table(units)}\n\n"
        f"## What browsers need\n\n{use}.\n\n{needs_table(units, use)}\n\n"
        f"## The sums for {shown(EXAMPLE)} browsers\n\n{written_out(units, use)}"
    )


def report_of_cluster(units: Units, cluster: Units, use: Use, primaries: int) -> str:
    """Return what is printed of a cluster, as Markdown."""
    both = {**units, **cluster}
    return (
        f"## A cluster of {primaries} primaries\n\n"
        f"{cluster_units_table(units, cluster, primaries)}\n\n"
        f"{needs_table(both, use, primaries=primaries)}\n\n"
        f"{written_out(both, use, primaries=primaries)}\n\n"
        f"{cluster_worth(units, cluster, use, primaries)}"
    )


def versions() -> str:
    """Return the machine and the programs that were measured."""
    server = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    )
    return f"{machine()}, Redis {server.stdout.split('v=')[1].split()[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Use()
    parser.add_argument("--browsers-per-merchant", type=int, default=usual.browsers_per_merchant)
    parser.add_argument("--notified-every-s", type=float, default=usual.notified_every_s)
    parser.add_argument("--primaries", type=int, default=0, help="of a Redis Cluster, as well")
    parser.add_argument("--quick", action="store_true", help="too short for figures that count")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if LOAD_CORE not in os.sched_getaffinity(0):
        parser.error("expected two cores: one for the server, one for the load")
    effort = QUICK if given.quick else USUAL
    units = rounded({**measure_service(effort), **measure_nginx(effort)})
    use = Use(given.browsers_per_merchant, given.notified_every_s)
    text = report(units, use, versions())
    if given.primaries:
        cluster = rounded(measure_cluster(effort, given.primaries, units["refresh"]))
        text += "\n\n" + report_of_cluster(units, cluster, use, given.primaries)
    progress("")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
