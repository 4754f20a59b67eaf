from __future__ import annotations

import pytest

from sse_push.stream.reads import NEW_ENTRIES, entries_between
from tests.unit.stream.followed import at, entries, entry


@pytest.mark.parametrize(
    ("found", "between"),
    [
        ([7, 8, 9], [8, 9]),
        ([7, 9], [9]),
        ([8, 9], None),  # trimmed past the start
        ([7, 8], None),  # without the end
        ([9], None),
        ([7], None),
        ([], None),
    ],
)
def test_entries_between_two_ids_are_known_only_if_the_answer_is_whole(
    found: list[int], between: list[int] | None
) -> None:
    expected = None if between is None else tuple(entries(*between))

    assert entries_between(at(7), at(9), entries(*found)) == expected


def test_entries_between_two_ids_are_unknown_if_the_answer_is_full() -> None:
    found = entries(*range(NEW_ENTRIES + 1))

    assert entries_between(at(0), at(NEW_ENTRIES), found) is None
    assert entries_between(at(0), at(NEW_ENTRIES - 1), found[:-1]) == tuple(found[1:-1])


def test_planted_entries_between_two_ids_are_left_out() -> None:
    planted = entry(8)._replace(is_planted=True)

    assert entries_between(at(7), at(9), [entry(7), planted, entry(9)]) == (entry(9),)
    assert entries_between(at(7), at(8), [entry(7), planted]) == ()
    assert entries_between(at(8), at(9), [planted, entry(9)]) == (entry(9),)
    assert entries_between(at(7), at(9), [planted, entry(9)]) is None
