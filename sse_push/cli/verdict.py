"""What an examination has found, and its verdict: the output of ``check``, and its exit status.

Knows how findings are printed. Does not know what is examined.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import click

from sse_push.runtime.finding import Finding, Level
from sse_push.runtime.logs import printable

_ORDER: tuple[Level, ...] = ("failure", "warning", "note", "ok")
"""What stops the service is read first."""


NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Verdict(NamedTuple):
    """What a command says in its first line and its last: if all is well, and if not."""

    good: str
    bad: str


def conclude(
    verdict: Verdict,
    findings: Sequence[Finding],
    settings: Mapping[str, str] = NO_SETTINGS,
    *,
    as_json: bool = False,
) -> int:
    """Print the verdict, the findings and the verdict again; return 0, or 1 after a failure.

    Between the findings and the last line stand the settings that were asked for.
    """
    counts = Counter(finding.level for finding in findings)
    text = verdict.bad if counts["failure"] else verdict.good
    if as_json:
        click.echo(_as_json(text, findings, settings))
        return 1 if counts["failure"] else 0
    summary = f"{'FAILED' if counts['failure'] else 'OK'}: {text}{_numbers(counts)}"
    click.echo(summary)
    for level in _ORDER:
        for finding in findings:
            if finding.level == level:
                click.echo(f"{level:8} {printable(finding.text)}")
    for name, value in settings.items():
        click.echo(f"{'setting':8} {name:28} {printable(value)}")
    click.echo(summary)
    return 1 if counts["failure"] else 0


def _numbers(counts: Counter[Level]) -> str:
    named = [
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}"
        for level in ("failure", "warning")
        if counts[level]
    ]
    return f" ({', '.join(named)})" if named else ""


def _as_json(text: str, findings: Sequence[Finding], settings: Mapping[str, str]) -> str:
    levels = [finding.level for finding in findings]
    answer: dict[str, object] = {
        "ok": "failure" not in levels,
        "verdict": text,
        "failures": levels.count("failure"),
        "warnings": levels.count("warning"),
        "findings": [finding._asdict() for finding in findings],
    }
    return json.dumps({**answer, "settings": settings} if settings else answer, indent=2)
