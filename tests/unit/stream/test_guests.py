"""For how long a node that is no member is added to."""

from __future__ import annotations

from sse_push.stream.address import Place
from sse_push.stream.guests import Guests

ONE, TWO = Place("one", 1), Place("two", 1)


class Noted:
    """Appenders are their names here."""

    def __init__(self) -> None:
        self.now = 0.0
        self.begun: list[Place] = []
        self.ended: list[str] = []
        self.guests = Guests(self.begin, self.ended.append, keep_s=10, now=lambda: self.now)

    def begin(self, place: Place) -> str:
        self.begun.append(place)
        return f"{place} {len(self.begun)}"


def test_a_guest_is_kept_while_it_is_used() -> None:
    noted = Noted()
    for noted.now in (0, 9, 18):
        assert noted.guests.at(ONE) == "one:1 1"
        noted.guests.end_unused()
    assert noted.ended == []

    noted.now = 28
    noted.guests.end_unused()
    assert noted.ended == ["one:1 1"]
    assert noted.guests.at(ONE) == "one:1 2"


def test_a_member_that_has_gone_takes_the_place_of_a_guest() -> None:
    noted = Noted()
    noted.guests.at(ONE)

    noted.guests.keep(ONE, "member")
    noted.guests.keep(TWO, "another")

    assert noted.ended == ["one:1 1"]
    assert noted.guests.at(ONE) == "member"
    noted.now = 10
    noted.guests.end_unused()
    assert noted.ended == ["one:1 1", "member", "another"]
