"""Reads on a connection of their own, and which of them is the cause if it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sse_push.stream.address import Address
from sse_push.stream.aside import Aside
from sse_push.stream.contract import read_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import dial
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.pipeline import ReplyLost
from sse_push.stream.reads import Read
from sse_push.stream.replies import ErrorReply, Refusals, WrongServer
from sse_push.stream.standing import Standing
from tests.harness.keys import stream_key
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import MB, stopped
from tests.integration.stream.servers import Server, restart


class Reading:
    """An aside, and the replies of the suspects that are read there."""

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self.refusals = Refusals()
        self.aside = Aside(self.address, self.refusals, reply_limit_bytes=MB)
        self.replies: dict[str, object] = {}
        self.connections = 0

    def arm(self, merchant: str, armed: object = None) -> None:
        """Have a stream read that is under suspicion; the shared connection has armed its key."""
        read = read_command(stream_key(merchant), Read(merchant))

        def on_reply(reply: object) -> None:
            self.replies[merchant] = reply

        command, on_armed = self.aside.request(merchant, read, on_reply)
        assert command == ("XRANGE", stream_key(merchant), "-", "+", "COUNT", 0)
        on_armed(armed)

    def suspect(self, *merchants: str) -> None:
        for merchant in merchants:
            self.aside.lost(merchant, ReplyLost())
            self.arm(merchant)

    async def until_all(self, count: int) -> None:
        await until(lambda: len(self.replies) == count, f"{count} replies in {self.replies}")

    @property
    def too_large(self) -> list[str]:
        return [name for name, each in self.replies.items() if isinstance(each, ReplyTooLarge)]


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[Reading]:
    found = Reading(url)
    task = asyncio.create_task(found.aside.run(await dial(found.address)))
    try:
        yield found
    finally:
        await stopped(task)


def test_a_request_that_was_not_sent_makes_no_suspect() -> None:
    aside = Reading("redis://127.0.0.1:1").aside

    aside.lost("42", RedisConnectionError("lost"))

    assert aside.standings.records == {}


def test_an_error_of_the_shared_connection_is_the_reply() -> None:
    found = Reading("redis://127.0.0.1:1")
    found.aside.lost("42", ReplyLost())
    lost = ReplyLost()

    found.arm("42", lost)

    assert found.replies == {"42": lost}


async def test_suspects_that_are_innocent_are_read_and_cleared(
    server: Server, merchant: str
) -> None:
    merchants = [f"{merchant}-{number}" for number in range(200)]
    server.cli(script="\n".join(f"XADD {stream_key(each)} 1-1 at 1" for each in merchants))
    server.cli("SET", stream_key(f"{merchant}-other-type"), "1")
    async with reading(server.url) as found:
        found.suspect(*merchants, f"{merchant}-other-type")
        await found.until_all(201)

    assert [found.replies[each] for each in merchants] == [[[b"1-1", [b"at", b"1"]]]] * 200
    assert isinstance(found.replies[f"{merchant}-other-type"], ErrorReply)
    assert found.aside.standings.records == {}


@pytest.mark.parametrize("output_limit", ["0", "1mb"])
async def test_the_one_that_is_too_large_is_found_among_many(
    mortal: Redis, merchant: str, output_limit: str
) -> None:
    """The server sends too much, or refuses to send that much, and then sends no other either."""
    server = Server(mortal.url)
    server.cli("CONFIG", "SET", "client-output-buffer-limit", f"normal {output_limit} 0 0")
    merchants = [f"{merchant}-{number}" for number in range(20)]
    entry = f'XADD %s * data "{"1" * 8000}"'
    server.cli(script="\n".join(entry % stream_key(each) for each in merchants))
    fields = " ".join(f"f{number} {'x' * 90_000}" for number in range(30))
    server.cli(script=f"XADD {stream_key(merchants[9])} * {fields}")
    async with reading(server.url) as found:
        found.suspect(*merchants)
        await found.until_all(20)
        records = found.aside.standings.records
        assert set(records) == {merchants[9]}
        assert records[merchants[9]].standing is Standing.OVERSIZED
        found.arm(merchants[9])

    assert found.too_large == [merchants[9]]


async def test_a_server_that_can_not_be_reached_has_refused_the_reads(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    async with reading(mortal.url) as found:
        mortal.kill()
        found.suspect(merchant)
        await until(lambda: bool(found.refusals), "a refusal")
        restart(mortal)
        with pytest.raises(WrongServer):
            await asyncio.wait_for(found.aside.run(b"before"), 5 * SECOND)

    assert server.add(merchant)
    assert found.replies == {}


async def test_a_server_that_does_not_reply_in_time_is_asked_again(
    mortal: Redis, merchant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(mortal.url)
    server.add(merchant)
    async with reading(mortal.url) as found:
        found.suspect(merchant)
        await found.until_all(1)
        monkeypatch.setattr("sse_push.stream.aside._REPLY_LIMIT_S", 0.2 * SECOND)
        with frozen(mortal.process.pid):
            found.suspect(f"{merchant}-other")
            records = found.aside.standings.records
            await until(lambda: records[f"{merchant}-other"].cuts == 1, "a reply to be late")
        await found.until_all(2)

    assert found.replies[f"{merchant}-other"] == []


async def test_a_connection_without_a_read_is_closed_and_made_anew_for_the_next(
    mortal: Redis, merchant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.stream.aside._IDLE_S", 0.2 * SECOND)
    server = Server(mortal.url)
    async with reading(mortal.url) as found:
        for count in (1, 2):
            found.suspect(f"{merchant}-{count}")
            await found.until_all(count)
            assert len(server.clients("aside")) == 1
            await until(lambda: server.clients("aside") == [], "the connection to be closed")
