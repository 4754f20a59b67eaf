"""``docs/troubleshooting.md``: what it names is there, and no fault is without a symptom."""

from __future__ import annotations

import re

import pytest

from sse_push.doctor import Fault
from sse_push.errors import EndReason, Refusal, RefusalReason
from sse_push.metrics import SERIES
from sse_push.notification import FIELDS
from sse_push.settings import Settings
from tests.harness.documents import ROOT, rows, section, text

PAGE = "sse_push/docs/troubleshooting.md"
SYMPTOMS = [
    "Nothing arrives",
    "Arrives late",
    "Arrives twice",
    "Works alone, not behind the proxy",
    "Stops after a minute",
    "401 for ever",
    "Tabs hang",
    "After a deploy",
]
OTHERS = {"merchant_id", "auth_request", "no_answer"}
"""What is neither a setting nor in a list: a claim and a field, and a directive of nginx."""


def quoted() -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text(PAGE)))


def test_the_page_goes_by_symptom() -> None:
    assert re.findall(r"^## (.+)$", text(PAGE), re.MULTILINE)[1:] == SYMPTOMS


def test_ten_causes_and_more_are_named_for_nothing_that_arrives() -> None:
    table = rows(section(PAGE, "Nothing arrives"))

    assert len(table) > 10


@pytest.mark.parametrize("title", [each for each in SYMPTOMS if each != "Tabs hang"])
def test_a_cause_has_what_shows_it_and_what_mends_it(title: str) -> None:
    heading, *table = rows(section(PAGE, title))

    assert len(heading) == 3
    assert all(len(row) == 3 and all(row) for row in table)


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_of_doctor_is_under_a_symptom(fault: Fault) -> None:
    assert f"`{fault.value}`" in text(PAGE)


def test_every_name_of_the_page_is_in_the_code() -> None:
    """Those with an underscore; nginx's directives are in its files."""
    files = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))
    known = {*Settings.model_fields, *SERIES, *FIELDS, *OTHERS}
    known |= {each.value for kind in (Fault, EndReason, Refusal, RefusalReason) for each in kind}
    named = {each for each in quoted() if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", each)}

    assert len(named) > 40
    assert {each for each in named if each not in known and each not in files} == set()


def test_every_directive_of_the_page_is_in_the_files_of_nginx() -> None:
    files = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))
    files = re.sub(r"\s+", " ", files)
    directives = [each for each in quoted() if re.match(r"(proxy|client|gzip|tcp)(_\w+)? \S", each)]

    assert len(directives) >= 7
    assert [each for each in directives if each not in files] == []


def test_every_message_of_the_page_is_in_the_table_of_log_lines() -> None:
    table = {row[0].strip("`") for row in rows(section("sse_push/docs/reference.md", "Logs"))}

    messages = {
        *("tail interrupted, reconnecting", "redis refuses reads", "refused"),
        *("worker cannot start", "no worker has started, stopping"),
    }
    assert messages <= quoted()
    assert messages <= table
