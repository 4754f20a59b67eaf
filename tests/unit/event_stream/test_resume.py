from __future__ import annotations

import pytest

from sse_push.event_stream.resume import missed, missed_topics, owed
from sse_push.hub import Reason, Refresh
from sse_push.notification import EntryId
from tests.unit.event_stream.service import entry


@pytest.mark.parametrize(
    ("last_event_id", "newest", "reason"),
    [
        (None, None, "connected"),
        ("", None, "connected"),
        (None, EntryId(7, 0), "connected"),
        ("", EntryId(7, 0), "connected"),
        ("7-0", EntryId(7, 0), None),
        ("07-00", EntryId(7, 0), None),
        ("7-0", None, "missed"),
        ("0-0", None, "missed"),
        ("7-1", EntryId(7, 0), "missed"),
        ("10-0", EntryId(9, 0), "missed"),
        ("0-0", EntryId(7, 0), "missed"),
        ("nonsense", EntryId(7, 0), "missed"),
        ("7-0\n", EntryId(7, 0), "missed"),
        (f"{2**64 - 1}-{2**64 - 1}", EntryId(7, 0), "missed"),
        (f"{2**64}-0", EntryId(7, 0), "missed"),
        ("\ud800", EntryId(7, 0), "missed"),
    ],
)
def test_a_client_is_owed_a_refresh_unless_it_has_the_newest_id(
    last_event_id: str | None, newest: EntryId | None, reason: Reason | None
) -> None:
    expected = () if reason is None else (Refresh(3, newest, reason=reason),)

    assert owed(last_event_id, newest, 3) == expected


@pytest.mark.parametrize("text", ["6-9", "0-1", "7-0"])
def test_a_client_with_an_older_id_is_owed_what_only_the_stream_knows(text: str) -> None:
    assert owed(text, EntryId(7, 1), 3) == EntryId.parse(text)


def test_entries_missed_are_owed_topic_by_topic_if_they_are_known() -> None:
    entries = [entry(1, "a", data="1", by="x"), entry(2)]

    assert missed_topics(entries, 3) == (
        Refresh(3, EntryId(1, 0), "a", "1", "x", "missed"),
        Refresh(3, EntryId(2, 0), reason="missed"),
    )
    assert missed(EntryId(2, 0), 3) == Refresh(3, EntryId(2, 0), reason="missed")
