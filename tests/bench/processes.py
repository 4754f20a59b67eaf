"""What processes have used, of CPU and of memory, as the system counts it."""

from __future__ import annotations

from pathlib import Path

Pids = int | list[int]
"""One process, or several that share the work, as those of nginx do."""


def cpu_s(pid: Pids) -> float:
    """Return the seconds of CPU that processes have used, to the nanosecond."""
    total = 0
    for each in pid if isinstance(pid, list) else [pid]:
        for task in Path(f"/proc/{each}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pss_kib(pid: Pids) -> int:
    total = 0
    for each in pid if isinstance(pid, list) else [pid]:
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total
