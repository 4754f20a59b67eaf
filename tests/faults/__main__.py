"""Every fault in turn, and a table of what was lost: ``python -m tests.faults``.

    python -m tests.faults            every fault, times scaled to 0.4, in at most 15 minutes
    python -m tests.faults --short    a smaller world, times scaled to 0.2, in about 3 minutes
    python -m tests.faults --long     2 000 browsers, unscaled times, and the soak
    python -m tests.faults --only S-11 --seed 7    two at once, drawn as in another run
    python -m tests.faults --pubsub   the faults of Redis, with bell=pubsub

Each fault runs in a process and a world of its own: a Redis, the service with two workers, nginx
with the shipped files, browsers that behave as Chromium's EventSource, and a backend that keeps
each ID it was given. Exits with 1 if a browser was left behind, or if anything else was not as it
must be.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import platform
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import faults
from tests.faults.processes import PUBSUB, end_all, fault_of, in_a_process, load
from tests.faults.world import SCALES, Outcome

FOLDER = Path(__file__).parent

OF_REDIS = (
    *("f01", "f02", "f03", "f04", "f05", "f16", "f17", "f25", "f28", "f31", "f32", "f33", "f34"),
    *("f50", "f51", "f52", "f53", "f54", "f55", "f56", "f57", "f58"),
    *("t01", "t02", "t04", "t06", "s01", "s02", "s03", "s04", "s05", "s07", "s08"),
)
"""The faults that are also run with ``bell=pubsub``; T-3, F-27 and S-10 are about tracking."""

IN_THE_SHORT_FORM = ("t02",)
"""Those of them that the gate runs: all connections are killed, the subscribed ones as well."""


def modules() -> list[str]:
    """Return the names of all faults, in the order of the table: F, T, E, S, P."""
    names = (each.name for each in pkgutil.iter_modules(faults.__path__))
    return sorted(
        (name for name in names if re.match(r"[ftesp][0-9]{2}", name)),
        key=lambda name: ("ftesp".index(name[0]), name),
    )


def main() -> int:
    """Run the faults that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--short", action="store_const", const="short", dest="size", help="as in the gate"
    )
    size.add_argument(
        "--long", action="store_const", const="long", dest="size", help="unscaled, with the soak"
    )
    parser.add_argument("--only", metavar="NAMES", help="comma-separated: F-1,f04")
    parser.add_argument("--pubsub", action="store_true", help="the faults of Redis, bell=pubsub")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="worlds at the same time")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="what S-11 draws; default: another one each time"
    )
    parser.add_argument("--list", action="store_true", help="name the faults, and run none")
    options = parser.parse_args()
    size_name = options.size or "full"
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    chosen = choose(options.only, size_name, is_pubsub=options.pubsub)
    if options.list:
        for name in chosen:
            print(f"{fault_of(name).number:6} {fault_of(name).title}")
        return 0
    if not chosen:
        parser.error(f"--only {options.only}: expected names from --list, got none of them")
    jobs = options.jobs or {"short": 4, "full": 2, "long": 1}[size_name]
    return run_all(chosen, size_name, jobs, seed)


def with_pubsub(names: tuple[str, ...]) -> list[str]:
    """Return the modules that these names begin, to be run with ``bell=pubsub``."""
    return [f"{name}{PUBSUB}" for name in modules() if name.startswith(names)]


def choose(only: str | None, size: str, *, is_pubsub: bool = False) -> list[str]:
    """Return the modules that are asked for."""
    wanted = [each.strip().lower() for each in only.split(",")] if only else []
    chosen = []
    also = IN_THE_SHORT_FORM if size == "short" else ()
    for name in with_pubsub(OF_REDIS) if is_pubsub else [*modules(), *with_pubsub(also)]:
        module = load(name)
        number = module.FAULT.number.lower()
        if wanted and not any(
            each in (number, name) or name.startswith(f"{each}_") for each in wanted
        ):
            continue
        if not wanted and size not in getattr(module, "SIZES", ("short", "full", "long")):
            continue
        chosen.append(name)
    return chosen


@dataclass
class Progress:
    """Lines on standard error: which fault has ended, and how."""

    total: int
    done: int = 0

    def say(self, outcome: Outcome) -> None:
        self.done += 1
        back = "-" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
        print(
            f"[{self.done:2}/{self.total}] {outcome.number:6} {outcome.title:67} "
            f"lost {verdict(outcome):3} back {back:>7}  took {outcome.took_s:5.1f} s",
            file=sys.stderr,
            flush=True,
        )
        for text in outcome.wrong:
            print(f"        ! {text}", file=sys.stderr, flush=True)


def is_well(outcome: Outcome) -> bool:
    """Return whether a row may stand in the table."""
    is_judged_twice = outcome.checked_lost == 0 or outcome.skipped is not None
    return outcome.lost == 0 and is_judged_twice and not outcome.wrong


def run_all(names: list[str], size: str, jobs: int, seed: int) -> int:
    """Run each in a process of its own, some at a time, and print the table."""
    print(f"{heading(len(names), size, jobs)}; seed {seed}", file=sys.stderr, flush=True)
    began_at = time.monotonic()
    progress = Progress(len(names))

    def one(name: str) -> Outcome:
        outcome = in_a_process(name, size, seed)
        progress.say(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        try:
            outcomes = list(pool.map(one, names))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
    print_table(outcomes, size, time.monotonic() - began_at)
    return 0 if all(map(is_well, outcomes)) else 1


def heading(count: int, size: str, jobs: int) -> str:
    """Return a line with the sizes and times of the worlds."""
    scale = SCALES[size]
    factor = scale.time_here
    soft = f"{5 * factor:g} to {30 * factor:g} s"
    return (
        f"{count} faults, {jobs} at a time; {scale.browsers} browsers of {scale.merchants} "
        f"merchants or more, {scale.rate_per_s:g} notifications/s, two workers; all times x "
        f"{factor:g}: heartbeat {15 * factor:g} s, probe {3 * factor:g} s, deadline "
        f"{6 * factor:g} s, retry {2000 * factor:g} ms, soft answer's {soft}, "
        f"drain {20 * factor:g} s"
    )


def verdict(outcome: Outcome) -> str:
    """Return the cell with the number of browsers that were left behind."""
    if outcome.skipped is not None:
        return f"not run: {outcome.skipped}"
    if is_well(outcome):
        return "0 / 0"
    checked_lost = "–" if outcome.checked_lost is None else outcome.checked_lost
    return f"**{outcome.lost} / {checked_lost}**: {'; '.join(outcome.wrong)[:200]}"


def print_table(outcomes: list[Outcome], size: str, took_s: float) -> None:
    """Print the matrix, as tests/README.md has it."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"\n{machine}, {size} form, {took_s:.0f} s\n")
    print("| fault | | browsers | notifications | lost | back after | |")
    print("|---|---|---|---|---|---|---|")
    for each in outcomes:
        back = "–" if each.recovered_s is None else f"{each.recovered_s:.1f} s"
        cells = [
            each.number,
            each.title,
            f"{each.browsers:,}",
            f"{each.notifications:,}",
            verdict(each),
        ]
        cells += [back, "; ".join(each.notes)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
