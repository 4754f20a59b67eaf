"""A run: browsers are opened, something is notified, and all is judged in the end.

Knows both forms, alone and controlled, and their input and output.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from tests.checker.backend import Backend
from tests.checker.browser import Browser, Server
from tests.checker.history import Answer, Witness
from tests.checker.judge import Verdict, has_arrived, judge, unheard_until
from tests.checker.terms import Terms

_LOOK_S = 0.05
_PAUSE_S = 0.1
"""A tick that is later than this is a pause of the checker's own."""

SLACK_S = 2.0
"""What a busy machine may add, if nobody says otherwise."""

NOTIFY_TIMEOUT_S = 3.0
OPEN_WITHIN_S = 40.0
"""Longer than the longest soft answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for on the command line."""

    server: Server
    backend: Server
    key: str | None
    merchants: Sequence[str]
    each: int
    seconds: float
    rate_per_s: float
    within_s: float
    drop_every_s: float


class Crowd:
    """The browsers of a run, and when this process itself could not run."""

    def __init__(self, plan: Plan, merchants: Sequence[str]) -> None:
        self.browsers = [
            Browser(plan.server, merchant_id, f"browser {number} of {merchant_id}")
            for merchant_id in merchants
            for number in range(1, plan.each + 1)
        ]
        self.pauses: list[tuple[float, float]] = []

    @property
    def witnesses(self) -> list[Witness]:
        """Return every browser's history."""
        return [browser.witness for browser in self.browsers]

    @property
    def is_open(self) -> bool:
        """Return whether every browser is open, or never will be."""
        return all(each.is_final or has_arrived(each.witness.visits) for each in self.browsers)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen within the context."""
        tasks = [asyncio.create_task(each.run()) for each in self.browsers]
        tasks.append(asyncio.create_task(self._watch_the_clock()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                if not task.cancelled():
                    task.result()

    async def drop_now_and_then(self, every_s: float) -> None:
        """Let one browser after the other lose its connection, until canceled."""
        while every_s:
            await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)
            random.choice(self.browsers).drop()

    async def judged(self, answers: Sequence[Answer], terms: Terms) -> Verdict:
        """Wait until all that was accepted is heard or overdue, and judge."""
        while (due := unheard_until(self.witnesses, answers, terms)) is not None:
            now = time.monotonic()
            if now > due:
                break
            await asyncio.sleep(min(2 * _LOOK_S, due - now + 0.001))
        terms = replace(terms, pauses=self.pauses)
        return judge(self.witnesses, answers, terms, time.monotonic())

    async def _watch_the_clock(self) -> None:
        while True:
            began_at = time.monotonic()
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            if now - began_at > _LOOK_S + _PAUSE_S:
                self.pauses.append((began_at, now))


async def until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; return whether it is."""
    ends_at = time.monotonic() + seconds
    while True:
        if is_so() or time.monotonic() > ends_at:
            return is_so()
        await asyncio.sleep(_LOOK_S)


async def run_alone(plan: Plan) -> int:
    """Notify and listen, print the verdict, and return the exit status."""
    name = f"checker-{random.getrandbits(32):08x}"
    merchants = plan.merchants or [f"{name}-{number}" for number in range(3)]
    crowd = Crowd(plan, merchants)
    backend = Backend(plan.backend, plan.key, NOTIFY_TIMEOUT_S)
    async with crowd.listening():
        if not await until(lambda: crowd.is_open, OPEN_WITHIN_S):
            print(f"not every browser was served within {OPEN_WITHIN_S:g} s", file=sys.stderr)
        dropping = asyncio.create_task(crowd.drop_now_and_then(plan.drop_every_s))
        await backend.publish(merchants, plan.rate_per_s, plan.seconds)
        dropping.cancel()
        terms = Terms(
            within_s=plan.within_s,
            slack_s=SLACK_S,
            heartbeat_s=_heartbeat_s(crowd.witnesses),
            answer_s=NOTIFY_TIMEOUT_S,
            is_only_backend=not plan.merchants,
        )
        verdict = await crowd.judged(backend.answers, terms)
    print(in_words(verdict))
    return 0 if is_kept(verdict) else 1


def is_kept(verdict: Verdict) -> bool:
    """Tell whether a run shows that the promises were kept; one without anything shows nothing."""
    return not verdict.wrong and verdict.accepted > 0 and verdict.refreshes > 0


def in_words(verdict: Verdict) -> str:
    """Say a verdict in a few lines."""
    ends = ", ".join(f"{count} {end}" for end, count in sorted(verdict.ends.items()))
    lines = [
        f"{verdict.browsers} browsers, {verdict.connections} connections ({ends}), "
        f"{verdict.accepted} notifications accepted, {verdict.refreshes} refreshes, "
        f"the slowest after {max(0.0, verdict.slowest_s):.3f} s",
        *(f"  ! {text}" for text in verdict.wrong),
        *(f"  {count} times: {promise}" for promise, count in verdict.breaches.items()),
    ]
    if is_kept(verdict):
        return "\n".join([*lines, "every promise was kept"])
    return "\n".join([*lines, "nothing was heard" if not verdict.wrong else "promises were broken"])


async def run_controlled(plan: Plan) -> int:
    """Listen; take answers and, in the end, the terms from stdin; return the exit status.

    Lines to stdout: ``{"open": 6}`` once every browser is open, and ``{"verdict": {…}}``. Lines
    from stdin: ``{"answer": {…}}`` for each notification, then ``{"judge": {…}}``; and maybe other
    terms for another verdict, which is the one that counts.
    """
    crowd = Crowd(plan, plan.merchants)
    answers: list[Answer] = []
    status = 2
    async with crowd.listening():
        await until(lambda: crowd.is_open, OPEN_WITHIN_S)
        _say(open=sum(has_arrived(each.visits) for each in crowd.witnesses))
        while (terms := await asyncio.to_thread(_read, answers)) is not None:
            verdict = await crowd.judged(answers, terms)
            status = 1 if verdict.wrong else 0
            _say(verdict=verdict.to_json())
    return status


def _read(answers: list[Answer]) -> Terms | None:
    """Read answers and, behind them, the terms; none if the input ends before."""
    for line in sys.stdin:
        said = json.loads(line)
        if "judge" in said:
            return Terms.from_json(said["judge"])
        answers.append(Answer.from_json(said["answer"]))
    return None


def _say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def _heartbeat_s(witnesses: Sequence[Witness]) -> float | None:
    """Return what the service says of itself in its first ``ready``."""
    for witness in witnesses:
        for visit in witness.visits:
            for event in visit.events:
                value = event.said.get("heartbeat_s")
                if event.type == "ready" and isinstance(value, int | float):
                    return float(value)
    return None
