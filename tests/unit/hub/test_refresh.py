"""How several refreshes become one, and which fields that one has."""

from __future__ import annotations

import itertools

import pytest

from sse_push.hub.refresh import TOPICS_PENDING, Pending, Reason, Refresh, in_order, merge_into
from tests.harness.ids import at


def refresh_of(number: int, topic: str | None = None, **fields: str) -> Refresh:
    return Refresh(number, at(number), topic, fields.get("data"), fields.get("by"))


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        (("a", None, None), ("a", None, None), ("a", None, None)),
        (("a", None, None), ("b", None, None), (None, None, None)),
        (("a", None, None), (None, None, None), (None, None, None)),
        ((None, None, None), ("a", None, None), (None, None, None)),
        (("a", "1", "x"), ("a", "2", "x"), ("a", None, "x")),
        (("a", "1", "x"), ("a", "1", "x"), ("a", None, "x")),
        (("a", None, "x"), ("a", "2", "y"), ("a", None, None)),
        (("a", None, None), ("a", None, "y"), ("a", None, None)),
        (("a", None, "x"), ("a", None, None), ("a", None, None)),
        (("a", "1", "x"), ("b", "2", "x"), (None, None, "x")),
    ],
)
def test_a_merged_refresh_has_only_the_fields_that_hold_for_both(
    older: tuple[str | None, str | None, str | None],
    newer: tuple[str | None, str | None, str | None],
    expected: tuple[str | None, str | None, str | None],
) -> None:
    merged = Refresh(1, at(1), *older).merged_with(Refresh(2, at(2), *newer))

    assert merged == Refresh(2, at(2), *expected)


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    list(itertools.combinations_with_replacement([None, "connected", "missed", "resync"], 2)),
)
def test_a_merged_refresh_has_the_stronger_reason(
    weaker: Reason | None, stronger: Reason | None
) -> None:
    one = Refresh(1, at(1), reason=weaker)
    other = Refresh(2, at(2), reason=stronger)

    assert one.merged_with(other).reason == stronger
    assert other.merged_with(one).reason == stronger


def test_a_merged_refresh_has_the_newer_id_even_if_it_is_lower_or_missing() -> None:
    older = Refresh(1, at(9))

    assert older.merged_with(Refresh(2, at(5))).id == at(5)
    assert older.merged_with(Refresh(2, None)).id is None


def test_topics_are_pending_side_by_side_in_the_order_of_their_newest_ids() -> None:
    pending: Pending = {}

    for number, topic in enumerate(["a", "b", "c", "a"], start=1):
        merge_into(pending, refresh_of(number, topic, data=str(number)))

    assert in_order(pending) == [
        refresh_of(2, "b", data="2"),
        refresh_of(3, "c", data="3"),
        refresh_of(4, "a"),
    ]


def test_a_refresh_without_topic_stands_for_all_pending_ones() -> None:
    pending: Pending = {}

    for number, topic in enumerate(["a", "b", None], start=1):
        merge_into(pending, refresh_of(number, topic, by="x"))

    assert in_order(pending) == [refresh_of(3, None, by="x")]


def test_a_topic_merges_into_a_pending_refresh_without_topic() -> None:
    pending: Pending = {}

    for number, topic in enumerate([None, "a"], start=1):
        merge_into(pending, refresh_of(number, topic, data="1"))

    assert in_order(pending) == [refresh_of(2)]


def test_a_single_pending_refresh_keeps_its_data() -> None:
    pending: Pending = {}

    merge_into(pending, refresh_of(1, None, data="1", by="x"))

    assert in_order(pending) == [refresh_of(1, None, data="1", by="x")]


def test_more_than_thirty_two_topics_merge_into_one_refresh_without_topic() -> None:
    pending: Pending = {}
    for number in range(1, TOPICS_PENDING + 1):
        merge_into(pending, refresh_of(number, f"t{number}"))

    assert TOPICS_PENDING == 32
    assert len(in_order(pending)) == 32

    merge_into(pending, refresh_of(33, "t1"))  # one of them

    assert len(in_order(pending)) == 32

    merge_into(pending, refresh_of(34, "t34"))

    assert in_order(pending) == [refresh_of(34)]


def test_each_merged_refresh_is_counted_once() -> None:
    pending: Pending = {}

    merged = [
        merge_into(pending, refresh_of(number, topic)) for number, topic in enumerate("abaca", 1)
    ]
    covering = merge_into(pending, refresh_of(6, None))
    covered = merge_into(pending, refresh_of(7, "a"))

    assert merged == [0, 0, 1, 0, 1]
    assert (covering, covered) == (3, 1)
    assert sum(merged) + covering + covered + len(pending) == 7


def test_topics_over_the_limit_are_counted_as_merged() -> None:
    pending: Pending = {}

    merged = [merge_into(pending, refresh_of(n, f"t{n}")) for n in range(1, TOPICS_PENDING + 2)]

    assert merged == [0] * TOPICS_PENDING + [TOPICS_PENDING]
