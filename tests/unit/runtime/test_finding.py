"""The result of a check."""

from __future__ import annotations

from sse_push.runtime.finding import Finding


def test_a_finding_has_a_level_a_name_for_scripts_and_a_text() -> None:
    finding = Finding("warning", "eviction", "whole streams may vanish")

    assert finding._asdict() == {
        "level": "warning",
        "name": "eviction",
        "text": "whole streams may vanish",
    }
