"""What many browsers need, computed from what one of each thing costs.

Knows the sums, and how ``sse_push/docs/scale.md`` shows them. Does not measure anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Units = dict[str, float]
Add = Callable[[str, str, str, float], float]
"""Adds a line to the result: its name, its unit, its sum, and its value, which is returned."""

UNITS = {
    "refresh": "µs of CPU to write a refresh to one browser",
    "notification": "µs of CPU to store a notification",
    "hearing": "µs of CPU for a notification in each worker with a browser of its merchant",
    "connection": "µs of CPU to open a connection",
    "heartbeat": "µs of CPU to write a heartbeat to one browser",
    "browser": "KiB of memory for a browser",
    "worker": "MiB of memory for a worker without browsers",
    "redis notification": "µs of Redis's CPU to store a notification",
    "redis hearing": "µs of Redis's CPU for each worker that hears and reads it",
    "redis commands": "commands a second of a worker without browsers",
    "redis connections": "connections of a worker to Redis",
    "redis merchant": "KiB of Redis's memory for a merchant, its stream as long as it gets",
    "nginx refresh": "µs of nginx's CPU to pass a refresh on",
    "nginx connection": "µs of nginx's CPU to open a connection",
    "nginx heartbeat": "µs of nginx's CPU to pass a heartbeat on",
    "nginx browser": "KiB of nginx's memory for a browser",
    "refresh bytes": "bytes of a refresh without `data`",
    "heartbeat bytes": "bytes of a heartbeat",
    "connection bytes": "bytes of the beginning of a connection",
}
"""What is measured, by a short name; three digits of each count."""

CLUSTER_UNITS = {
    "notification": "µs of CPU to store a notification",
    "hearing": "µs of CPU for a notification in each worker with a browser of its merchant",
    "redis notification": "µs of Redis's CPU to store a notification, all primaries together",
    "redis hearing": "µs of Redis's CPU for each worker that hears and reads it",
    "redis commands": "commands a second of a worker without browsers, at each primary",
    "redis connections": "connections of a worker to each primary",
}
"""What is another number with a cluster."""

OF_A_CLUSTER = ("service, CPU", "service, workers", "Redis")
"""How the names of the lines begin that are other ones with a cluster."""

SIZES = (10_000, 100_000, 1_000_000)
EXAMPLE = 100_000

HEARTBEAT_S = 15
CONNECTION_AGE_S = 900
BROWSERS_PER_WORKER = 10_000
"""Two thirds of ``max_connections``: the others take over the browsers of a worker that is gone."""
BROWSERS_PER_NGINX_WORKER = 8_000
"""``limit_conn sse_push_worker`` in nginx/snippets/event-stream.conf."""
BUSY = 0.5
"""The share of its core that a worker uses at most, so that a burst finds room."""
PACKET_BYTES = 88
"""Beside each event: the headers of Ethernet, IP and TCP (66), and a record of TLS 1.3 (22)."""


@dataclass(frozen=True, slots=True)
class Use:
    """How the browsers are used."""

    browsers_per_merchant: int = 5
    notified_every_s: float = 60
    """How often each merchant is notified."""

    def __str__(self) -> str:
        return (
            f"{self.browsers_per_merchant} browsers of each merchant; each merchant is notified "
            f"every {self.notified_every_s:g} s"
        )


@dataclass(frozen=True, slots=True)
class Sum:
    """One line of the result: what it is, the sum that is written out, and its value."""

    name: str
    unit: str
    sum: str
    value: float


def rounded(units: Units) -> Units:
    """Return the units with the three digits that are shown."""
    return {name: float(f"{value:.3g}") for name, value in units.items()}


def sums(browsers: int, units: Units, use: Use, primaries: int = 0) -> list[Sum]:
    """Return what so many browsers need, with one Redis or a cluster."""
    found: list[Sum] = []

    def add(name: str, unit: str, text: str, value: float) -> float:
        found.append(Sum(name, unit, text, value))
        return value

    u, n = units, shown(browsers)
    each, every_s = use.browsers_per_merchant, use.notified_every_s
    merchants = add("merchants", "", f"{n} / {each}", browsers / each)
    told = add("notifications", "/s", f"{shown(merchants)} / {every_s:g}", merchants / every_s)
    refreshes = add("refreshes", "/s", f"{shown(told)} × {each}", told * each)
    beats = add("heartbeats", "/s", f"{n} / {HEARTBEAT_S}", browsers / HEARTBEAT_S)
    opened = add(
        "connections opened", "/s", f"{n} / {CONNECTION_AGE_S}", browsers / CONNECTION_AGE_S
    )
    workers = _workers(browsers, units, use)
    hears = min(each, workers)
    cores = _cores(browsers, units, use, workers)
    add(
        "service, CPU",
        "cores",
        f"({shown(told)} × ({u['notification']:g} + {hears} × {u['hearing']:g}) + "
        f"{shown(refreshes)} × {u['refresh']:g} + {shown(beats)} × {u['heartbeat']:g} + "
        f"{shown(opened)} × {u['connection']:g}) / 1 000 000",
        cores,
    )
    add(
        "service, workers",
        "",
        f"the most of 2, {n} / {shown(BROWSERS_PER_WORKER)}, and {cores:.3g} / {BUSY:g}",
        workers,
    )
    add(
        "service, memory",
        "GiB",
        f"({n} × {u['browser']:g} / 1 024 + {shown(workers)} × {u['worker']:g}) / 1 024",
        (browsers * u["browser"] / 1024 + workers * u["worker"]) / 1024,
    )
    add(
        "all browsers return at once",
        "s",
        f"{n} × {u['connection']:g} / 1 000 000 / {shown(workers)}",
        browsers * u["connection"] / 1e6 / workers,
    )
    _add_redis(add, units, merchants, told, workers, hears, primaries)
    add(
        "nginx, CPU",
        "cores",
        f"({shown(refreshes)} × {u['nginx refresh']:g} + {shown(beats)} × "
        f"{u['nginx heartbeat']:g} + {shown(opened)} × {u['nginx connection']:g}) / 1 000 000",
        (
            refreshes * u["nginx refresh"]
            + beats * u["nginx heartbeat"]
            + opened * u["nginx connection"]
        )
        / 1e6,
    )
    add(
        "nginx, workers",
        "",
        f"{n} / {shown(BROWSERS_PER_NGINX_WORKER)}",
        math.ceil(browsers / BROWSERS_PER_NGINX_WORKER),
    )
    add(
        "nginx, memory",
        "GiB",
        f"{n} × {u['nginx browser']:g} / 1 024 / 1 024",
        browsers * u["nginx browser"] / 1024 / 1024,
    )
    add(
        "network, to the browsers",
        "Mbit/s",
        f"({shown(refreshes)} × ({u['refresh bytes']:g} + {PACKET_BYTES}) + {shown(beats)} × "
        f"({u['heartbeat bytes']:g} + {PACKET_BYTES}) + {shown(opened)} × "
        f"({u['connection bytes']:g} + {PACKET_BYTES})) × 8 / 1 000 000",
        (
            refreshes * (u["refresh bytes"] + PACKET_BYTES)
            + beats * (u["heartbeat bytes"] + PACKET_BYTES)
            + opened * (u["connection bytes"] + PACKET_BYTES)
        )
        * 8
        / 1e6,
    )
    return found


def _add_redis(
    add: Add,
    units: Units,
    merchants: float,
    told: float,
    workers: int,
    hears: int,
    primaries: int,
) -> None:
    u, n = units, primaries or 1
    whose = " of each primary" if primaries else ""
    shared, times = (f" / {n}", f" × {n}") if primaries else ("", "")
    add(
        f"Redis, CPU{whose}",
        "cores",
        f"{shown(told)} × ({u['redis notification']:g} + {hears} × {u['redis hearing']:g}){shared} "
        "/ 1 000 000",
        told * (u["redis notification"] + hears * u["redis hearing"]) / n / 1e6,
    )
    add(
        "Redis, commands of idle workers",
        "/s",
        f"{shown(workers)} × {u['redis commands']:g}{times}",
        workers * u["redis commands"] * n,
    )
    add(
        "Redis, connections",
        "",
        f"{shown(workers)} × {u['redis connections']:g}{times}",
        workers * u["redis connections"] * n,
    )
    add(
        f"Redis, memory{whose}",
        "GiB",
        f"{shown(merchants)} × {u['redis merchant']:g}{shared} / 1 024 / 1 024",
        merchants * u["redis merchant"] / n / 1024 / 1024,
    )


def half_busy(units: Units, use: Use, primaries: int = 1) -> float:
    """Return the browsers with which each Redis uses half of its core."""
    cost = units["redis notification"] + use.browsers_per_merchant * units["redis hearing"]
    told = BUSY * 1e6 / cost * primaries
    return told * use.notified_every_s * use.browsers_per_merchant


def _cores(browsers: int, units: Units, use: Use, workers: int) -> float:
    told = browsers / use.browsers_per_merchant / use.notified_every_s
    hears = min(use.browsers_per_merchant, workers)
    return (
        told * (units["notification"] + hears * units["hearing"])
        + told * use.browsers_per_merchant * units["refresh"]
        + browsers / HEARTBEAT_S * units["heartbeat"]
        + browsers / CONNECTION_AGE_S * units["connection"]
    ) / 1e6


def _workers(browsers: int, units: Units, use: Use) -> int:
    """Return how many are enough; with more of them, more hear of each notification."""
    workers = max(2, math.ceil(browsers / BROWSERS_PER_WORKER))
    while _cores(browsers, units, use, workers) > BUSY * workers:
        workers += 1
    return workers


# -- as the document shows it


def shown(value: float) -> str:
    """Return a number with at most three digits that count, and whole above that."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def units_table(units: Units) -> str:
    """Return the unit costs as a Markdown table."""
    lines = ["| unit | what | cost |", "|---|---|---|"]
    lines += [f"| {name} | {what} | {units[name]:g} |" for name, what in UNITS.items()]
    return "\n".join(lines)


def cluster_units_table(units: Units, cluster: Units, primaries: int) -> str:
    """Return the unit costs of a cluster as a Markdown table, beside those of one Redis."""
    lines = [f"| unit | what | one Redis | {primaries} primaries |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {what} | {units[name]:g} | {cluster[name]:g} |"
        for name, what in CLUSTER_UNITS.items()
    ]
    return "\n".join(lines)


def needs_table(
    units: Units,
    use: Use,
    sizes: Sequence[int] = SIZES,
    primaries: int = 0,
) -> str:
    """Return what browsers need as a Markdown table, a column for each number of them."""
    columns = [_lines(size, units, use, primaries) for size in sizes]
    lines = [f"| browsers | {' | '.join(map(shown, sizes))} |", "|---" * (len(sizes) + 1) + "|"]
    for row in zip(*columns, strict=True):
        cells = " | ".join(f"{shown(each.value)} {each.unit}".strip() for each in row)
        lines.append(f"| {row[0].name} | {cells} |")
    return "\n".join(lines)


def written_out(units: Units, use: Use, browsers: int = EXAMPLE, primaries: int = 0) -> str:
    """Return the sums for one number of browsers as a Markdown table."""
    lines = ["| what | sum | result |", "|---|---|---|"]
    lines += [
        f"| {each.name} | {each.sum} | {shown(each.value)} {each.unit}".rstrip() + " |"
        for each in _lines(browsers, units, use, primaries)
    ]
    return "\n".join(lines)


def cluster_worth(units: Units, cluster: Units, use: Use, primaries: int) -> str:
    """Return a sentence on when one Redis is not enough, with two digits that count."""
    one, each = (
        shown(float(f"{count:.2g}"))
        for count in (half_busy(units, use), half_busy(cluster, use, primaries))
    )
    return (
        f"One Redis uses half of its core with {one} browsers; {primaries} primaries use half of "
        f"a core each with {each}."
    )


def _lines(browsers: int, units: Units, use: Use, primaries: int) -> list[Sum]:
    found = sums(browsers, units, use, primaries)
    return [each for each in found if not primaries or each.name.startswith(OF_A_CLUSTER)]


def parse_units(text: str, names: Iterable[str] = UNITS) -> Units:
    """Return the units of a table that ``units_table`` has written, or the one of a cluster."""
    rows = dict(re.findall(r"^\| ([a-z ]+) \| .* \| ([0-9.e+]+) \|$", text, re.MULTILINE))
    return {name: float(rows[name]) for name in names}
