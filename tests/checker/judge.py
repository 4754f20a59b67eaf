"""The judgment: both histories held against the promises.

Knows all rules and in which words a breach is said. Does not know how the histories were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from tests.checker.connections import Broken, broken_on, events_of
from tests.checker.coverage import Coverage, Covered, Losses, Stored, told
from tests.checker.history import Answer, End, Outcome, Position, Visit, Witness
from tests.checker.terms import Promise, Terms

SAID_AT_MOST = 5
"""How many breaches of one promise are said one by one."""


@dataclass(slots=True)
class Verdict:
    """What is to be said of a run."""

    browsers: int = 0
    connections: int = 0
    events: int = 0
    refreshes: int = 0
    accepted: int = 0
    lost: int = 0
    """Browsers that were not told of an accepted notification."""
    slowest_s: float = 0.0
    """The longest time from an acceptance to the refresh, of those that were told."""
    ends: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    breaches: dict[str, int] = field(default_factory=dict)
    """How often each promise was broken."""

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return asdict(self)


def judge(
    witnesses: Sequence[Witness], answers: Sequence[Answer], terms: Terms, judged_at: float
) -> Verdict:
    """Hold what browsers received against what the backend was answered."""
    verdict = Verdict(
        browsers=len(witnesses),
        connections=sum(len(each.visits) for each in witnesses),
        events=sum(1 for _ in events_of(witnesses)),
        refreshes=sum(each.refreshes for each in witnesses),
        accepted=sum(each.outcome is Outcome.ACCEPTED for each in answers),
        ends=dict(Counter(str(visit.end) for each in witnesses for visit in each.visits)),
    )
    count: Counter[Promise] = Counter()

    def say(who: str, broken: Iterator[Broken]) -> None:
        for promise, text in broken:
            count[promise] += 1
            if count[promise] <= SAID_AT_MOST:
                verdict.wrong.append(f"{promise}: {who}: {text}")

    losses = Losses(terms.losses)
    for witness in witnesses:
        stored = losses.store([a for a in answers if a.merchant_id == witness.merchant_id])
        covered = told(witness, stored, losses).finish()
        verdict.lost += any(each.at is None for each in covered)
        times = [each.at - each.answer.answered_at for each in covered if each.at is not None]
        verdict.slowest_s = max([verdict.slowest_s, *times])
        say(witness.name, broken_on(witness, terms, judged_at))
        say(witness.name, _left_behind(covered, terms))
        say(witness.name, _ids_and_data(witness, stored, losses))
        say(witness.name, _told_after_losses(witness, terms))
        say(witness.name, _caused(witness, answers, terms))
    say("the backend", _honest(answers, terms))
    verdict.breaches = {str(promise): times for promise, times in count.items()}
    return verdict


def unheard_until(
    witnesses: Sequence[Witness], answers: Sequence[Answer], terms: Terms
) -> float | None:
    """Return until when to wait for what has not been heard; None if all has."""
    losses, due = Losses(terms.losses), 0.0
    for witness in witnesses:
        stored = losses.store([a for a in answers if a.merchant_id == witness.merchant_id])
        waiting = [c for c in told(witness, stored, losses).finish() if c.at is None]
        due = max([due, *(terms.due(each.answer.answered_at) for each in waiting)])
        due = max([due, *(terms.due(at) for at in _silent_since(witness, terms))])
    return due or None


def _left_behind(covered: Sequence[Covered], terms: Terms) -> Iterator[Broken]:
    """Promise 1: every accepted notification is told, and in time."""
    for each in covered:
        answer = each.answer
        name = f"{answer.merchant_id}'s {answer.position} of topic {answer.topic}"
        if each.at is None:
            yield Promise.HEARD, f"{name} was accepted, and never told"
        elif each.at > terms.due(answer.answered_at):
            late_s = each.at - max(answer.answered_at, terms.healed_at)
            yield Promise.HEARD, f"{name} was told after {late_s:.1f} s, limit {terms.within_s:g}"


def _ids_and_data(witness: Witness, stored: Sequence[Stored], losses: Losses) -> Iterator[Broken]:
    """Promise 1 for whoever comes back: no ID before its refresh; and ``data`` for exactly one."""
    coverage = Coverage(stored, losses)
    for visit in witness.visits:
        known = Position.parse(visit.last_event_id)
        for event in visit.events:
            for text in coverage.hear(event):
                yield Promise.DATA, text
            position = event.position
            if event.type == "refresh" or position is None:
                continue
            if count := coverage.uncovered_up_to(event):
                yield Promise.ID, f"{event.type} brings {position}, and {count} were not told"
            if known is not None and known.history != position.history:
                yield Promise.ID, f"{event.type} brings {position} to a browser that knew {known}"


def _told_after_losses(witness: Witness, terms: Terms) -> Iterator[Broken]:
    """Promise 4: after a loss every browser is refreshed."""
    for at in _silent_since(witness, terms):
        yield Promise.LOSS, f"no refresh since Redis lost data, {terms.due(at) - at:.1f} s"


def _silent_since(witness: Witness, terms: Terms) -> list[float]:
    """Return the losses after which a browser got no refresh in time."""
    times = [
        event.at for visit in witness.visits for event in visit.events if event.type == "refresh"
    ]
    return [at for at in terms.losses if not any(at <= each <= terms.due(at) for each in times)]


def _caused(witness: Witness, answers: Sequence[Answer], terms: Terms) -> Iterator[Broken]:
    """Promises 5 and 6: what a refresh says is from this merchant, and was not refused."""
    by_name = {answer.by: answer for answer in answers if answer.by is not None}
    own = [answer for answer in answers if answer.merchant_id == witness.merchant_id]
    may_be_stored = any(answer.outcome is Outcome.UNKNOWN for answer in own)
    known = {answer.position for answer in own}
    for _, event in events_of([witness]):
        said = event.said
        if event.type != "refresh":
            continue
        cause = by_name.get(str(said.get("by")))
        if cause is not None and cause.merchant_id != witness.merchant_id:
            yield Promise.ISOLATION, f"{event.id} was caused by {cause.by} of {cause.merchant_id}"
        elif cause is not None and cause.outcome is Outcome.REFUSED:
            yield Promise.HONEST, f"{cause.by} is told as {event.id}, though it was refused"
        is_ordinary = "reason" not in said and terms.is_only_backend and not may_be_stored
        if is_ordinary and event.position not in known:
            yield Promise.ISOLATION, f"no notification of {witness.merchant_id} caused {event.id}"


def _honest(answers: Sequence[Answer], terms: Terms) -> Iterator[Broken]:
    """Promise 5: answers come in time, and each acceptance has an ID of its own."""
    seen: set[tuple[str, Position]] = set()
    losses = Losses(terms.losses)
    for answer in answers:
        if terms.answer_s is not None and answer.took_s > terms.answer_s + terms.slack_s:
            yield Promise.BOUNDED, f"answered after {answer.took_s:.1f} s, limit {terms.answer_s:g}"
        if answer.position is None:
            continue
        era = f"{answer.merchant_id} {losses.before(answer.answered_at)}"
        if (era, answer.position) in seen:
            yield Promise.HONEST, f"{answer.merchant_id}'s {answer.position} was given twice"
        seen.add((era, answer.position))


def has_arrived(visits: Sequence[Visit]) -> bool:
    """Tell whether a browser is open now, and was refreshed at least once."""
    return (
        bool(visits)
        and visits[-1].end is End.OPEN
        and any(event.type == "refresh" for visit in visits for event in visit.events)
    )
