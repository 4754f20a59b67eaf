"""A backend that notifies at a steady rate, and records the outcome of each notification."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from sse_push.notification import EntryId, EventId
from tests.harness import plain_http
from tests.harness.service import KEY
from tests.harness.waiting import SECOND, Deadline

_LOOK_S = 0.01

_PATIENCE_S = 10 * SECOND
"""How much longer than the service promises a backend waits for an answer."""

_AT_ONCE = 400
"""At most this many notifications are under way, as in a backend with as many workers."""


@dataclass
class Ledger:
    """Every notification of a run, by its ``by``, which is a number of its own."""

    accepted: dict[str, tuple[str, EntryId]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """The outcome was ``not_published``, or no connection was made."""
    unknown: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    newest: dict[str, EntryId] = field(default_factory=dict)
    """The highest accepted ID of each merchant, in the present history."""
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    history: list[dict[str, object]] = field(default_factory=list)
    """Every notification and its answer, in the words of ``tests.checker.history.Answer``."""

    def ask(self, body: Mapping[str, object]) -> dict[str, object]:
        """Write down a notification as one of which nothing is known yet."""
        now = time.monotonic()
        asked = {"outcome": "unknown", "asked_at": now, "answered_at": now, **body}
        self.history.append(asked)
        return asked

    @staticmethod
    def answer(asked: dict[str, object], outcome: str, took_s: float, entry_id: str = "") -> None:
        """Write down what became of it."""
        said = {"outcome": outcome, "answered_at": time.monotonic(), "took_s": took_s}
        asked |= {**said, "id": entry_id} if entry_id else said


class Backend:
    """Notifies merchants in turn at a rate, whatever the outcomes."""

    def __init__(self, url: str, merchants: list[str], limit_s: float) -> None:
        self.ledger = Ledger()
        self.data: str | None = None
        """Data of each notification, to make it large."""
        self._merchants = itertools.cycle(merchants)
        self._limit_s = limit_s
        self._late_s = 0.0
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[object]] = set()
        self._client = plain_http.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=httpx2.Timeout(limit_s + _PATIENCE_S),
            limits=httpx2.Limits(max_connections=_AT_ONCE, keepalive_expiry=2),
            trust_env=False,
        )

    async def watch_the_clock(self) -> None:
        """Add up how late this process's own event loop is, until canceled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._late_s += loop.time() - due

    async def publish(self, rate_per_s: float) -> None:
        """Notify until canceled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / rate_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            if len(self._tasks) < _AT_ONCE:
                task: asyncio.Task[object] = asyncio.create_task(self.tell(next(self._merchants)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def tell(self, merchant_id: str) -> EntryId | None:
        """Notify once; return the ID if it was accepted."""
        ledger = self.ledger
        by = f"n{next(self._numbers)}"
        topic = f"t{len(ledger.history) // 7 % 3}"  # of each merchant every one in turn
        data = {"by": by} if self.data is None else self.data
        body = {"merchant_id": merchant_id, "topic": topic, "data": data, "by": by}
        asked = ledger.ask(body)
        began_at, late_s = time.monotonic(), self._late_s
        try:
            answer = await self._client.post("/notify", json=body)
        except httpx2.ConnectError:
            ledger.outcomes["no connection"] += 1
            ledger.answer(asked, "refused", time.monotonic() - began_at)
            ledger.refused.add(by)
            return None
        except httpx2.TransportError as exc:
            ledger.outcomes["no answer"] += 1
            ledger.unknown.add(by)
            if isinstance(exc, httpx2.TimeoutException):
                ledger.wrong.append(f"no answer within {self._limit_s + _PATIENCE_S:g} s")
            return None
        # What this process itself was late is not the service's.
        took_s = time.monotonic() - began_at - (self._late_s - late_s)
        ledger.slowest_s = max(ledger.slowest_s, took_s)
        if answer.status_code == 200:
            entry_id = EventId.parse(answer.json()["id"]).entry_id
            ledger.outcomes["stored"] += 1
            ledger.answer(asked, "accepted", took_s, answer.json()["id"])
            ledger.accepted[by] = (merchant_id, entry_id)
            ledger.newest[merchant_id] = max(ledger.newest.get(merchant_id, entry_id), entry_id)
            return entry_id
        if answer.status_code != 503 or "Retry-After" not in answer.headers:
            ledger.wrong.append(f"answered {answer.status_code} {answer.text[:200]}")
            return None
        outcome = answer.json()["outcome"]
        ledger.outcomes[outcome] += 1
        is_refused = outcome == "not_published"
        (ledger.refused if is_refused else ledger.unknown).add(by)
        ledger.answer(asked, "refused" if is_refused else "unknown", took_s)
        return None

    async def tell_many(self, merchant_id: str, topics: Sequence[str]) -> None:
        """Notify of many topics in one request, all of which must be taken."""
        items = [{"merchant_id": merchant_id, "topic": topic} for topic in topics]
        asked = [self.ledger.ask(item) for item in items]
        began_at = time.monotonic()
        answer = await self._client.post("/notify", json=items)
        assert answer.status_code == 200, answer.text[:200]
        for each, said in zip(asked, answer.json(), strict=True):
            self.ledger.answer(each, "accepted", time.monotonic() - began_at, said["id"])
        self.ledger.newest[merchant_id] = EventId.parse(answer.json()[-1]["id"]).entry_id

    async def tell_until_accepted(self, merchant_id: str, deadline_s: float) -> EntryId:
        """Notify again and again, as a backend should."""
        deadline = Deadline(deadline_s * SECOND)
        while (entry_id := await self.tell(merchant_id)) is None:
            assert not deadline.is_over(), f"not accepted within {deadline_s:.1f} s"
            await asyncio.sleep(0.02)
        return entry_id

    def forget(self) -> None:
        """Begin a new history: what was accepted before is lost, and its IDs mean nothing."""
        self.ledger.newest.clear()

    async def answered(self) -> None:
        """Wait for the answers that are on their way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def hang_up(self) -> None:
        """Close all connections, without waiting for answers."""
        for task in self._tasks:
            task.cancel()
        await self.answered()
        await self._client.aclose()
