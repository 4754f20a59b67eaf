"""A process for each world, which has imported everything before it begins.

Knows how a world is started, limited and ended. Does not know what is broken in it. Worlds are
forked from one process that imports once, and does nothing else: each would take 0.6 s of CPU for
that, which is a fifth of what a short world takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tests.faults.world import SCALES, Fault, Outcome, Scale, World, run
from tests.harness.waiting import SECOND

LIMIT_S = {"short": 120, "full": 300, "long": 3600}
"""When a world is ended, as something in it hangs; times the measured unit."""

_SPAWN = multiprocessing.get_context("forkserver")
_SPAWN.set_forkserver_preload([__name__])

_RUNNING: set[int] = set()
"""Worlds at present, each the leader of a session of its own."""


PUBSUB = "+pubsub"
"""Ends the name of a fault that is run with ``bell=pubsub``."""


def load(name: str) -> ModuleType:
    """Import one fault."""
    return importlib.import_module(f"tests.faults.{name.removesuffix(PUBSUB)}")


def fault_of(name: str) -> Fault:
    """Return what a name stands for: a fault, or the same one with ``bell=pubsub``."""
    fault: Fault = load(name).FAULT
    if not name.endswith(PUBSUB):
        return fault
    settings = {**fault.settings, "bell": "pubsub"}
    return replace(
        fault, number=f"{fault.number}p", title=f"PUBLISH: {fault.title}", settings=settings
    )


def end_all() -> None:
    """End every world, with all that it has started."""
    for pid in list(_RUNNING):
        _end(pid)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def in_a_process(name: str, size: str, seed: int) -> Outcome:
    """Run one fault; if it takes too long, end it with all that it has started."""
    fault = fault_of(name)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        said, errors = Path(folder) / "outcome", Path(folder) / "errors"
        process = _SPAWN.Process(target=_run_one, args=(name, size, seed, Path(folder)))
        process.start()
        assert process.pid is not None, "started"
        _RUNNING.add(process.pid)
        process.join(LIMIT_S[size] * SECOND)
        is_late = process.is_alive()
        if is_late:
            _end(process.pid)
            process.join()
        _RUNNING.discard(process.pid)
        text = errors.read_text(errors="replace") if errors.exists() else ""
        if is_late:
            text += f"\nended after {LIMIT_S[size] * SECOND:.0f} s"
        if said.exists():
            outcome = Outcome(**json.loads(said.read_text()))
        else:
            outcome = Outcome(fault.number, fault.title, lost=-1, wrong=[text.strip()[-2000:]])
    if outcome.wrong and text:
        print(text[-8000:], file=sys.stderr, flush=True)
    return outcome


def _run_one(name: str, size: str, seed: int, folder: Path) -> None:
    """Run one fault in this process, and write its outcome into a file of the folder."""
    os.setsid()
    with (folder / "errors").open("w") as errors:
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    module = load(name)
    scale: Scale = getattr(module, "SCALES", {}).get(size, SCALES[size])
    make: type[World] = getattr(module, "Setting", World)
    world = folder / "world"
    world.mkdir()
    folder.chmod(0o755)  # nginx's workers run under another account
    outcome = asyncio.run(run(fault_of(name), module.inject, size, scale, world, make, seed))
    if outcome.wrong:
        for log in sorted(world.rglob("service-*.log")):
            lines = log.read_text(errors="replace").splitlines()
            print(f"-- {log.name}", *lines[-60:], sep="\n", file=sys.stderr)
    part = folder / "part"
    part.write_text(outcome.to_json())
    part.rename(folder / "outcome")  # whole, or not there
