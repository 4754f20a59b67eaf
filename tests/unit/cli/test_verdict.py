"""How findings are printed."""

from __future__ import annotations

import json

import pytest

from sse_push.cli.verdict import Verdict, conclude
from sse_push.runtime.finding import Finding

VERDICT = Verdict("it works", "it does not work")
FINE = Finding("ok", "version", "redis 7.0.15")
RISKY = Finding("warning", "persistence", "appendonly is off")
BROKEN = Finding("failure", "password", "wrong \x1b[31m")


def test_a_verdict_is_the_first_line_and_the_last_and_failures_come_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = conclude(VERDICT, [FINE, RISKY, BROKEN, RISKY])

    assert status == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED: it does not work (1 failure, 2 warnings)",
        r"failure  wrong \u001b[31m",
        "warning  appendonly is off",
        "warning  appendonly is off",
        "ok       redis 7.0.15",
        "FAILED: it does not work (1 failure, 2 warnings)",
    ]


@pytest.mark.parametrize(
    ("findings", "summary"),
    [([FINE], "OK: it works"), ([FINE, RISKY], "OK: it works (1 warning)")],
)
def test_a_verdict_without_a_failure_is_a_status_of_0(
    capsys: pytest.CaptureFixture[str], findings: list[Finding], summary: str
) -> None:
    assert conclude(VERDICT, findings) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == last == summary


@pytest.mark.parametrize(("findings", "status"), [([FINE, BROKEN], 1), ([FINE], 0)])
def test_a_verdict_for_a_script_is_one_object(
    capsys: pytest.CaptureFixture[str], findings: list[Finding], status: int
) -> None:
    assert conclude(VERDICT, findings, as_json=True) == status

    assert json.loads(capsys.readouterr().out) == {
        "ok": status == 0,
        "verdict": VERDICT[status],
        "failures": status,
        "warnings": 0,
        "findings": [finding._asdict() for finding in findings],
    }
