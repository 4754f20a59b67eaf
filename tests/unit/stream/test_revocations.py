from __future__ import annotations

import random

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import EntryId
from sse_push.stream.revocations import PAGE_ENTRIES, RevocationEntry, RevocationTail


def at(number: int) -> EntryId:
    return EntryId(number, 0)


def said(number: int) -> Revocation:
    return Revocation(f"m-{number}")


def entries(*numbers: int) -> list[RevocationEntry]:
    return [RevocationEntry(at(number), said(number)) for number in numbers]


class Followed:
    """A tail of revocations, and what it has told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.tail = RevocationTail(self.on_revoked)
        self.tail.connected()

    def on_revoked(self, revocation: Revocation, seconds: float) -> None:
        number = int(revocation.merchant_id.removeprefix("m-"))
        assert seconds == number / 1000
        self.told.append(number)

    def answer(self, *numbers: int) -> EntryId | None:
        """Send the read that is wanted, answer it, and return where it began."""
        begin = self.tail.begin_read()
        assert begin is not None, "a read is wanted"
        self.tail.answered(entries(*numbers))
        return begin[0]


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_it_is_read_from_the_beginning_and_complete_then(followed: Followed) -> None:
    assert not followed.tail.is_complete

    assert followed.answer(1, 2) is None

    assert followed.told == [1, 2]
    assert followed.tail.is_complete
    assert followed.tail.begin_read() is None


def test_a_stream_that_is_not_there_is_complete(followed: Followed) -> None:
    followed.answer()

    assert followed.told == []
    assert followed.tail.is_complete


def test_before_it_is_connected_nothing_is_read_and_nothing_known() -> None:
    tail = RevocationTail(lambda _revocation, _at: None)

    assert tail.begin_read() is None
    assert not tail.is_complete


def test_what_is_announced_is_read_from_what_we_hold_inclusive(followed: Followed) -> None:
    followed.answer(1, 2)
    followed.tail.mark()

    assert followed.answer(2, 3) == at(2)

    assert followed.told == [1, 2, 3]
    assert followed.tail.is_complete


def test_an_announcement_without_anything_new_tells_nothing(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    followed.answer(1)

    assert followed.told == [1]
    assert followed.tail.is_complete


def test_the_first_entry_of_all_is_told(followed: Followed) -> None:
    followed.answer()
    followed.tail.mark()

    assert followed.answer(1) is None

    assert followed.told == [1]


def test_there_is_one_read_at_a_time(followed: Followed) -> None:
    assert followed.tail.begin_read() is not None
    followed.tail.mark()

    assert followed.tail.begin_read() is None


def test_an_announcement_during_a_read_has_it_read_again(followed: Followed) -> None:
    assert followed.tail.begin_read() is not None
    followed.tail.mark()
    followed.tail.answered(entries(1))

    assert followed.answer(1, 2) == at(1)
    assert followed.told == [1, 2]


def test_an_answer_that_is_full_is_read_on_until_one_is_not(followed: Followed) -> None:
    first = range(1, PAGE_ENTRIES + 1)
    second = range(PAGE_ENTRIES, 2 * PAGE_ENTRIES)

    followed.answer(*first)
    assert not followed.tail.is_complete
    assert followed.answer(*second) == at(PAGE_ENTRIES)
    assert not followed.tail.is_complete
    assert followed.answer(2 * PAGE_ENTRIES - 1) == at(2 * PAGE_ENTRIES - 1)

    assert followed.tail.is_complete
    assert followed.told == list(range(1, 2 * PAGE_ENTRIES))


@pytest.mark.parametrize("numbers", [(), (6, 7), (1, 2), (4,)])
def test_if_what_we_hold_is_gone_all_is_read_from_the_beginning(
    followed: Followed, numbers: tuple[int, ...]
) -> None:
    followed.answer(1, 5)
    followed.tail.mark()

    assert followed.answer(*numbers) == at(5)
    assert not followed.tail.is_complete
    assert followed.told == [1, 5]

    assert followed.answer(*numbers) is None
    assert followed.tail.is_complete
    assert followed.told == [1, 5, *numbers]


def test_on_a_new_connection_it_is_read_again_and_not_known_until_then(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.connected()

    assert not followed.tail.is_complete
    assert followed.answer(1, 2) == at(1)
    assert followed.tail.is_complete
    assert followed.told == [1, 2]


def test_a_read_that_was_lost_with_its_connection_is_sent_again(followed: Followed) -> None:
    assert followed.tail.begin_read() is not None
    followed.tail.connected()

    followed.answer(1)

    assert followed.told == [1]


def test_an_entry_that_is_none_is_passed_over_and_held(followed: Followed) -> None:
    assert followed.tail.begin_read() is not None
    followed.tail.answered(
        [RevocationEntry(at(1), None), *entries(2), RevocationEntry(at(3), None)]
    )
    followed.tail.mark()

    assert followed.answer(3, 4) == at(3)
    assert followed.told == [2, 4]


def test_an_error_leaves_it_unknown_until_it_is_read(followed: Followed) -> None:
    followed.answer(1)
    followed.tail.mark()
    assert followed.tail.begin_read() is not None
    followed.tail.refused()

    assert not followed.tail.is_complete
    assert followed.tail.is_refused
    assert followed.tail.begin_read() is None, "not again and again: when it is announced, or later"

    followed.tail.mark()
    followed.answer(1, 2)
    assert followed.tail.is_complete
    assert not followed.tail.is_refused
    assert followed.told == [1, 2]


class Model:
    """A server with the stream, which announces a change once after each read, and its tail."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.followed = Followed()
        self.stream: list[int] = []
        self.lost: set[int] = set()
        self.number = 0
        self.is_armed = False
        self.sent: list[EntryId | None] = []
        """Reads on their way."""
        self.out: list[list[int] | None] = []
        """Answers on their way back, and None for an announcement, in order."""

    def change(self) -> None:
        if self.is_armed:
            self.is_armed = False
            self.out.append(None)

    def add(self) -> None:
        for _ in range(self.chance.choice([1, 1, 2, PAGE_ENTRIES + 3])):
            self.number += self.chance.randint(1, 3)
            self.stream.append(self.number)
        self.change()

    def lose(self) -> None:
        """Forget the newest: DEL, or a failover to a server that has less."""
        keep = self.chance.randint(0, len(self.stream))
        self.lost.update(self.stream[keep:])
        del self.stream[keep:]
        self.change()

    def trim(self) -> None:
        cut = self.chance.randint(0, len(self.stream))
        self.lost.update(self.stream[:cut])
        del self.stream[:cut]
        self.change()

    def cut(self) -> None:
        self.sent.clear()
        self.out.clear()
        self.is_armed = False
        self.followed.tail.connected()

    def send(self) -> None:
        self.sent.extend(self.followed.tail.begin_read() or ())

    def serve(self) -> None:
        if self.sent:
            start = self.sent.pop(0)
            first = 0 if start is None else start.ms
            self.out.append([each for each in self.stream if each >= first][:PAGE_ENTRIES])
            self.is_armed = True

    def receive(self) -> None:
        if not self.out:
            return
        got = self.out.pop(0)
        if got is None:
            self.followed.tail.mark()
        else:
            self.followed.tail.answered(entries(*got))

    @property
    def is_at_rest(self) -> bool:
        tail = self.followed.tail
        return tail.is_complete and not (tail._is_dirty or tail._is_reading or self.out)


@pytest.mark.parametrize("seed", range(200))
def test_none_is_overlooked_in_any_order(seed: int) -> None:
    """Adds, trims, losses and cuts, with reads and answers under way all the time."""
    chance = random.Random(seed)
    model = Model(chance)
    work = [model.send, model.serve, model.receive]
    steps = [*work, *work, *work, *work, model.add, model.lose, model.trim, model.cut]
    told, rests = model.followed.told, 0
    for _ in range(400):
        chance.choice(steps)()
        if model.is_at_rest:
            rests += 1
            assert set(model.stream) <= set(told)
    for step in work * 100:
        step()

    assert rests
    assert model.is_at_rest
    assert set(model.stream) <= set(told) <= set(model.stream) | model.lost
