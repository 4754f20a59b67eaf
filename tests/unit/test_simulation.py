from __future__ import annotations

import asyncio
import os

import pytest

from tests.unit.simulation import Simulation

RUNS = int(os.environ.get("SSE_PUSH_TEST_RUNS", "10000"))
ACTIONS = 60


async def simulate(first: int, runs: int) -> None:
    for seed in range(first, first + runs):
        simulation = Simulation(seed)
        try:
            await simulation.run(ACTIONS)
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {exc}; {' '.join(simulation.history)}") from exc
        finally:
            await simulation.close()


def test_no_browser_is_left_behind() -> None:
    asyncio.run(simulate(0, RUNS))
