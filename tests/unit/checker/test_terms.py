"""The promises that the checker judges are those of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from tests.checker.terms import Promise, Terms

OPERATIONS = Path(__file__).parents[3] / "sse_push/docs/operations.md"

NO_RULE_OF_ITS_OWN = {
    2: "a refresh for several notifications is judged by promise 1",
    10: "no browser sees it",
}


def test_each_promise_of_the_documentation_is_judged_or_named_as_not() -> None:
    text = OPERATIONS.read_text().partition("## Promises")[2]
    promised = {int(number) for number in re.findall(r"^(\d+)\. \*\*", text, re.MULTILINE)}

    judged = {int(found[1]) for each in Promise if (found := re.match(r"promise (\d+),", each))}

    assert promised == judged | set(NO_RULE_OF_ITS_OWN)
    assert not judged & set(NO_RULE_OF_ITS_OWN)


def test_a_time_to_be_told_begins_when_all_is_whole_again() -> None:
    terms = Terms(within_s=3, slack_s=2, healed_at=100)

    assert (terms.due(50), terms.due(150)) == (105, 155)


def test_a_duration_is_without_the_pauses_of_the_checker() -> None:
    terms = Terms(within_s=1, slack_s=1, pauses=[(0, 12), (15, 16), (18, 30), (40, 50)])

    assert terms.awake_s(10, 20) == 5
