from __future__ import annotations

import pytest

from sse_push.event_stream.resume import missed, missed_topics, owed, position_of
from sse_push.hub import Reason, Refresh
from sse_push.notification import EntryId, EventId
from tests.harness.ids import HISTORY, OTHER_HISTORY, at
from tests.unit.event_stream.service import entry


@pytest.mark.parametrize(
    ("last_event_id", "newest", "reason"),
    [
        (None, None, "connected"),
        ("", None, "connected"),
        (None, at(7), "connected"),
        ("", at(7), "connected"),
        (f"7-0.{HISTORY}", at(7), None),
        (f"07-00.{HISTORY}", at(7), None),
        (f"7-0.{HISTORY}", None, "missed"),
        (f"0-0.{HISTORY}", None, "missed"),
        (f"7-1.{HISTORY}", at(7), "missed"),
        (f"10-0.{HISTORY}", at(9), "missed"),
        (f"0-0.{HISTORY}", at(7), "missed"),
        # of another history, or of nobody knows which
        (f"7-0.{OTHER_HISTORY}", at(7), "missed"),
        (f"6-0.{OTHER_HISTORY}", at(7), "missed"),
        ("7-0", at(7), "missed"),
        ("6-0", at(7), "missed"),
        (f"7-0.{HISTORY}", at(7, history=""), "missed"),
        ("7-0", at(7, history=""), "missed"),
        ("6-0", at(7, history=""), "missed"),
        # malformed
        ("nonsense", at(7), "missed"),
        (HISTORY, at(7), "missed"),
        (f"7-0.{HISTORY}\n", at(7), "missed"),
        (f"7-0.{HISTORY.upper()}", at(7), "missed"),
        (f"7-0.{HISTORY}.{HISTORY}", at(7), "missed"),
        (f"7-0.{HISTORY}0", at(7), "missed"),
        ("7-0.", at(7), "missed"),
        (f"{2**64 - 1}-{2**64 - 1}.{HISTORY}", at(7), "missed"),
        (f"{2**64}-0.{HISTORY}", at(7), "missed"),
        ("\ud800", at(7), "missed"),
    ],
)
def test_a_client_is_owed_a_refresh_unless_it_has_the_newest_id(
    last_event_id: str | None, newest: EventId | None, reason: Reason | None
) -> None:
    expected = () if reason is None else (Refresh(3, newest, reason=reason),)

    assert owed(last_event_id, newest, 3) == expected


OWN, OTHER = f"42@7-0.{HISTORY}", f"43@7-0.{HISTORY}"
PLAIN = f"7-0.{HISTORY}"


@pytest.mark.parametrize(
    ("header", "query", "of_named", "of_plain"),
    [
        (None, None, None, None),
        ("", "", None, None),
        (OWN, None, PLAIN, PLAIN),
        (None, OWN, PLAIN, PLAIN),
        (OTHER, None, None, None),
        # What the header does not say, the query may.
        (OTHER, OWN, PLAIN, PLAIN),
        (OWN, "42@8-0", PLAIN, PLAIN),
        (OTHER, "8-0", None, "8-0"),
        ("8-0", OWN, PLAIN, "8-0"),
        # Of a browser from before IDs had names, or that followed a URL with a merchant.
        (PLAIN, None, None, PLAIN),
        (None, PLAIN, None, PLAIN),
        # malformed
        ("nonsense", None, None, "nonsense"),
        ("42@nonsense", None, "nonsense", "nonsense"),
        ("42@", None, None, None),
        ("@7-0", None, None, None),
        ("42@42@7-0", None, None, None),
        ("4@2@7-0", None, None, None),
        ("42 @7-0", None, None, None),
        ("\ud800@7-0", None, None, None),
    ],
)
def test_a_position_counts_only_for_its_own_merchant(
    header: str | None, query: str | None, of_named: str | None, of_plain: str | None
) -> None:
    places = [[each] if each is not None else [] for each in (header, query)]
    assert position_of("42", places, is_named=True) == of_named
    assert position_of("42", places, is_named=False) == of_plain


@pytest.mark.parametrize(
    ("header", "query", "position"),
    [
        ([], [OWN, OTHER], PLAIN),
        ([], [OTHER, OWN], PLAIN),
        ([OTHER], [OTHER, OWN], PLAIN),
        # Neither the greater nor the last one of two.
        ([], [OWN, "42@8-0"], "?"),
        ([], ["42@8-0", OWN], "?"),
        ([], [OWN, "42@8-0", OWN], "?"),
        ([OWN], [OWN, "42@8-0"], PLAIN),
        ([], [OWN, OWN, "42@"], PLAIN),
    ],
)
def test_a_place_may_have_positions_of_several_merchants_but_one_of_each(
    header: list[str], query: list[str], position: str
) -> None:
    assert position_of("42", (header, query), is_named=True) == position


def test_an_unknown_position_is_owed_a_refresh() -> None:
    unknown = position_of("42", ([OWN, "42@8-0"],), is_named=True)

    assert owed(unknown, at(7), 5) == (missed(at(7), 5),)


@pytest.mark.parametrize("merchant_id", ["a:b", "a.b-1_", "7-0.0a1b2c3d", "m" * 64])
def test_a_position_is_found_whatever_the_form_of_its_merchant(merchant_id: str) -> None:
    assert position_of(merchant_id, ([f"{merchant_id}@{PLAIN}"],), is_named=True) == PLAIN


@pytest.mark.parametrize("text", ["6-9", "0-1", "7-0"])
def test_a_client_with_an_older_id_is_owed_what_only_the_stream_knows(text: str) -> None:
    assert owed(f"{text}.{HISTORY}", at(7, 1), 3) == EntryId.parse(text)


def test_entries_missed_are_owed_topic_by_topic_if_they_are_known() -> None:
    entries = [entry(1, "a", data="1", by="x"), entry(2)]

    assert missed_topics(entries, HISTORY, 3) == (
        # Without data: the client may have heard of a newer entry, and not of an older one.
        Refresh(3, at(1), "a", by="x", reason="missed"),
        Refresh(3, at(2), reason="missed"),
    )
    assert missed(at(2), 3) == Refresh(3, at(2), reason="missed")
