"""The simulation's model of Redis, held against a real one.

Chance makes a sequence of operations; both carry it out, and every reply and announcement is
compared, in the order in which they come over the tracked connection. What the model does that
Redis does not would make the simulation prove something about no Redis at all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sse_push.notification import Entry, EntryId, Notification
from sse_push.runtime.embedded import embedded_server
from sse_push.stream.address import Address
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.contract import forget_command, parse_entries, read_command
from sse_push.stream.opening import connect, open_connection
from sse_push.stream.reads import NEW_ENTRIES, Read
from sse_push.stream.replies import is_elsewhere
from tests.harness.keys import merchant_of, stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND
from tests.simulation.model import ModelRedis

SEQUENCES = 300
OPERATIONS = 30
MERCHANTS = ("m1", "m2", "m3")

Message = tuple[str, object]
"""``("announcement", merchant_id)``, None for all; or ``("reply", fields in order)``."""


@pytest.fixture(params=["redis", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """A server of this test's own, which may be flushed."""
    if request.param == "redis":
        started = Redis.start(tmp_path)
        yield started.url
        started.stop()
    else:
        with embedded_server() as of_valkey:
            yield of_valkey


class RealRedis:
    """A real server with one tracked connection and one that changes things."""

    def __init__(self, address: Address, tracked: Connection, ordinary: Connection) -> None:
        self.address = address
        self.tracked = tracked
        self.ordinary = ordinary
        self.real_ids: dict[EntryId, EntryId] = {}
        """The real ID of each entry by that in the model."""
        self.last_ms = 0
        """When a history ended; 0 if the server's clock has passed that."""

    async def reconnect(self) -> None:
        self.tracked.close()
        self.tracked = await open_connection(self.address, "test", tracks=True)

    async def do(self, *words: str | bytes | int) -> object:
        """Change something, as anybody might."""
        (reply,) = await self.do_all([words])
        return reply

    async def do_all(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[object]:
        await self.ordinary.send(commands)
        return [await self.ordinary.read() for _ in commands]

    async def add(
        self, merchant_id: str, max_entries: int, serials: Iterable[int]
    ) -> list[EntryId | None]:
        await self.pass_last_ms()
        xadd = ("XADD", stream_key(merchant_id), "MAXLEN", "=", max_entries, "*", "data")
        return [
            EntryId.parse(reply.decode()) if isinstance(reply, bytes) else None
            for reply in await self.do_all([(*xadd, serial) for serial in serials])
        ]

    async def forget(self, *words: str | bytes | int) -> None:
        """End a history: what comes next must not have an ID of it by coincidence."""
        await self.do(*words)
        self.last_ms = await self.now_ms()

    async def pass_last_ms(self) -> None:
        async with asyncio.timeout(5 * SECOND):
            while self.last_ms:
                if await self.now_ms() > self.last_ms:
                    self.last_ms = 0

    async def now_ms(self) -> int:
        reply = await self.do("TIME")
        assert isinstance(reply, list)
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    async def read(self, read: Read) -> list[Message]:
        """Read over the tracked connection; return all messages up to its reply, in order."""
        start = None if read.start is None else self.real_ids[read.start]
        end = None if read.end is None else self.real_ids[read.end]
        await self.tracked.send(
            [read_command(stream_key(read.merchant_id), Read(read.merchant_id, start, end))]
        )
        return await self.messages(read.merchant_id)

    async def announced(self) -> list[Message]:
        """Return what was announced until now."""
        await self.tracked.send([("PING",)])
        messages = await self.messages("")
        assert messages.pop() == ("reply", "PONG")
        return messages

    async def messages(self, merchant_id: str) -> list[Message]:
        messages: list[Message] = []
        async with asyncio.timeout(5 * SECOND):
            while True:
                got = await self.tracked.read_or_announcement()
                if not isinstance(got, Announcement):
                    break
                keys = got.keys
                messages += (
                    [("announcement", None)]
                    if keys is None
                    else [("announcement", merchant_of(key)) for key in keys]
                )
        if got == b"PONG":
            return [*messages, ("reply", "PONG")]
        if is_elsewhere(got):
            return [*messages, ("reply", got)]
        return [
            *messages,
            ("reply", data_of(parse_entries(merchant_id, got, data_limit_bytes=8192))),
        ]


def data_of(entries: list[Entry] | None) -> list[str | None] | None:
    """Return what two lists of entries have in common if they are the same but for their IDs."""
    return None if entries is None else [entry.notification.data for entry in entries]


class Comparison:
    """One sequence of operations on both."""

    def __init__(self, seed: int, real: RealRedis) -> None:
        self.chance = random.Random(seed)
        self.real = real
        self.model = ModelRedis(self.chance)
        self.model.is_ordered = True  # RESP3
        self.model.connect()
        self.known: dict[str, list[EntryId]] = {merchant_id: [] for merchant_id in MERCHANTS}
        self.serial = 0
        self.history: list[str] = []

    async def run(self) -> None:
        names = ["xadd", "burst", "read", "read_since", "read_between", "trim", "delete"]
        names += ["use_again", "set_other_type", "flush", "reconnect", "forget"]
        weights = [8, 1, 4, 6, 3, 2, 2, 1, 1, 0.5, 0.5, 1]
        for name in self.chance.choices(names, weights, k=OPERATIONS):
            merchant_id = self.chance.choice(MERCHANTS)
            self.history.append(f"{name} {merchant_id}")
            messages = await getattr(self, name)(merchant_id)
            messages = [*(messages or ()), *await self.real.announced()]
            assert messages == self.messages_of_model()

    def messages_of_model(self) -> list[Message]:
        messages: list[Message] = []
        while self.model.out:
            kind, value = self.model.take_out()
            messages.append((kind, data_of(value) if kind == "reply" else value))
        return messages

    async def xadd(self, merchant_id: str, count: int = 1) -> None:
        self.serial += count
        serials = range(self.serial - count, self.serial)
        max_entries = self.chance.choice([1, 3, 100])
        real = await self.real.add(merchant_id, max_entries, serials)
        for serial, in_real in zip(serials, real, strict=True):
            self.model.time_ms += 1
            notification = Notification(merchant_id, data=str(serial))
            in_model = self.model.xadd(notification, max_entries=max_entries)
            assert (in_model is None) == (in_real is None)
            if in_model is not None and in_real is not None:
                self.real.real_ids[in_model] = in_real
                self.known[merchant_id].append(in_model)

    async def burst(self, merchant_id: str) -> None:
        """Add so many that a read of them all is cut short."""
        await self.xadd(merchant_id, NEW_ENTRIES + 2)

    async def read(self, merchant_id: str) -> list[Message]:
        return await self.both_read(Read(merchant_id))

    async def read_since(self, merchant_id: str) -> list[Message] | None:
        known = self.known[merchant_id]
        if not known:
            return None
        # Often the newest, as the tail does; also one that was trimmed or deleted long ago.
        start = self.chance.choice([known[-1], self.chance.choice(known)])
        return await self.both_read(Read(merchant_id, start))

    async def read_between(self, merchant_id: str) -> list[Message] | None:
        known = self.known[merchant_id]
        if not known:
            return None
        start, end = sorted(self.chance.choices(known, k=2))
        return await self.both_read(Read(merchant_id, start, end))

    async def both_read(self, read: Read) -> list[Message]:
        self.model.out.append(("reply", self.model.read(read)))
        return await self.real.read(read)

    async def trim(self, merchant_id: str) -> None:
        keep = self.chance.choice([0, 1, 2, 5])
        self.model.trim(merchant_id, keep, is_announced=True)
        await self.real.do("XTRIM", stream_key(merchant_id), "MAXLEN", "=", keep)

    async def delete(self, merchant_id: str) -> None:
        self.model.delete(merchant_id)
        await self.real.forget("DEL", stream_key(merchant_id))

    async def use_again(self, merchant_id: str) -> None:
        """Delete the stream, and give an ID of it again."""
        if not self.known[merchant_id]:
            return
        entry_id = self.known[merchant_id][-1]
        self.serial += 1
        self.model.delete(merchant_id)
        notification = Notification(merchant_id, data=str(self.serial))
        self.model.xadd(notification, max_entries=100, entry_id=entry_id)
        key, real_id = stream_key(merchant_id), str(self.real.real_ids[entry_id])
        await self.real.do_all([("DEL", key), ("XADD", key, real_id, "data", self.serial)])

    async def set_other_type(self, merchant_id: str) -> None:
        self.model.set_other_type(merchant_id)
        await self.real.forget("SET", stream_key(merchant_id), "something else")

    async def flush(self, _merchant_id: str) -> None:
        self.model.flush()
        await self.real.forget("FLUSHALL")

    async def forget(self, merchant_id: str) -> None:
        self.model.forget(merchant_id)
        await self.real.forget(*forget_command(stream_key(merchant_id)))

    async def reconnect(self, _merchant_id: str) -> None:
        """Lose the connection, and with it what was armed."""
        self.model.connect()
        await self.real.reconnect()


@asynccontextmanager
async def connected(address: Address) -> AsyncGenerator[RealRedis]:
    with closing(await connect(address)) as ordinary:
        tracked = await open_connection(address, "test", tracks=True)
        real = RealRedis(address, tracked, ordinary)
        try:
            yield real
        finally:
            real.tracked.close()


async def test_the_model_of_redis_replies_and_announces_as_redis_does(url: str) -> None:
    async with connected(Address.parse(url)) as real:
        for seed in range(SEQUENCES):
            comparison = Comparison(seed, real)
            await real.do("FLUSHALL")
            await real.announced()
            try:
                await comparison.run()
            except AssertionError as exc:
                pytest.fail(f"seed {seed}: {exc}; {', '.join(comparison.history)}")


async def test_an_id_is_higher_than_the_last_though_all_entries_are_gone(url: str) -> None:
    """As ``ModelStream.last`` has it: a stream that is trimmed to nothing goes on from there."""
    key = stream_key("m1")
    async with connected(Address.parse(url)) as real:
        await real.do("XADD", key, "99999999999999-5", "at", "1")
        await real.do("XTRIM", key, "MAXLEN", "=", 0)
        after_trim = await real.do("XADD", key, "*", "at", "1")
        await real.do("DEL", key)
        after_deletion = await real.do("XADD", key, "*", "at", "1")

    assert after_trim == b"99999999999999-6"
    assert isinstance(after_deletion, bytes)
    assert EntryId.parse(after_deletion.decode()) < EntryId(99999999999999, 5)
