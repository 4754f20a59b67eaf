"""Announcements and messages, and whose streams they have read."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sse_push.stream.connection import Announcement
from sse_push.stream.heard import Heard
from sse_push.stream.leftovers import Leftovers
from tests.harness.keys import KEYS, REVOCATIONS_KEY, stream_key
from tests.unit.stream.followed import Followed


class Counted:
    """The revocations, or the probe: how often they were told of a change."""

    key = REVOCATIONS_KEY.encode()
    merchant_id = "~own"

    def __init__(self) -> None:
        self.count = 0

    def mark(self) -> None:
        self.count += 1

    announced = mark


class Hearing:
    def __init__(self) -> None:
        followed = Followed()
        followed.follow(1)
        followed.follow(1, merchant_id="43")
        self.tail = followed.tail
        self.revocations, self.probe, self.leftovers = Counted(), Counted(), Leftovers()
        self.leftovers.left("42")
        self.wakes = 0
        self.heard = Heard(
            KEYS,
            self.tail,
            cast("Any", self.revocations),
            cast("Any", self.probe),
            self.leftovers,
            self.wake,
        )

    def wake(self) -> None:
        self.wakes += 1

    @property
    def due(self) -> set[str]:
        """The merchants whose streams are read next; each call reads them."""
        return {watch.merchant_id for watch, _ in self.tail.reads(10)}


def keys(*names: str) -> Announcement:
    return Announcement([name.encode() for name in names])


@pytest.fixture
def hearing() -> Hearing:
    return Hearing()


def test_a_key_that_is_announced_has_its_stream_read(hearing: Hearing) -> None:
    hearing.heard.announced(keys(stream_key("42"), "another"))

    assert hearing.due == {"42"}
    assert (hearing.revocations.count, hearing.probe.count, hearing.wakes) == (0, 0, 1)
    assert not hearing.leftovers._merchants


def test_a_name_that_is_said_has_its_stream_read(hearing: Hearing) -> None:
    hearing.heard.said(("43", "44"))

    assert hearing.due == {"43"}
    assert (hearing.revocations.count, hearing.probe.count, hearing.wakes) == (0, 0, 1)


def test_the_revocations_and_the_probe_hear_of_their_own(hearing: Hearing) -> None:
    hearing.heard.announced(keys(REVOCATIONS_KEY, stream_key("~own")))
    hearing.heard.said(("~", "~own"))

    assert hearing.due == set()
    assert (hearing.revocations.count, hearing.probe.count) == (2, 2)


def test_an_announcement_of_all_keys_doubts_every_stream_and_leaves_nothing_over(
    hearing: Hearing,
) -> None:
    hearing.heard.announced(Announcement(None))

    assert hearing.due == {"42", "43"}
    assert (hearing.revocations.count, hearing.probe.count) == (1, 1)
    assert not hearing.leftovers._merchants


def test_a_message_that_was_lost_doubts_every_stream(hearing: Hearing) -> None:
    hearing.heard.said(None)

    assert hearing.due == {"42", "43"}
    assert (hearing.revocations.count, hearing.probe.count) == (1, 1)
    assert hearing.leftovers._merchants, "Redis remembers what it remembered"
