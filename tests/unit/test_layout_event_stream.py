"""The rows of ``event_stream`` in the table of ``test_layout``, and that they are all of its."""

from __future__ import annotations

from tests.unit.test_layout_readers import SOURCES

EVENT_STREAM: dict[str, set[str]] = {
    "event_stream.wire": {"hub", "notification"},
    "event_stream.resume": {"errors", "hub", "notification"},
    "event_stream.gaps": {"event_stream.resume", "hub", "notification"},
    "event_stream.shared": {"errors", "event_stream.gaps", "event_stream.wire", "hub"},
    "event_stream.comparison": {
        "event_stream.gaps",
        "event_stream.resume",
        "event_stream.wire",
        "hub",
        "notification",
    },
    "event_stream.listening": {"access.grant", "errors", "event_stream.wire", "hub"},
    "event_stream.poll": {
        "access.keys",
        "errors",
        "event_stream.comparison",
        "event_stream.listening",
        "event_stream.shared",
        "event_stream.wire",
        "hub",
    },
    "event_stream.opening": {
        "errors",
        "event_stream.comparison",
        "event_stream.gaps",
        "event_stream.listening",
        "event_stream.shared",
        "event_stream.wire",
        "hub",
    },
    "event_stream.transport": {
        "errors",
        "event_stream.listening",
        "event_stream.opening",
        "event_stream.shared",
        "event_stream.wire",
    },
    "event_stream.portable": {
        "errors",
        "event_stream.listening",
        "event_stream.opening",
        "event_stream.shared",
        "event_stream.wire",
    },
    "event_stream.response": {
        "event_stream.listening",
        "event_stream.portable",
        "event_stream.shared",
        "event_stream.transport",
        "runtime.uvicorn",
    },
    "event_stream": {
        "event_stream.gaps",
        "event_stream.listening",
        "event_stream.poll",
        "event_stream.portable",
        "event_stream.resume",
        "event_stream.response",
        "event_stream.shared",
        "event_stream.wire",
    },
}
"""What each module imports of the package; in an order in which none knows a later one."""


def test_the_rows_are_those_of_the_package() -> None:
    package = {each for each in SOURCES if each.partition(".")[0] == "event_stream"}

    assert package == {*EVENT_STREAM}
