"""What many browsers need: the sums, and the document that shows them."""

from __future__ import annotations

import re

import pytest

from sse_push.settings import Settings
from tests.bench.scale import report_of_cluster
from tests.bench.sums import (
    BROWSERS_PER_NGINX_WORKER,
    BROWSERS_PER_WORKER,
    CLUSTER_UNITS,
    CONNECTION_AGE_S,
    EXAMPLE,
    HEARTBEAT_S,
    UNITS,
    Use,
    half_busy,
    needs_table,
    parse_units,
    rounded,
    sums,
    units_table,
    written_out,
)
from tests.harness.documents import ROOT, rows, section, text

SCALE = "sse_push/docs/scale.md"
UNIT_COSTS = section(SCALE, "Unit costs")
CLUSTER = "A cluster of 3 primaries"


def value_of(text: str) -> float:
    """Compute a sum as it is written, in numbers with three digits that count."""
    code = re.sub(r"(?<=\d) (?=\d{3}\b)", "", text).replace("×", "*")
    if code.startswith("the most of "):
        return max(value_of(each) for each in re.split(r",? and |, ", code[len("the most of ") :]))
    assert re.fullmatch(r"[0-9.e*/+() ]+", code), code
    return float(eval(code))


def test_the_sums_of_the_document_follow_from_its_unit_costs() -> None:
    units = parse_units(UNIT_COSTS)

    assert units_table(units) in UNIT_COSTS
    assert f"{Use()}.\n\n{needs_table(units, Use())}\n" in text(SCALE)
    assert f"## The sums for 100 000 browsers\n\n{written_out(units, Use())}\n" in text(SCALE)


def test_the_sums_of_a_cluster_follow_from_its_unit_costs() -> None:
    units, said = parse_units(UNIT_COSTS), section(SCALE, CLUSTER)

    printed = report_of_cluster(units, parse_units(said, CLUSTER_UNITS), Use(), 3)

    title, *tables, worth = printed.split("\n\n")
    assert title == f"## {CLUSTER}"
    assert len(tables) == 3
    for table in tables:
        assert f"\n\n{table}\n\n" in said
    assert worth in " ".join(said.split())


def test_a_redis_is_half_busy_with_as_many_browsers_as_take_half_of_its_core() -> None:
    units = parse_units(UNIT_COSTS)
    browsers = round(half_busy(units, Use()))

    (cores,) = (each.value for each in sums(browsers, units, Use()) if each.name == "Redis, CPU")
    (shared,) = (
        each.value
        for each in sums(3 * browsers, units, Use(), primaries=3)
        if each.name == "Redis, CPU of each primary"
    )

    assert cores == pytest.approx(0.5, rel=0.001)
    assert shared == pytest.approx(0.5, rel=0.001)
    assert half_busy(units, Use(), primaries=3) == pytest.approx(3 * browsers, rel=0.001)


@pytest.mark.parametrize("primaries", [0, 3])
@pytest.mark.parametrize("browsers", [700, 10_000, EXAMPLE, 1_000_000])
def test_a_sum_that_is_written_out_is_the_number_beside_it(browsers: int, primaries: int) -> None:
    units = parse_units(UNIT_COSTS)

    for each in sums(browsers, units, Use(), primaries):
        if each.name.endswith("workers"):  # whole ones
            assert each.value - 1 < value_of(each.sum) <= each.value
        elif not each.sum.endswith(" 0"):
            assert each.value == pytest.approx(value_of(each.sum), rel=0.01), each


def test_the_shares_of_redis_in_the_prose_are_those_of_the_table() -> None:
    needs = {row[0]: row[1:] for row in rows(section(SCALE, "What browsers need"))}
    shares = [f"{float(cell.split()[0]) * 100:.1g}" for cell in needs["Redis, CPU"][:2]]
    shares.append(f"{float(needs['Redis, CPU'][2].split()[0]):.0%}".replace("%", " %"))

    assert f"these columns take {', '.join(shares[:2])} and {shares[2]}." in text(SCALE)


def test_workers_that_hear_of_every_notification_are_as_many_as_their_cores_need() -> None:
    units = dict.fromkeys(UNITS, 0.0) | {"hearing": 100_000.0}
    found = {each.name: each for each in sums(12_000, units, Use(4, 60))}

    # 50 notifications a second, 0.1 s of CPU in each of up to 4 workers: 20 cores, at half each.
    assert found["service, CPU"].value == 20
    assert found["service, workers"].value == 40


def test_a_unit_cost_has_three_digits() -> None:
    assert rounded(dict.fromkeys(UNITS, 123.456))["refresh"] == 123
    assert rounded(dict.fromkeys(UNITS, 0.0123456))["refresh"] == 0.0123


def test_the_constants_of_the_sums_are_the_defaults() -> None:
    defaults = Settings()
    snippet = (ROOT / "nginx/snippets/event-stream.conf").read_text()

    assert defaults.heartbeat_s == HEARTBEAT_S
    assert defaults.max_connection_age_s == CONNECTION_AGE_S
    assert defaults.max_connections * 2 / 3 == BROWSERS_PER_WORKER
    assert f"\nlimit_conn sse_push_worker {BROWSERS_PER_NGINX_WORKER};" in snippet
