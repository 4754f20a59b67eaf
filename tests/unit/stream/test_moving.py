"""Streams that are on their way to another node."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

import pytest

from sse_push.stream import moving
from sse_push.stream.address import Address, Place
from sse_push.stream.contract import Command
from sse_push.stream.moving import Moving, asked_place
from sse_push.stream.parser import ReplyTooLarge
from sse_push.stream.replies import ErrorReply, is_elsewhere
from sse_push.stream.revocations import RevocationTail
from sse_push.stream.standing import StreamName
from tests.harness.waiting import until

READ = ("XRANGE", "key", "-", "+")


class Alone:
    """A node whose cluster has nobody at any place."""

    def __init__(self) -> None:
        self.doubts = 0
        self.revocations = cast("RevocationTail", None)

    def has(self, _key: bytes) -> bool:
        return True

    def doubt(self) -> None:
        self.doubts += 1

    def at(self, _place: Place) -> Address:
        return Address("127.0.0.1", 1)


class Noted(Moving):
    """Streams on their way, and which of them were read again."""

    def __init__(self) -> None:
        self.alone = Alone()
        self.read: list[StreamName] = []
        self.gone: set[StreamName] = set()
        self.announced: list[str] = []
        super().__init__(self.alone, self.read_again, self.announced.append, 1000)

    def read_again(self, stream: StreamName) -> bool:
        self.read.append(stream)
        return stream not in self.gone


class Answered(Noted):
    """The same where another node answers, which has no entry."""

    async def _exchange(self, _place: Place, commands: list[Command]) -> list[object]:
        return [[] for _ in commands]


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        (ErrorReply("ASK 7 10.0.0.1:6379"), Place("10.0.0.1", 6379)),
        (ErrorReply("ASK 7 :6379"), Place("", 6379)),
        (ErrorReply("ASK 7 fd00::1:6379"), Place("fd00::1", 6379)),
        (ErrorReply("ASK 7 somewhere"), None),
        (ErrorReply("ASK"), None),
        (ErrorReply("MOVED 7 10.0.0.1:6379"), None),
        ("ASK 7 10.0.0.1:6379", None),
    ],
)
def test_only_ask_names_a_place_to_ask(reply: object, place: Place | None) -> None:
    assert asked_place(reply) == place


def test_a_reply_of_the_owner_is_none_of_another_node() -> None:
    noted, got = Noted(), list[object]()

    assert not noted.takes("42", [], READ, got.append)
    assert (got, noted.alone.doubts) == ([], 0)


def test_a_stream_that_has_moved_is_nothing_to_ask_for() -> None:
    noted, got, moved = Noted(), list[object](), ErrorReply("MOVED 7 h:1")

    assert noted.takes("42", moved, READ, got.append)
    assert (got, noted.alone.doubts) == ([moved], 1)


async def test_a_move_that_is_given_up_after_the_other_node_has_answered_is_a_change() -> None:
    noted, got, ask = Answered(), list[object](), ErrorReply("ASK 7 h:1")
    works = [asyncio.create_task(each) for each in noted.works()]

    assert noted.takes("42", ask, READ, got.append)
    await until(lambda: got == [[]], "the answer of the other node")
    assert noted.announced == []
    assert noted.takes("42", ErrorReply("CLUSTERDOWN"), READ, got.append)
    for _ in range(2):
        assert not noted.takes("42", [], READ, got.append)

    assert noted.announced == ["42"]
    for each in works:
        each.cancel()


async def test_revocations_are_read_from_the_one_held_whoever_has_them() -> None:
    noted, got = Answered(), list[object]()
    works = [asyncio.create_task(each) for each in noted.works()]

    noted.takes(None, ErrorReply("ASK 7 h:1"), READ, got.append)
    await until(lambda: got == [[]], "the answer of the other node")
    noted.takes(None, [], READ, got.append)

    assert noted.announced == []
    for each in works:
        each.cancel()


async def test_where_nobody_answers_the_stream_is_put_off() -> None:
    noted, got = Noted(), list[object]()
    works = [asyncio.create_task(each) for each in noted.works()]

    assert noted.takes("42", ErrorReply("ASK 7 h:1"), READ, got.append)

    await until(lambda: bool(got), "an answer")
    assert is_elsewhere(got[0])
    for each in works:
        each.cancel()


async def test_what_is_expected_is_read_until_its_owner_has_it_or_nobody_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "_AGAIN_S", 0.001)
    noted = Noted()
    for stream in ("42", "43", None):
        noted.expect(stream)
    assert noted.read == ["42", "43", None]
    works = [asyncio.create_task(each) for each in noted.works()]

    await until(lambda: noted.read.count("42") >= 3 <= noted.read.count(None), "two rounds")
    noted.gone = {"43"}
    noted.takes("42", [], READ, lambda _reply: None)
    noted.read.clear()
    await until(lambda: noted.read.count(None) >= 3, "more rounds")

    assert "42" not in noted.read
    assert noted.read.count("43") <= 1
    for each in works:
        each.cancel()


async def test_a_stream_that_another_node_has_read_is_read_again_at_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "_AGAIN_S", 0.001)
    noted, got = Noted(), list[object]()
    monkeypatch.setattr(noted, "_exchange", answered)
    works = [asyncio.create_task(each) for each in noted.works()]

    assert noted.takes("42", ErrorReply("ASK 7 h:1"), READ, got.append)

    await until(lambda: noted.read.count("42") >= 3, "reads at the owner")
    assert got == [[]]
    for each in works:
        each.cancel()


async def answered(_place: Place, commands: list[object]) -> list[object]:
    return [[] for _ in commands]


class TooLarge(Noted):
    """The same where the reply to one of the commands is too large."""

    async def _exchange(self, _place: Place, commands: list[Command]) -> list[object]:
        if ("LARGE",) in commands:
            raise ReplyTooLarge("expected a reply of at most 7 bytes")
        return [[] for _ in commands]


async def test_a_reply_that_is_too_large_costs_the_other_streams_nothing() -> None:
    noted, got, ask = TooLarge(), dict[str, object](), ErrorReply("ASK 7 h:1")
    for stream, command in (("42", READ), ("43", ("LARGE",)), ("44", READ)):
        noted.takes(stream, ask, command, partial(got.__setitem__, stream))
    works = [asyncio.create_task(each) for each in noted.works()]

    await until(lambda: len(got) == 3, "all answers")
    assert (got["42"], got["44"]) == ([], [])
    assert isinstance(got["43"], ReplyTooLarge)
    for each in works:
        each.cancel()
