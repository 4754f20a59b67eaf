"""A backend that notifies, and writes down what it is answered.

Knows ``POST /notify`` as the documentation has it. Does not know who listens.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence

from tests.checker.browser import Server
from tests.checker.history import Answer, Outcome, Position
from tests.checker.response import Response

TOPICS = ("seats", "prices", "bookings", None)

_PATIENCE_S = 10.0
"""How much later than promised an answer may come before it is given up."""


class Backend:
    """Notifies merchants in turn; ``answers`` has what came of it."""

    def __init__(self, server: Server, key: str | None, notify_timeout_s: float) -> None:
        self.answers: list[Answer] = []
        self._server = server
        self._authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._limit_s = notify_timeout_s + _PATIENCE_S
        self._numbers = itertools.count(1)

    async def publish(self, merchants: Sequence[str], rate_per_s: float, seconds: float) -> None:
        """Notify at this rate for so long, then wait for the last answers."""
        ends_at = time.monotonic() + seconds
        async with asyncio.TaskGroup() as asking:
            for merchant_id in itertools.cycle(merchants):
                if time.monotonic() > ends_at:
                    break
                asking.create_task(self.notify(merchant_id))
                await asyncio.sleep(1 / rate_per_s)

    async def notify(self, merchant_id: str) -> Answer:
        """Notify once, and write down the answer."""
        number = next(self._numbers)
        topic, by = random.choice(TOPICS), f"checker-{number}"
        said = {"merchant_id": merchant_id, "data": {"number": number}, "by": by}
        said |= {} if topic is None else {"topic": topic}
        asked_at = time.monotonic()
        outcome, position = await self._ask(json.dumps(said).encode())
        answered_at = time.monotonic()
        answer = Answer(
            merchant_id,
            asked_at,
            answered_at,
            outcome,
            position,
            topic,
            said["data"],
            by,
            answered_at - asked_at,
        )
        self.answers.append(answer)
        return answer

    async def _ask(self, body: bytes) -> tuple[Outcome, Position | None]:
        fields = {
            **self._authorization,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        response, text = Response(), b""
        try:
            reader, writer = await self._server.connect()
        except OSError:
            return Outcome.REFUSED, None
        try:
            async with asyncio.timeout(self._limit_s):
                writer.write(self._server.request("POST", "/notify", fields, body))
                while not (response.is_complete or response.flaw) and (
                    data := await reader.read(65_536)
                ):
                    text += response.feed(data)
                response.close()
        except OSError:  # a timeout is one
            return Outcome.UNKNOWN, None
        finally:
            writer.transport.abort()
        return outcome_of(response, text)


def outcome_of(response: Response, text: bytes) -> tuple[Outcome, Position | None]:
    """Read an answer to ``POST /notify``."""
    if not response.is_complete:
        return Outcome.UNKNOWN, None
    try:
        said = json.loads(text)
    except ValueError:
        return Outcome.UNKNOWN, None
    if response.status == 200:
        position = Position.parse(str(said.get("id")))
        return (Outcome.UNKNOWN if position is None else Outcome.ACCEPTED), position
    is_refused = 400 <= response.status < 500 or said.get("outcome") == "not_published"
    return (Outcome.REFUSED if is_refused else Outcome.UNKNOWN), None
