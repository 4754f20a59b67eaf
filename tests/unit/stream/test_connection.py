"""One connection, driven by hand: what its transport is told, and what its reader gets, when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sse_push.stream import connection as module
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.parser import Garbled, ReplyTooLarge
from tests.harness.waiting import SECOND

LIMIT_BYTES = 1_000_000


class FakeTransport(asyncio.Transport):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading_now = True
        self.is_open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        assert self.is_reading_now
        self.is_reading_now = False

    def resume_reading(self) -> None:
        assert not self.is_reading_now
        assert self.is_open
        self.is_reading_now = True

    def abort(self) -> None:
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open


class Driven:
    """A connection, and the transport that serves it."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.transport = FakeTransport()
        self.connection = Connection(limit_bytes)
        self.connection.connection_made(self.transport)

    def arrive(self, *pieces: bytes) -> Connection:
        for piece in pieces:
            self.connection.data_received(piece)
        return self.connection

    async def waits(self) -> asyncio.Task[object]:
        """Return a task that reads, and waits for bytes."""
        reading = asyncio.create_task(self.connection.read_or_announcement())
        await asyncio.sleep(0)
        assert not reading.done()
        return reading


ENDS: list[Callable[[Connection], None]] = [
    Connection.eof_received,
    lambda connection: connection.connection_lost(None),
    lambda connection: connection.connection_lost(ConnectionResetError(104, "reset by peer")),
    Connection.close,
]


async def test_commands_go_out_as_redis_reads_them() -> None:
    driven = Driven()
    await driven.connection.send([("XADD", "k", 1, b"\xff"), ("GET", "é")])

    assert driven.transport.written == (
        b"*4\r\n$4\r\nXADD\r\n$1\r\nk\r\n$1\r\n1\r\n$1\r\n\xff\r\n"
        b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa9\r\n"
    )


async def test_announcements_come_in_their_order_between_replies() -> None:
    connection = Driven().arrive(
        b"+a\r\n>2\r\n+invalidate\r\n*2\r\n+k1\r\n+k2\r\n#f\r\n>2\r\n+invalidate\r\n_\r\n+b\r\n"
    )

    assert [await connection.read_or_announcement() for _ in range(5)] == [
        b"a",
        Announcement([b"k1", b"k2"]),
        False,
        Announcement(None),
        b"b",
    ]


async def test_a_read_of_replies_alone_passes_announcements_by() -> None:
    connection = Driven().arrive(b">2\r\n+invalidate\r\n*1\r\n+k\r\n_\r\n")

    assert await connection.read() is None


@pytest.mark.parametrize("push", [b">0\r\n", b">3\r\n+message\r\n+c\r\n+m\r\n", b">1\r\n:1\r\n"])
async def test_a_push_of_another_kind_is_passed_by(push: bytes) -> None:
    assert await Driven().arrive(push + b":1\r\n").read_or_announcement() == 1


@pytest.mark.parametrize(
    "keys",
    [b"2\r\n+invalidate\r\n:1\r\n", b"1\r\n+invalidate\r\n", b"2\r\n+invalidate\r\n*1\r\n:1\r\n"],
)
async def test_an_announcement_without_keys_that_can_be_read_is_one_of_all(keys: bytes) -> None:
    assert await Driven().arrive(b">" + keys).read_or_announcement() == Announcement(None)


async def test_a_reply_arrives_in_as_many_pieces_as_it_likes() -> None:
    driven = Driven()
    reading = await driven.waits()
    for byte in b"$3\r\nabc\r":
        driven.arrive(bytes([byte]))
        await asyncio.sleep(0)
    assert not reading.done()
    driven.arrive(b"\n")

    assert await reading == b"abc"


async def test_a_read_that_is_canceled_takes_nothing() -> None:
    driven = Driven()
    reading = await driven.waits()
    driven.arrive(b"$3\r\na")
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    driven.arrive(b"bc\r\n+next\r\n")

    assert [await driven.connection.read() for _ in range(2)] == [b"abc", b"next"]


@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_a_connection_is_told_to_whoever_waits(
    end: Callable[[Connection], None],
) -> None:
    driven = Driven()
    reading = await driven.waits()
    driven.connection.pause_writing()
    sending = asyncio.create_task(driven.connection.send([("PING",)]))
    await asyncio.sleep(0)
    end(driven.connection)

    async with asyncio.timeout(5 * SECOND):
        for task in (reading, sending):
            with pytest.raises(RedisConnectionError):
                await task
    written = driven.transport.written
    with pytest.raises(RedisConnectionError, match="the connection to Redis is lost"):
        await driven.connection.send([("PING",)])
    assert driven.transport.written == written
    assert not driven.connection.is_quiet


@pytest.mark.parametrize("end", ENDS)
async def test_what_arrived_before_the_end_is_read_and_no_part_of_a_reply(
    end: Callable[[Connection], None],
) -> None:
    connection = Driven().arrive(b"+whole\r\n$10\r\nhalf")
    end(connection)

    assert await connection.read() == b"whole"
    with pytest.raises(RedisConnectionError):
        await connection.read()


async def test_the_first_cause_of_a_loss_is_the_one_that_is_told() -> None:
    connection = Driven().connection
    connection.eof_received()
    connection.connection_lost(ConnectionResetError())
    connection.close()

    with pytest.raises(RedisConnectionError, match="closed by server"):
        await connection.read()


async def test_bytes_that_nobody_asked_for_leave_a_connection_that_is_not_quiet() -> None:
    driven = Driven()
    assert driven.connection.is_quiet
    assert not driven.arrive(b"-ERR by a proxy\r\n").is_quiet


async def test_a_send_waits_while_the_server_takes_no_more() -> None:
    driven = Driven()
    driven.connection.pause_writing()
    sending = asyncio.create_task(driven.connection.send([("PING",)]))
    await asyncio.sleep(0)
    assert not sending.done()
    driven.connection.resume_writing()
    await sending

    assert driven.transport.written == b"*1\r\n$4\r\nPING\r\n"


async def test_no_more_is_held_than_a_bound_while_nobody_reads() -> None:
    driven = Driven()
    bulk = b"$30000\r\n" + b"x" * 30_000 + b"\r\n"
    while driven.transport.is_reading_now and driven.connection._held_bytes < 1_000_000:
        driven.arrive(bulk)
    held = driven.connection._held_bytes
    driven.arrive(bulk)  # a piece that was on its way

    assert module._HELD_BYTES < held <= module._HELD_BYTES + len(bulk)
    replies = [await driven.connection.read() for _ in range(3)]
    assert replies == [b"x" * 30_000] * 3
    assert driven.transport.is_reading_now


async def test_a_large_piece_is_counted_as_it_is_read() -> None:
    driven = Driven()
    driven.arrive(b":1\r\n" * 100_000)
    await driven.connection.read()

    assert driven.connection.received_bytes == module._PIECE_BYTES
    for _ in range(99_999):
        assert await driven.connection.read() == 1
    assert driven.connection.received_bytes == 400_000
    assert driven.transport.is_reading_now


async def test_what_is_held_is_read_after_the_transport_has_closed() -> None:
    driven = Driven()
    driven.arrive(b":1\r\n" * 100_000)
    driven.connection.close()

    assert [await driven.connection.read() for _ in range(100_000)] == [1] * 100_000


async def test_a_reply_above_the_limit_ends_the_reading() -> None:
    driven = Driven(limit_bytes=100_000)
    driven.arrive(b"$1000000\r\n", b"x" * 500_000)

    with pytest.raises(ReplyTooLarge):
        await driven.connection.read()
    assert driven.connection.partial_bytes <= 100_000 + module._PIECE_BYTES


async def test_garbage_ends_the_reading() -> None:
    with pytest.raises(Garbled):
        await Driven().arrive(b"garbage\r\n").read()


async def test_a_connection_that_was_never_made_can_be_closed() -> None:
    connection = Connection(LIMIT_BYTES)
    connection.close()

    with pytest.raises(RedisConnectionError, match="closed"):
        await connection.read()
