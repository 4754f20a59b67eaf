"""Measure the service, and nginx with Nchan beside it in the same run.

    python -m tests.bench                 every case once, with a table
    python -m tests.bench --runs 3        three times, and the median of each figure
    python -m tests.bench --only burst idle
    python -m tests.bench --baseline DIR  each case also with the service of another checkout
    python -m tests.bench --against bell=tracking    each case also with other settings
    python -m tests.bench --primaries 3    each case also with a Redis Cluster
    python -m tests.bench --growth        draw how cost grows (tests/bench/growth.svg)
    python -m tests.bench.scale           what a million browsers need (sse_push/docs/scale.md)

The server has one core, Redis and the load generator another. Needs redis-server, and
libnginx-mod-nchan (Debian) for the comparison.

With ``--baseline``, ``--against`` or ``--primaries`` the two services take turns, case by case, and
change places from run to run: a machine that gets slower meanwhile does so for both. The load
generator is this checkout's. With ``--at-once`` they run at the same time, on the same core: on a
shared machine the ratio of two figures of CPU is right to 3 % then, instead of 10 to 20 % (fan-out,
idle); times, and what a service does per second, mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.bench.plot import Line, draw
from tests.harness.cluster import clustered
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.waiting import free_port, program, wait_for

Result = dict[str, Any]
SERVER_CORE, LOAD_CORE = 0, 1
NOTHING: Mapping[str, Any] = MappingProxyType({})
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

NCHAN_CONFIGURATION = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 30000;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 25000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 512M;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/sub/(\\w+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/pub/(\\w+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 2000;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Figure:
    """One number of a case: how it is shown, and what it is to be."""

    name: str
    unit: str
    bar: str = ""


@dataclass(frozen=True)
class Case:
    """One case of ``load``, its options, and what to show of it."""

    title: str
    load: str
    options: dict[str, Any]
    figures: list[Figure]
    has_nchan: bool = False


CASES = [
    Case(
        "fan-out",
        "fan_out",
        {"browsers": 5000, "times": 20, "pause_s": 0.3},
        [
            Figure("us_per_delivery", "µs of CPU per delivery", "≤ Nchan"),
            Figure("ms_to_median", "ms to the median browser"),
            Figure("ms_to_last", "ms to the last browser", "≤ Nchan"),
        ],
        has_nchan=True,
    ),
    Case(
        "burst",
        "burst",
        {"browsers": 2000, "posts": 1000, "at_once": 16},
        [
            Figure("s_all_current", "s until all are current", "≤ Nchan / 20"),
            Figure("events_per_browser", "events per browser", "≤ 15"),
            Figure("posts_per_s", "POSTs/s meanwhile", "≥ 1 000"),
        ],
        has_nchan=True,
    ),
    Case(
        "steady 20/s",
        "steady",
        {"browsers": 2000, "per_s": 20, "seconds": 10},
        [
            Figure("ms_p50", "ms to the last browser, p50"),
            Figure("ms_p99", "ms to the last browser, p99", "≤ 250"),
            Figure("cpu_share", "of a core"),
        ],
    ),
    Case(
        "many merchants, 500/s",
        "many_merchants",
        {"merchants": 8000, "per_s": 500, "seconds": 10},
        [
            Figure("ms_p50", "ms p50", "≤ 2"),
            Figure("ms_p99", "ms p99", "≤ 20"),
            Figure("us_per_notification", "µs of CPU per notification", "≤ 500"),
            Figure("redis_us_per_notification", "µs of Redis per notification"),
        ],
        has_nchan=True,
    ),
    Case(
        "many merchants, 1 500/s",
        "many_merchants",
        {"merchants": 8000, "per_s": 1500, "seconds": 10},
        [
            Figure("ms_p50", "ms p50"),
            Figure("ms_p99", "ms p99", "≤ 60"),
            Figure("us_per_notification", "µs of CPU per notification"),
            Figure("redis_us_per_notification", "µs of Redis per notification"),
        ],
        has_nchan=True,
    ),
    Case(
        "idle",
        "idle",
        {"browsers": 10_000, "seconds": 30},
        [
            Figure("kib_per_browser", "KiB (PSS) per browser", "≤ 18"),
            Figure("cpu_share", "of a core, heartbeats", "≤ 0.03"),
        ],
        has_nchan=True,
    ),
    Case(
        "connect storm",
        "connect_storm",
        {"browsers": 5000},
        [
            Figure("connections_per_s", "connections/s", "≥ 2 500"),
            Figure("s_longest_wait", "s, the longest wait for the first byte"),
        ],
        has_nchan=True,
    ),
    Case(
        "connect storm, again",
        "connect_storm",
        {"browsers": 5000, "is_first": False},
        [
            Figure("connections_per_s", "connections/s"),
            Figure("us_per_connection", "µs of CPU per connection"),
        ],
    ),
    Case(
        "return storm",
        "return_storm",
        {"browsers": 5000},
        [Figure("s_all_right", "s until all are right", "≤ 5")],
    ),
    Case(
        "notify",
        "notify",
        {"publishers": 64, "seconds": 5, "times": 1, "merchants": 1000},
        [
            Figure("per_s", "notifications/s", "≥ 3 000"),
            Figure("ms_p99", "ms p99"),
            Figure("round_trips_per_notification", "Redis round trips per notification"),
        ],
        has_nchan=True,
    ),
    Case(
        "notify, arrays of 100",
        "notify",
        {"publishers": 64, "seconds": 5, "times": 100, "merchants": 1000},
        [Figure("per_s", "notifications/s", "≥ 20 000")],
    ),
    Case(
        "sleeping reader",
        "sleeper",
        {"posts": 10_000},
        [Figure("events_found", "events waiting after 10 000", "≤ 1 000")],
    ),
]


@dataclass
class Server:
    """A server under test, alone on its core."""

    port: int
    pid: int
    redis: Sequence[Redis]
    """One, or the nodes of a cluster; none for another server than ours."""
    stop: Callable[[], None]
    restart: Callable[[], int] = field(default=lambda: 0)


class Baseline(NamedTuple):
    """A service to compare with: of another checkout, with other settings, or with a cluster."""

    checkout: Path | None
    settings: Mapping[str, object]
    primaries: int = 0


@contextmanager
def store(folder: Path, primaries: int) -> Generator[tuple[str, Sequence[Redis]]]:
    """Run a Redis, or a cluster; the value is its URL, and its servers."""
    if primaries:
        with clustered(folder, "redis", primaries=primaries) as cluster:
            yield cluster.url, cluster.nodes
        return
    redis = Redis.start(folder)
    try:
        yield redis.url, [redis]
    finally:
        redis.stop()


@contextmanager
def ours(folder: Path, baseline: Baseline | None = None) -> Generator[Server]:
    """Run the service of this checkout, or another one."""
    checkout, settings, primaries = baseline or Baseline(None, NOTHING)
    with store(folder, primaries) as (url, servers):
        for server in servers:
            os.sched_setaffinity(server.process.pid, {LOAD_CORE})
        with serving(folder, url, servers, checkout, settings) as running:
            yield running


@contextmanager
def serving(
    folder: Path,
    url: str,
    servers: Sequence[Redis],
    checkout: Path | None,
    settings: Mapping[str, object],
) -> Generator[Server]:
    """Run the service of a checkout beside a Redis."""

    def start(port: int | None = None) -> Service:
        return Service.start(
            folder,
            url,
            *("--notify-keys", "none"),
            settings=settings,
            through=pinned(SERVER_CORE),
            cwd=checkout,
            port=port,
        )

    service = start()

    def stop() -> None:
        service.kill()

    def restart() -> int:
        nonlocal service
        stop()
        service = start(service.port)
        return _serving(service)

    try:
        yield Server(service.port, _serving(service), servers, stop, restart)
    finally:
        stop()


def _serving(service: Service) -> int:
    """Return the process that serves; versions before the supervisor had one process in all."""
    return (service.workers or [service.process.pid])[0]


@contextmanager
def nchan(folder: Path) -> Generator[Server]:
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NCHAN_CONFIGURATION.format(module=NCHAN_MODULE, folder=folder, port=port)
    )
    process = subprocess.Popen(
        [*pinned(SERVER_CORE), program("nginx"), "-p", str(folder), "-c", str(configuration)]
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: (folder / "nginx.pid").exists() and children.read_text() != "", "nginx")
    try:
        yield Server(port, int(children.read_text().split()[0]), (), process.terminate)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def started(name: str, folder: Path, baseline: Baseline | None) -> Generator[Server]:
    """Run one of the servers under test by its name."""
    if name == "nchan":
        server = nchan(folder)
    elif name == "baseline" and baseline is not None:
        server = ours(folder, baseline)
    else:
        server = ours(folder)
    with server as running:
        yield running


def pinned(core: int) -> list[str]:
    """Return what comes before a command so that it runs on this core only."""
    return [program("taskset"), "--cpu-list", str(core)]


def measure(case: Case, name: str, baseline: Baseline | None = None) -> Result:
    """Run one case against one server, both new."""
    with tempfile.TemporaryDirectory(prefix="sse_push-bench-") as folder:
        Path(folder).chmod(0o777)  # nginx's worker is another user
        with started(name, Path(folder), baseline) as server:
            options = {**case.options, "pid": server.pid}
            if case.load == "many_merchants":
                options["redis_pids"] = [each.process.pid for each in server.redis]
            if case.load == "return_storm":
                options["ids"] = load("prepare_return", name, server, options)["ids"]
                options["pid"] = server.restart()
            before = round_trips(server)
            result = load(case.load, name, server, options)
            if "count" in result and server.redis:
                trips = round_trips(server) - before
                result["round_trips_per_notification"] = trips / result["count"]
            return result


def measure_at_once(
    case: Case, names: Sequence[str], baseline: Baseline | None
) -> Iterator[tuple[str, Result]]:
    """Run one case against one server, or against several at the same time."""
    with ThreadPoolExecutor(len(names)) as pool:
        found = pool.map(lambda name: measure(case, name, baseline), names)
        yield from zip(names, found, strict=True)


def load(
    case: str, dialect: str, server: Server, options: Result, ports: Mapping[str, int] = NOTHING
) -> Result:
    spoken = "nchan" if dialect == "nchan" else "ours"
    given = {"case": case, "port": server.port, "dialect": spoken, "options": options, **ports}
    done = subprocess.run(
        [*pinned(LOAD_CORE), sys.executable, "-m", "tests.bench.load"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{case} against {dialect} failed:\n{done.stderr[-2000:]}")
    result: Result = json.loads(done.stdout)
    return result


def round_trips(server: Server) -> int:
    """Return how often Redis has read from its clients: a pipeline is read at once."""
    lines = [line for each in server.redis for line in each.cli("INFO", "stats").splitlines()]
    found = [line for line in lines if line.startswith("total_reads_processed:")]
    return sum(int(line.partition(":")[2]) for line in found)


def shown(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def table(results: dict[str, dict[str, list[Result]]], other_name: str) -> str:
    """Return the figures as a Markdown table: the median of all runs, and the ratios."""
    lines = [
        f"| case | figure | sse-push | {other_name} | ratio | bar |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if case.title not in results:
            continue
        found = results[case.title]
        for figure in case.figures:
            values = {
                name: statistics.median(run[figure.name] for run in runs)
                for name, runs in found.items()
                if figure.name in runs[0]
            }
            own, other = values.get("ours"), values.get(other_name.lower())
            ratio = shown(own / other) if own and other else "–"
            lines.append(
                f"| {case.title} | {figure.unit} | {shown(own)} | {shown(other)} | {ratio} "
                f"| {figure.bar or '–'} |"
            )
    busiest = max(
        run["load_cpu_share"]
        for found in results.values()
        for runs in found.values()
        for run in runs
    )
    lines.append("")
    lines.append(f"The load generator used at most {busiest:.0%} of its core.")
    return "\n".join(lines)


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def progress(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()


def growth(path: Path) -> str:
    """Measure how cost grows with browsers and merchants, and draw it."""
    browsers, merchants = [100, 1000, 5000, 10_000], [100, 1000, 10_000]
    per_delivery, per_notification = [], []
    for number in browsers:
        progress(f"growth: {number} browsers of one merchant")
        options = {"browsers": number, "times": max(20, 40_000 // number), "pause_s": 0.15}
        found = measure(Case("", "fan_out", options, []), "ours")
        per_delivery.append(found["us_per_delivery"])
    for number in merchants:
        progress(f"growth: {number} merchants")
        options = {"merchants": number, "per_s": 500, "seconds": 8}
        found = measure(Case("", "many_merchants", options, []), "ours")
        per_notification.append(found["us_per_notification"])
    progress("")
    path.write_text(
        draw(
            [
                Line("browsers of one merchant", "µs per delivery", browsers, per_delivery),
                Line("live merchants", "µs per notification", merchants, per_notification),
            ]
        )
    )
    rows = [
        f"{n:>6} browsers  {value:6.1f} µs per delivery"
        for n, value in zip(browsers, per_delivery, strict=True)
    ]
    rows += [
        f"{n:>6} merchants {value:6.1f} µs per notification"
        for n, value in zip(merchants, per_notification, strict=True)
    ]
    return "\n".join(rows)


def choose(names: Sequence[str], parser: argparse.ArgumentParser) -> list[Case]:
    """Return the cases whose titles begin with one of these names; all of them without any."""
    for name in names:
        if not any(case.title.startswith(name) for case in CASES):
            titles = ", ".join(case.title for case in CASES)
            parser.error(f"--only: expected the beginning of one of {titles}, got {name!r}")
    return [
        case for case in CASES if not names or any(case.title.startswith(name) for name in names)
    ]


def baseline_of(
    checkout: Path | None, words: Sequence[str], primaries: int, parser: argparse.ArgumentParser
) -> Baseline | None:
    """Return what to compare with instead of Nchan, if that is asked for."""
    if checkout is not None and not (checkout / "sse_push" / "__main__.py").exists():
        parser.error(f"--baseline: expected a checkout of this repository, got {checkout}")
    settings = dict(word.partition("=")[::2] for word in words)
    is_wanted = checkout is not None or settings or primaries
    return Baseline(checkout, settings, primaries) if is_wanted else None


def measure_all(
    cases: Sequence[Case],
    runs: int,
    baseline: Baseline | None,
    *,
    has_nchan: bool,
    at_once: bool,
) -> dict[str, dict[str, list[Result]]]:
    """Return what each run of each case has measured, by the case's title and the server's name."""
    results: dict[str, dict[str, list[Result]]] = {}
    began = time.monotonic()
    for number in range(runs):
        for case in cases:
            names = ["ours", "nchan"] if case.has_nchan and has_nchan else ["ours"]
            if baseline is not None:
                names = ["ours", "baseline"] if number % 2 == 0 else ["baseline", "ours"]
            for together in [names] if at_once else [[name] for name in names]:
                progress(
                    f"run {number + 1} of {runs}: {case.title}, {' and '.join(together)} "
                    f"({time.monotonic() - began:.0f} s)"
                )
                for name, result in measure_at_once(case, together, baseline):
                    results.setdefault(case.title, {}).setdefault(name, []).append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=1, help="runs of each case (default 1)")
    parser.add_argument(
        "--only", nargs="*", default=[], help="cases by the beginning of their name"
    )
    parser.add_argument("--json", type=Path, help="write every figure of every run here")
    parser.add_argument(
        "--baseline",
        type=Path,
        help="a checkout of another version, whose service is measured instead of Nchan",
    )
    parser.add_argument(
        "--against",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings of a service that is measured instead of Nchan",
    )
    parser.add_argument(
        "--primaries",
        type=int,
        default=0,
        help="primaries of a Redis Cluster, with which the service is measured instead of Nchan",
    )
    parser.add_argument(
        "--at-once",
        action="store_true",
        help="run both services at the same time, to compare what they need of a core",
    )
    parser.add_argument("--growth", action="store_true", help="draw how cost grows, nothing else")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if (os.cpu_count() or 1) < 2:
        parser.error("expected two cores: one for the server, one for the load")
    if given.growth:
        print(growth(Path(__file__).parent / "growth.svg"))
        return
    chosen = choose(given.only, parser)
    baseline = baseline_of(given.baseline, given.against, given.primaries, parser)
    if given.at_once and baseline is None:
        parser.error("--at-once: expected --baseline, --against or --primaries")
    has_nchan = baseline is None and NCHAN_MODULE.exists()
    results = measure_all(chosen, given.runs, baseline, has_nchan=has_nchan, at_once=given.at_once)
    progress("")
    print(f"{machine()}; {given.runs} run(s), medians\n")
    print(table(results, "Nchan" if baseline is None else "baseline"))
    if baseline is None and not has_nchan:
        print("\nNchan is not installed (Debian: libnginx-mod-nchan): nothing to compare with.")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
