from __future__ import annotations

import json

import pytest

from sse_push.demo.audience import SETTLED_MS, Audience


def refresh(seat: str, sold_at_ms: int) -> str:
    return json.dumps({"data": {"seat": seat, "sold_at_ms": sold_at_ms}})


def test_a_sale_is_counted_when_it_has_settled_and_again_when_others_arrive() -> None:
    audience = Audience(listening=4)
    for delay_ms in (5, 9, 30):
        audience.refreshed(refresh("A1", 1_000), 1_000 + delay_ms)

    assert audience.take_count(1_000 + SETTLED_MS - 1) is None
    assert audience.take_count(1_000 + SETTLED_MS) == {
        "seat": "A1",
        "refreshed": 3,
        "listening": 4,
        "median_ms": 9,
        "last_ms": 30,
    }
    assert audience.take_count(1_000 + SETTLED_MS) is None
    audience.refreshed(refresh("A1", 1_000), 1_500)
    late = audience.take_count(1_600)
    assert late is not None
    assert (late["refreshed"], late["last_ms"]) == (4, 500)


def test_a_newer_sale_takes_the_place_of_the_counted_one() -> None:
    audience = Audience(listening=1)
    audience.refreshed(refresh("A1", 1_000), 1_001)
    audience.refreshed(refresh("A2", 2_000), 2_002)
    audience.refreshed(refresh("A1", 1_000), 2_003)

    count = audience.take_count(2_000 + SETTLED_MS)

    assert count is not None
    assert (count["seat"], count["refreshed"], count["last_ms"]) == ("A2", 1, 2)


@pytest.mark.parametrize(
    "refresh_of",
    [{"reason": "missed"}, {"topic": "crowd", "data": {"seat": "A1", "refreshed": 3}}, {"data": 7}],
)
def test_a_refresh_without_a_sale_is_not_counted(refresh_of: dict[str, object]) -> None:
    audience = Audience(listening=1)

    audience.refreshed(json.dumps(refresh_of), 1_000)

    assert audience.take_count(9_000) is None
