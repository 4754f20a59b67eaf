from __future__ import annotations

import re

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import EVENT_ID_PATTERN, Change, EventId
from sse_push.stream.histories import NamesHistory, history_of
from tests.harness.keys import KEYS
from tests.unit.stream.followed import at

ONE, OTHER = b"run_id:0123456789abcdef", b"run_id:0123456789abcdee"


class Noting:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def armed(self, merchant_id: str, newest: EventId | None) -> None:
        self.told.append((merchant_id, newest))

    def publish(self, change: Change, history: str) -> None:
        self.told.append((change, history))

    def revoke(self, revocation: Revocation, at: float) -> None:
        raise AssertionError(f"revocations take another way, got {revocation} at {at}")

    def revoke_all(self, until: float) -> None:
        raise AssertionError(f"revocations take another way, got all until {until}")


def test_a_history_has_a_name_that_depends_on_nothing_but_the_run_of_the_server() -> None:
    # written out: a version that made another name would cost each browser a refetch
    assert history_of(ONE, KEYS.prefix) == "da01899e"
    assert history_of(OTHER, KEYS.prefix) != history_of(ONE, KEYS.prefix)
    assert history_of(b"", KEYS.prefix) == history_of(b"", "shop") == ""


def test_another_prefix_of_keys_has_another_history_on_the_same_server() -> None:
    names = {history_of(ONE, prefix) for prefix in (KEYS.prefix, "shop", "shop:staging")}

    assert len(names) == 3


@pytest.mark.parametrize("server_id", [ONE, b""])
def test_an_id_is_read_from_what_is_written(server_id: bytes) -> None:
    event_id = EventId(at(7), history_of(server_id, KEYS.prefix))

    assert EventId.parse(str(event_id)) == event_id
    assert re.fullmatch(EVENT_ID_PATTERN, str(event_id))


@pytest.mark.parametrize(
    ("before", "now", "is_continued"),
    [
        (ONE, ONE, True),
        (ONE, OTHER, False),
        (ONE, b"", False),
        (b"", ONE, False),
        (b"", b"", False),  # nobody knows
    ],
)
def test_a_history_is_continued_only_by_the_same_run_of_a_server(
    before: bytes, now: bytes, *, is_continued: bool
) -> None:
    history = NamesHistory(Noting(), KEYS.prefix)
    is_first_continued = history.connected(before)

    assert not is_first_continued
    assert history.connected(now) is is_continued


def test_what_is_found_is_passed_on_with_the_name_of_the_history_that_it_was_found_in() -> None:
    listener = Noting()
    history = NamesHistory(listener, KEYS.prefix)
    change = Change("42", at(8))

    history.connected(ONE)
    history.armed("42", at(7))
    history.armed("43", None)
    history.connected(OTHER)
    history.publish(change)

    assert listener.told == [
        ("42", EventId(at(7), history_of(ONE, KEYS.prefix))),
        ("43", None),
        (change, history_of(OTHER, KEYS.prefix)),
    ]
