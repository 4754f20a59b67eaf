"""When an entry is planted, with which commands, and how long it lives."""

from __future__ import annotations

import pytest

from sse_push.notification import EntryId
from sse_push.stream.contract import Command, try_script_command
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.pipeline import OnReply
from sse_push.stream.planting import Planting
from sse_push.stream.reads import Held, Read
from sse_push.stream.replies import ErrorReply
from sse_push.stream.watch import Watch
from tests.harness.keys import KEYS

TTL_S = 6000
LIFETIME_S = 6601
PLANTING = Read("42", is_planting=True)
REFUSED = ErrorReply("OOM command not allowed")


class Planted:
    """Plants, and a Redis that answers as it is told."""

    def __init__(self, *, max_planted: int = 100, ttl_s: float = TTL_S) -> None:
        self.now_s = 1000.0
        self.planting = Planting(
            KEYS, max_planted=max_planted, stream_ttl_s=ttl_s, now=lambda: self.now_s
        )

    def connect(self, scripts: object = 1, evicted: int = 0) -> None:
        self.planting.connected()
        replies = {"EVAL": scripts, "INFO": statistics(evicted)}
        for command, on_reply in self.planting.take(100):
            on_reply(replies[str(command[0])])

    def plant(self, merchant_id: str, reply: object = 1) -> bool:
        """Plant if that is allowed, and let Redis reply to the first command."""
        if not self.planting.may_plant(merchant_id):
            return False
        ((_, on_reply), *others) = self.planting.before(Read(merchant_id, is_planting=True))
        on_reply(reply)
        for _, on_other in others:
            on_other(1)
        return True

    def look(self, evicted: int) -> list[Command]:
        """Let a second pass, and answer what is asked about evictions."""
        self.now_s += 1
        self.planting.swept([])
        return [answer(request, statistics(evicted)) for request in self.planting.take(100)]


def statistics(evicted: int) -> bytes:
    return b"# Stats\r\nexpired_keys:7\r\nevicted_keys:%d\r\nevicted_clients:9\r\n" % evicted


def answer(request: tuple[Command, OnReply], reply: object) -> Command:
    command, on_reply = request
    on_reply(reply)
    return command


@pytest.fixture
def planted() -> Planted:
    planted = Planted()
    planted.connect()
    return planted


# -- the commands


def test_a_read_that_plants_nothing_is_sent_alone(planted: Planted) -> None:
    assert planted.planting.before(Read("42")) == []


def test_a_plant_is_one_script_that_leaves_an_existing_stream_alone(planted: Planted) -> None:
    assert planted.planting.may_plant("42")

    ((command, _),) = planted.planting.before(PLANTING)

    assert command[0] == "EVAL"
    assert command[2:4] == (1, "sse_push:{42}")
    assert command[5] == LIFETIME_S


def test_a_plant_without_scripts_is_an_entry_and_its_lifetime(planted: Planted) -> None:
    planted.connect(scripts=ErrorReply("NOPERM this user has no permissions"))

    xadd, expire = (command for command, _ in planted.planting.before(PLANTING))

    assert xadd[:4] == ("XADD", "sse_push:{42}", "*", "sse_push:planted")
    assert expire == ("EXPIRE", "sse_push:{42}", LIFETIME_S)
    assert planted.plant("42", b"7-0")
    assert planted.planting.tally.outcomes["planted"] == 1


def test_two_plants_have_two_values(planted: Planted) -> None:
    first, second = (planted.planting.before(PLANTING)[0][0] for _ in range(2))

    assert first[:4] == second[:4]
    assert first[4] != second[4]


# -- when


def test_a_merchant_is_planted_once_in_ten_minutes(planted: Planted) -> None:
    assert planted.plant("42")

    planted.now_s += 599
    too_early = planted.plant("42")
    other = planted.plant("43")
    planted.now_s += 1

    assert not too_early
    assert other
    assert planted.plant("42")


def test_as_many_merchants_as_allowed_are_planted_until_their_entries_expire() -> None:
    planted = Planted(max_planted=2)
    planted.connect()

    assert [planted.plant(each) for each in ("1", "2", "3")] == [True, True, False]

    planted.now_s += 700

    assert planted.plant("1")
    assert not planted.plant("3")

    planted.now_s += TTL_S - 700

    assert planted.plant("3")


@pytest.mark.parametrize(("max_planted", "ttl_s"), [(0, TTL_S), (100, 599)])
def test_nothing_is_planted_if_that_is_off_or_would_not_last(
    max_planted: int, ttl_s: float
) -> None:
    planted = Planted(max_planted=max_planted, ttl_s=ttl_s)
    planted.connect()

    assert not planted.plant("42")
    assert planted.planting.take(100) == []


def test_a_stream_that_exists_meanwhile_takes_nobodys_place() -> None:
    planted = Planted(max_planted=1)

    assert planted.plant("1", reply=0)
    assert planted.plant("2")
    assert planted.planting.tally.outcomes["planted"] == 1


def test_plants_have_a_rate() -> None:
    planted = Planted(max_planted=100_000)

    at_once = sum(planted.plant(str(number)) for number in range(10_100))
    planted.now_s += 0.0625
    later = sum(planted.plant(str(number)) for number in range(20_000, 20_100))

    assert at_once == 10_000
    assert later == 62


def test_nothing_is_planted_for_a_while_after_redis_has_refused(planted: Planted) -> None:
    assert planted.plant("42", REFUSED)

    planted.now_s += 29
    too_early = planted.plant("42")
    planted.now_s += 1

    assert not too_early
    assert planted.plant("42")
    assert planted.planting.tally.outcomes == {"planted": 1, "refused": 1}


def test_a_key_that_holds_something_else_meanwhile_stops_no_other_plant(planted: Planted) -> None:
    assert planted.plant("42", ErrorReply("WRONGTYPE Operation against a key"))

    assert planted.plant("43")
    assert planted.planting.tally.outcomes == {"planted": 1, "refused": 0}


def test_a_plant_whose_connection_is_lost_may_be_tried_again(planted: Planted) -> None:
    assert planted.plant("42", RedisConnectionError("lost"))

    assert planted.plant("42")
    assert planted.planting.tally.outcomes["refused"] == 0


# -- evictions


def test_nothing_is_planted_while_redis_evicts(
    planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    planted.plant("1")
    assert planted.look(evicted=1) == [("INFO", "stats")]
    planted.look(evicted=2)

    planted.now_s += 599
    too_early = planted.plant("2")
    planted.now_s += 1

    assert not too_early
    assert planted.plant("2")
    assert caplog.messages == ["redis evicts keys, nothing is planted pause_s=600"]


def test_evictions_are_not_asked_for_unless_something_was_planted(planted: Planted) -> None:
    assert planted.look(evicted=0) == []

    planted.plant("1")

    assert planted.look(evicted=0) == [("INFO", "stats")]
    assert planted.look(evicted=0) == []
    assert planted.plant("2")


def test_evictions_are_asked_for_in_the_middle_of_many_plants() -> None:
    planted = Planted(max_planted=1000)
    planted.connect()
    for number in range(255):
        planted.plant(str(number))
    assert planted.planting.take(100) == []

    planted.plant("255")
    (request,) = planted.planting.take(100)
    answer(request, statistics(1))

    assert not planted.plant("256")


def test_evictions_before_the_connection_and_unknown_ones_stop_nothing(planted: Planted) -> None:
    planted.connect(evicted=1000)
    planted.plant("1")
    planted.now_s += 1
    planted.planting.swept([])
    for reply in (RedisConnectionError("lost"), b"# Stats\r\n"):
        for request in planted.planting.take(100):
            answer(request, reply)
        planted.plant(str(reply))
        planted.planting.swept([])

    assert planted.plant("2")


# -- lifetime


def watching(*, is_planted: bool = True) -> Watch:
    watch = Watch("42")
    watch.hold(Held(EntryId(7, 0), 1, is_planted))
    return watch


@pytest.mark.parametrize(
    ("lifetime_s", "is_renewed"),
    [(-2, False), (-1, True), (LIFETIME_S // 2, True), (LIFETIME_S // 2 + 1, False)],
)
def test_a_planted_entry_is_renewed_below_half_of_its_lifetime(
    planted: Planted, lifetime_s: int, *, is_renewed: bool
) -> None:
    planted.planting.swept([watching()])

    (request,) = planted.planting.take(100)

    assert answer(request, lifetime_s) == ("TTL", "sse_push:{42}")
    renewals = [answer(each, 1) for each in planted.planting.take(100)]
    assert renewals == [("EXPIRE", "sse_push:{42}", LIFETIME_S)] * is_renewed


def test_a_lifetime_that_redis_does_not_tell_is_left_as_it_is(planted: Planted) -> None:
    planted.planting.swept([watching()])

    (request,) = planted.planting.take(100)
    answer(request, RedisConnectionError("lost"))

    assert planted.planting.take(100) == []


def test_the_lifetime_is_looked_at_now_and_then_at_random(planted: Planted) -> None:
    watch = watching()
    planted.planting.swept([watch])
    planted.planting.swept([watch])
    assert len(planted.planting.take(100)) == 1
    assert 0.1 * TTL_S <= watch.lifetime_due_at - planted.now_s <= 0.2 * TTL_S

    planted.now_s += 0.2 * TTL_S
    planted.planting.swept([watch])

    assert len(planted.planting.take(100)) == 1


def test_only_planted_entries_are_kept_alive(planted: Planted) -> None:
    planted.planting.swept([watching(is_planted=False)])
    planted.planting.swept([Watch("43")])

    assert planted.planting.take(100) == []


def test_what_was_to_be_asked_on_a_lost_connection_is_forgotten(planted: Planted) -> None:
    planted.planting.swept([watching()])
    planted.planting.connected()

    assert [command for command, _ in planted.planting.take(1)] == [try_script_command(KEYS.script)]
    assert [command for command, _ in planted.planting.take(100)] == [("INFO", "stats")]
