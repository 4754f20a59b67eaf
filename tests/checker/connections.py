"""What must hold on each connection, whatever was notified: promises 3, 6, 7, 8, 9, and the form.

Knows one browser's history. Does not know the backend's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.checker.history import End, Event, Position, Visit, Witness
from tests.checker.terms import Promise, Terms

Broken = tuple[Promise, str]

PAGE_EVENTS = ("ready", "refresh", "heartbeat", "expiring", "goodbye")


def broken_on(witness: Witness, terms: Terms, judged_at: float) -> Iterator[Broken]:
    """Yield what was wrong on a browser's connections."""
    for visit in witness.visits:
        yield from _form(visit)
        yield from _order(visit)
        yield from _isolation(visit, witness.merchant_id)
        yield from _signs_of_life(visit, terms, judged_at)
        yield from _end(visit, terms)


def _form(visit: Visit) -> Iterator[Broken]:
    """Each event is one of the documented ones, and its data a JSON object."""
    if visit.end is End.MALFORMED:
        yield Promise.FORM, visit.flaw
    if visit.end is End.FINAL:
        yield Promise.COMES_BACK, f"an EventSource gives up after {visit.flaw}"
    for number, event in enumerate(visit.events):
        if event.type not in PAGE_EVENTS or (not event.said and event.data != "{}"):
            yield Promise.FORM, f"expected a documented event, got {event.type}: {event.data[:80]}"
        if event.id is not None and event.position is None:
            yield Promise.FORM, f"expected an ID, got {event.id[:80]}"
        if (event.type == "ready") is not (number == 0) and not _is_soft(visit):
            yield Promise.FORM, f"expected ready first and once, got {event.type} as event {number}"
        if event.type in ("ready", "goodbye") and event.retry_ms is None:
            yield Promise.FORM, f"expected a reconnection time with {event.type}"


def _is_soft(visit: Visit) -> bool:
    """Tell whether this is an answer to come back later: a goodbye and nothing else."""
    return [event.type for event in visit.events] == ["goodbye"]


def _order(visit: Visit) -> Iterator[Broken]:
    """IDs rise on a connection, until a ``resync`` announces another history."""
    newest = Position.parse(visit.last_event_id)
    is_of_before = True
    for event in visit.events:
        position = event.position
        reason = event.said.get("reason") if event.type == "refresh" else None
        if position is None:
            newest = None if event.type == "refresh" and reason is not None else newest
            continue
        if newest is not None and event.type == "refresh":
            is_of_history = position.history == newest.history
            if is_of_before:
                is_right = reason is not None or (is_of_history and position >= newest)
            else:
                is_right = reason == "resync" or (is_of_history and position > newest)
            if not is_right:
                yield Promise.ORDER, f"{position} after {newest}, with reason {reason}"
        if event.type == "refresh" or newest is None:
            is_of_before = False
        newest = position


def _isolation(visit: Visit, merchant_id: str) -> Iterator[Broken]:
    """Whatever names a merchant names that of the connection."""
    for event in visit.events:
        if event.type in ("ready", "refresh") and event.said.get("merchant_id") != merchant_id:
            yield Promise.ISOLATION, f"a connection for {merchant_id} carries {event.data[:120]}"


def _signs_of_life(visit: Visit, terms: Terms, judged_at: float) -> Iterator[Broken]:
    """An open browser receives an event every ``heartbeat_s``, and is not open for ever."""
    if not visit.is_served:
        return
    ended_at = judged_at if visit.ended_at is None else visit.ended_at
    heartbeat_s = terms.heartbeat_s
    if heartbeat_s is not None and not terms.may_be_silent:
        told = next(event for event in visit.events if event.type == "ready").said
        if told.get("heartbeat_s") != heartbeat_s:
            yield (
                Promise.SIGNS,
                f"heartbeat_s is {heartbeat_s:g}, and told as {told.get('heartbeat_s')}",
            )
        times = [*(event.at for event in visit.events), ended_at]
        longest_s = max(terms.awake_s(one, other) for one, other in pairwise(times))
        if longest_s > heartbeat_s + terms.slack_s:
            yield Promise.SIGNS, f"nothing for {longest_s:.1f} s, limit {heartbeat_s:g}"
    age_s = ended_at - visit.began_at
    if terms.age_s is not None and age_s > 1.2 * terms.age_s + terms.slack_s:
        yield Promise.BOUNDS, f"a connection of {age_s:.0f} s, limit {terms.age_s:g} + 20 %"


def _end(visit: Visit, terms: Terms) -> Iterator[Broken]:
    """A response ends with ``goodbye``, its last chunk, and nothing behind either."""
    goodbyes = [number for number, event in enumerate(visit.events) if event.type == "goodbye"]
    last = len(visit.events) - 1
    for number in goodbyes:
        if number != last:
            yield Promise.END, f"{visit.events[number + 1].type} after a goodbye"
        if not isinstance(visit.events[number].said.get("reason"), str):
            yield Promise.END, f"a goodbye without a reason: {visit.events[number].data[:80]}"
    if visit.end is End.COMPLETE and not goodbyes:
        yield Promise.END, "a response was completed without a goodbye"
    if visit.end is End.COMPLETE and visit.rest:
        yield Promise.END, f"a response ends within an event: {visit.rest}"
    if visit.end in (End.CUT, End.REFUSED) and not terms.may_cut:
        yield Promise.END, f"a connection was {visit.end}"


def events_of(witnesses: Sequence[Witness]) -> Iterator[tuple[Witness, Event]]:
    """Yield every event of every browser."""
    for witness in witnesses:
        for visit in witness.visits:
            for event in visit.events:
                yield witness, event
