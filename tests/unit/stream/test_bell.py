"""The messages of the bell: their form, and which one shows that another was lost."""

from __future__ import annotations

import random
import re

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import Notification
from sse_push.stream.bell import TRIAL, Hearing, Ring, Ringer
from sse_push.stream.reads import ProbeEntry
from sse_push.stream.replies import ErrorReply

ONE, OTHER = "0123456789abcdef", "fedcba9876543210"
REFUSED = ErrorReply("NOPERM this user has no permissions to access one of the channels")


def message(number: int, *names: str, appender: str = ONE) -> bytes:
    return " ".join([appender, str(number), *names]).encode()


def numbers_of(ringer: Ringer, *records: Notification | ProbeEntry) -> list[str]:
    """Return the number of the message that goes out with these records, if there is one."""
    return [str(command[2]).split()[1] for command in ringer.commands(records)]


def test_a_message_names_each_stream_once() -> None:
    ringer = Ringer("shop:bell", rings=True)
    records = (Notification("a"), Notification("b"), Notification("a"), Revocation("c"))

    ((verb, channel, text),) = ringer.commands(records)
    ring = Ring.parse(str(text).encode())

    assert (verb, channel) == ("PUBLISH", "shop:bell")
    assert ring is not None
    assert re.fullmatch("[0-9a-f]{16}", ring.appender)
    assert ring[1:] == (1, ("a", "b", "~"))


def test_an_appender_that_does_not_ring_sends_nothing() -> None:
    assert Ringer("shop:bell", rings=False).commands([Notification("a")]) == []


def test_numbers_of_an_appender_count_up_from_1() -> None:
    ringer = Ringer("shop:bell", rings=True)

    assert [numbers_of(ringer, Notification("a")) for _ in range(3)] == [["1"], ["2"], ["3"]]


def test_a_refused_message_is_tried_again_with_a_probe_only_and_its_number_stays_used() -> None:
    ringer = Ringer("shop:bell", rings=True)
    numbers_of(ringer, Notification("a"))
    ringer.answered(REFUSED)

    assert numbers_of(ringer, Notification("a")) == []
    assert numbers_of(ringer, Notification("a"), ProbeEntry("~1")) == ["3"]
    assert numbers_of(ringer, Notification("a")) == []
    ringer.answered(1)
    assert numbers_of(ringer, Notification("a")) == ["5"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"42",
        b"- x 42",
        b"- -1 42",
        b"0123 1 42",
        b"- 0 42 ",
        b"- 0  42",
        b"- 0 \xff",
        b"- 0 4\n",
    ],
)
def test_a_message_of_another_form_doubts_every_stream(text: bytes) -> None:
    assert Hearing().heard(text) is None


def test_the_trial_names_no_stream() -> None:
    assert Hearing().heard(TRIAL.encode()) == ()


def test_a_message_without_numbers_names_its_streams_and_doubts_nothing() -> None:
    hearing = Hearing()

    assert [hearing.heard(b"- 0 42 a.b") for _ in range(2)] == [("42", "a.b")] * 2


def test_the_next_number_of_each_appender_doubts_nothing() -> None:
    hearing = Hearing()

    heard = [
        hearing.heard(message(number, "42", appender=appender))
        for number in (1, 2, 3)
        for appender in (ONE, OTHER)
    ]

    assert heard == [("42",)] * 6


def test_a_gap_in_the_numbers_of_an_appender_doubts_every_stream_once() -> None:
    hearing = Hearing()
    hearing.heard(message(1, "42"))

    assert hearing.heard(message(3, "42")) is None
    assert hearing.heard(message(4, "42")) == ("42",)


def test_an_appender_that_is_new_and_does_not_begin_with_1_doubts_every_stream() -> None:
    hearing = Hearing()

    assert hearing.heard(message(7, "42")) is None
    assert hearing.heard(message(8, "42")) == ("42",)


def test_a_late_message_names_its_streams_and_is_no_step_back() -> None:
    hearing = Hearing()
    hearing.heard(message(1, "a"))

    assert hearing.heard(message(3, "b")) is None
    assert hearing.heard(message(2, "c")) == ("c",)
    assert hearing.heard(message(4, "d")) == ("d",)


def test_an_appender_that_is_forgotten_doubts_every_stream_when_it_is_heard_again() -> None:
    hearing = Hearing(most=2)
    for appender in ("a" * 16, "b" * 16, "a" * 16, "c" * 16):
        number = 2 if appender[0] == "a" and hearing._numbers.get(appender) else 1
        assert hearing.heard(message(number, "42", appender=appender)) == ("42",)

    assert hearing.heard(message(3, "42", appender="a" * 16)) == ("42",)
    assert hearing.heard(message(2, "42", appender="b" * 16)) is None


@pytest.mark.parametrize("seed", range(200))
def test_no_change_stays_unknown_after_the_next_message_of_its_appender(seed: int) -> None:
    """Messages are lost, subscriptions begin anew, and every doubt is a read of all."""
    chance = random.Random(seed)
    appenders = [(Ringer("shop:bell", rings=True), set[str]()) for _ in range(3)]
    hearing = Hearing()
    for step in range(60):
        ringer, unknown = chance.choice(appenders)
        ((_, _, text),) = ringer.commands([Notification(str(step))])
        unknown.add(str(step))
        match chance.random():
            case luck if luck < 0.3:  # the message is lost
                continue
            case luck if luck < 0.35:  # so is the subscription: the next one reads all
                hearing = Hearing()
                for _, each in appenders:
                    each.clear()
                continue
            case _:
                names = hearing.heard(str(text).encode())
        for _, each in appenders:
            each.difference_update(each.copy() if names is None else names)

        assert not unknown
