from __future__ import annotations

import pytest

from sse_push.event_stream.resume import missed, missed_topics, owed
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
