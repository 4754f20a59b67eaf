"""Connections of one process, fed by hand: they ask and rest, or do not read the answer."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import cast

import pytest
from starlette.types import Receive, Scope, Send

from sse_push.runtime.uvicorn import SEND_SCOPE_KEY, Waiting, take_over
from tests.harness.clock import ManualClock
from tests.unit.runtime.uvicorn.connection import (
    GET,
    LATE_S,
    OK,
    SEND_TIMEOUT_S,
    Connection,
    Transport,
    answer_ok,
)

CUT = ["abort"]
LIMIT = 4


async def rested(count: int, limit: int = LIMIT) -> list[Connection]:
    """Return connections of one process that have asked once, in this order."""
    first = Connection(limit=limit)
    await first.feed(GET)
    others = [Connection(beside=first) for _ in range(count - 1)]
    for each in others:
        await each.feed(GET)
    return [first, *others]


async def hold(_scope: Scope, receive: Receive, send: Send) -> None:
    """Begin an answer, and never end it before the client leaves."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while (await receive())["type"] != "http.disconnect":
        pass


# -- places


async def test_the_connection_that_has_rested_longest_makes_room_for_a_new_one() -> None:
    resting = await rested(LIMIT)
    await resting[0].feed(GET)  # its rest begins anew

    new = [Connection(beside=resting[0]) for _ in range(2)]

    assert [each.transport.ended_by for each in resting] == [[], CUT, CUT, []]
    assert [await each.feed(GET) for each in new] == [OK, OK]
    assert len(resting[0].state.connections) == LIMIT


async def test_new_connections_that_come_together_cut_one_each() -> None:
    resting = await rested(2, limit=2)
    for each in resting:
        each.transport.protocol = None  # the event loop tells of the end later
    for _ in range(2):
        Connection(beside=resting[0])

    assert [each.transport.ended_by for each in resting] == [CUT, CUT]


async def test_a_connection_that_sends_nothing_or_half_a_head_makes_room_too() -> None:
    silent = Connection(limit=2)
    half = Connection(beside=silent)
    await half.feed(b"GET /")

    new = [Connection(beside=silent) for _ in range(2)]

    assert [silent.transport.ended_by, half.transport.ended_by] == [CUT, CUT]
    assert [each.transport.ended_by for each in new] == [[], []]


async def test_a_connection_that_is_being_answered_makes_no_room() -> None:
    busy = Connection(hold, limit=1)
    begun = await busy.feed(GET)
    first = Connection(beside=busy)
    other = Connection(beside=busy)

    assert first.transport.ended_by == CUT
    assert await other.feed(GET) == OK
    assert busy.transport.ended_by == []
    assert busy.transport.written == begun


async def test_a_new_connection_is_let_in_where_none_rests() -> None:
    busy = Connection(hold, limit=1)
    await busy.feed(GET)

    assert await Connection(beside=busy).feed(GET) == OK


async def test_the_first_connection_that_is_cut_is_logged_and_then_a_count_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Connection(limit=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            Connection(beside=first)
        first.loop.advance(60)
        Connection(beside=first)
        Connection(beside=first)

    assert [record.getMessage() for record in caplog.records] == [
        "resting connections cut count=1 connections=2",
        "resting connections cut count=3 connections=2",
    ]


# -- answers that nobody reads


async def test_a_client_that_takes_no_bytes_of_an_answer_is_cut_in_time() -> None:
    connection = Connection()
    await connection.feed(GET)
    connection.transport.unsent_bytes = 7
    await connection.wait(SEND_TIMEOUT_S - LATE_S)
    before = list(connection.transport.ended_by)
    await connection.wait(3 * LATE_S)

    assert (before, connection.transport.ended_by) == ([], CUT)


@pytest.mark.parametrize("requests", [GET, GET * 2], ids=["alone", "with a request behind it"])
async def test_a_connection_that_cannot_close_before_its_client_reads_is_cut(
    requests: bytes,
) -> None:
    connection = Connection()
    connection.protocol.shutdown()  # it closes after its first answer
    connection.transport.unsent_bytes = 7
    await connection.feed(requests)
    before = list(connection.transport.ended_by)
    await connection.wait(SEND_TIMEOUT_S + 2 * LATE_S)

    assert (before, connection.transport.ended_by) == (["close"], ["close", *CUT])


async def test_a_client_that_takes_bytes_slowly_is_not_cut() -> None:
    connection = Connection()
    await connection.feed(GET)
    for unsent in range(900, 0, -100):
        connection.transport.unsent_bytes = unsent
        await connection.wait(SEND_TIMEOUT_S - LATE_S)
    connection.transport.unsent_bytes = 0
    await connection.wait(5 * SEND_TIMEOUT_S)

    assert connection.transport.ended_by == []


async def test_a_client_that_asks_on_and_takes_no_bytes_is_cut_behind_a_paused_answer() -> None:
    connection = Connection()
    await connection.feed(GET)
    connection.transport.unsent_bytes = 100_000
    connection.protocol.pause_writing()
    assert await connection.feed(GET * 2) == OK  # the second answer waits
    await connection.wait(SEND_TIMEOUT_S + 2 * LATE_S)

    assert connection.transport.ended_by == CUT
    assert connection.state.tasks == set()


async def test_a_client_that_reads_again_gets_the_rest_and_is_busy_until_then() -> None:
    connection = Connection(hold, limit=1)
    await connection.feed(GET)
    connection.protocol.pause_writing()
    assert len(connection.requests.waiting) == 1
    connection.protocol.resume_writing()
    assert len(connection.requests.waiting) == 0

    rested = Connection()
    await rested.feed(GET)
    rested.protocol.pause_writing()
    rested.protocol.resume_writing()
    assert len(rested.requests.waiting) == 1


async def test_an_event_stream_does_not_wait_though_its_client_reads_late() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        take_over({**scope, SEND_SCOPE_KEY: send})
        await hold(scope, receive, send)

    connection = Connection(stream, limit=1)
    protocols: list[asyncio.BaseProtocol] = [connection.protocol]
    connection.transport.get_protocol = lambda: protocols[-1]  # type: ignore[method-assign]
    connection.transport.set_protocol = protocols.append  # type: ignore[method-assign,assignment]
    connection.protocol.pause_writing()
    connection.protocol.data_received(GET)
    waiting_before = len(connection.requests.waiting)
    await connection.feed()
    writing_only = cast("asyncio.Protocol", protocols[-1])
    writing_only.resume_writing()
    writing_only.pause_writing()

    assert waiting_before == 1
    assert len(connection.requests.waiting) == 0
    assert connection.protocol.flow.write_paused


async def test_no_timer_is_left_where_no_connection_waits() -> None:
    connection = Connection(hold)
    await connection.feed(GET)
    await connection.wait(2 * SEND_TIMEOUT_S)

    assert connection.loop.waiting == 0
    connection.transport.close()


# -- at random


class World:
    """Connections of one process, and what must be so: who waits, in which order, who was cut."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.limit = chance.randrange(1, 12)
        self.origin = Connection(self.answer, limit=self.limit)
        self.waiting = [self.origin]
        self.busy: list[Connection] = []
        self.cut: list[Connection] = []
        self.asked: dict[Connection, list[asyncio.Event]] = {}
        self.events: dict[str, asyncio.Event] = {}

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.events[scope["path"]].wait()
        await answer_ok(scope, receive, send)

    def come(self) -> None:
        new = Connection(self.answer, beside=self.origin)
        if len(self.waiting) + len(self.busy) >= self.limit and self.waiting:
            self.cut.append(self.waiting.pop(0))
        self.waiting.append(new)

    def send_half(self) -> None:
        if self.waiting:
            self.chance.choice(self.waiting).protocol.data_received(b"\r\n")

    def ask(self) -> None:
        """Ask for one thing, maybe behind others that are not answered yet."""
        if connection := self.any():
            if connection in self.waiting:
                self.waiting.remove(connection)
                self.busy.append(connection)
            path = f"/{len(self.events)}"
            self.events[path] = asyncio.Event()
            self.asked.setdefault(connection, []).append(self.events[path])
            connection.protocol.data_received(f"GET {path} HTTP/1.1\r\n\r\n".encode())

    def end_answer(self) -> None:
        if self.busy:
            connection = self.chance.choice(self.busy)
            self.asked[connection].pop(0).set()
            if not self.asked[connection]:
                self.busy.remove(connection)
                self.waiting.append(connection)

    def leave(self) -> None:
        if connection := self.any():
            (self.waiting if connection in self.waiting else self.busy).remove(connection)
            connection.transport.close()

    def any(self) -> Connection | None:
        return self.chance.choice([*self.waiting, *self.busy, None])

    async def check(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        order = [each.protocol for each in self.waiting]
        assert list(self.origin.requests.waiting._order) == order
        assert all(each.transport.ended_by == CUT for each in self.cut)
        assert not any(each.transport.ended_by for each in self.waiting + self.busy)
        assert len(self.origin.state.connections) == len(self.waiting + self.busy)


@pytest.mark.parametrize("seed", range(10))
async def test_connections_at_random_make_room_in_the_order_of_their_rest(seed: int) -> None:
    world = World(random.Random(seed))
    acts = [world.come, world.ask, world.end_answer, world.send_half, world.leave]
    for _ in range(500):
        world.chance.choices(acts, [3, 3, 3, 1, 1])[0]()
        await world.check()

    was_cut = len(world.cut)
    while world.waiting + world.busy:
        world.leave()
    await world.check()
    world.origin.loop.advance(2 * SEND_TIMEOUT_S)

    assert was_cut
    assert world.origin.loop.waiting == 0


class Reader:
    """A connection whose client takes bytes now and then, or never again."""

    def __init__(self, chance: random.Random) -> None:
        self.transport = Transport()
        self.chance = chance
        self.diligence = chance.choice([0, 0.02, 0.1, 0.5])
        self.changed_at = 0.0

    def move(self, waiting: Waiting, now: float) -> None:
        """Take some bytes, or all; maybe another answer is written then."""
        if self.chance.random() < self.diligence:
            before = self.transport.unsent_bytes
            self.transport.unsent_bytes = self.chance.choice([0, *range(100, before, 100)])
            if self.chance.random() < 0.5:
                self.transport.unsent_bytes += self.chance.choice([100, 300])
                waiting.begin(self)
            elif self.transport.unsent_bytes == before:
                return
            self.changed_at = now


@pytest.mark.parametrize("seed", range(10))
def test_clients_at_random_are_cut_in_time_if_they_take_no_bytes_and_only_then(seed: int) -> None:
    chance, clock = random.Random(seed), ManualClock()
    waiting = Waiting(limit=100, send_timeout_s=SEND_TIMEOUT_S, clock=clock)
    readers = [Reader(chance) for _ in range(40)]
    for reader in readers:
        reader.transport.unsent_bytes = chance.choice([0, 500])
        reader.changed_at = clock.now
        waiting.begin(reader)
    open_ones, cut = readers, 0
    for _ in range(400):
        clock.advance(LATE_S / 4)
        for reader in open_ones:
            idle_s = clock.now - reader.changed_at
            is_late = reader.transport.unsent_bytes > 0 and idle_s > SEND_TIMEOUT_S + 2 * LATE_S
            if reader.transport.ended_by:
                waiting.end(reader)
                assert reader.transport.unsent_bytes
                assert idle_s >= SEND_TIMEOUT_S
                cut += 1
            assert not is_late or reader.transport.ended_by == CUT
        open_ones = [reader for reader in open_ones if not reader.transport.ended_by]
        for reader in open_ones:
            reader.move(waiting, clock.now)

    assert 5 < cut < 40
