"""Which refresh stands for which notification: promises 1, 2 and 4, and what ``data`` says.

A notification is *covered* for a browser by a refresh of its topic, or of no topic, that has its ID
or a higher one of the same history; and by a refresh of any other history that came after its
acceptance, since an ID that is not in a history counts as older than all of it. Each time at which
Redis lost data begins another history, whether the IDs name theirs or not.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.checker.history import Answer, Event, Position, Witness

History = tuple[int, str]
"""How often Redis has lost data so far, and the history that an ID names."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One accepted notification, in its history."""

    position: Position
    history: History
    answer: Answer


@dataclass(frozen=True, slots=True)
class Covered:
    """When a browser was told of a notification; never, if the time is None."""

    answer: Answer
    at: float | None


class Losses:
    """When Redis lost data, by which IDs without a name of their history are told apart."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times = sorted(times)

    def before(self, at: float) -> int:
        """Return how many there were until then."""
        return bisect.bisect_right(self.times, at)

    def history_of(self, event: Event) -> History:
        """Return the history that an event belongs to."""
        position = event.position
        return (self.before(event.at), "" if position is None else position.history)

    def store(self, answers: Sequence[Answer]) -> list[Stored]:
        """Return the accepted notifications in the order of their IDs.

        One that was under way while Redis lost data may be on either side, and is left out.
        """
        found = []
        for answer in answers:
            count = self.before(answer.asked_at)
            if answer.position is not None and count == self.before(answer.answered_at):
                history = (count, answer.position.history)
                found.append(Stored(answer.position, history, answer))
        return sorted(found, key=lambda stored: stored.position)


class Coverage:
    """What one browser has been told of, event after event in the order in which they came."""

    def __init__(self, stored: Sequence[Stored], losses: Losses) -> None:
        self._losses = losses
        self._by_position = {(each.history, each.position): each.answer for each in stored}
        self._open: dict[tuple[History, str | None], list[Stored]] = {}
        for each in stored:
            self._open.setdefault((each.history, each.answer.topic), []).append(each)
        self.covered: list[Covered] = []

    def hear(self, event: Event) -> Iterator[str]:
        """Take one event; yield what is wrong with the data that a refresh carries."""
        if event.type != "refresh":
            return
        said = event.said
        topic = said.get("topic")
        if "data" in said:
            yield from self._compare(event, said, topic)
        for history, of_topic in list(self._open):
            if topic in (None, of_topic):
                self._cover(event, history, of_topic)

    def uncovered_up_to(self, event: Event) -> int:
        """Return how many notifications an event's ID stands for that no refresh has told."""
        position, here = event.position, self._losses.history_of(event)
        assert position is not None, "only of an event with an ID"
        return sum(
            each.position <= position
            for (history, _), waiting in self._open.items()
            if history == here
            for each in waiting
        )

    def finish(self) -> list[Covered]:
        """Return when each notification was told; those never told come last."""
        left = [each.answer for waiting in self._open.values() for each in waiting]
        return self.covered + [Covered(answer, None) for answer in left]

    def _cover(self, event: Event, history: History, topic: str | None) -> None:
        waiting = self._open[history, topic]
        here, position = self._losses.history_of(event), event.position
        if position is not None and history == here:
            count = bisect.bisect_right(waiting, position, key=lambda each: each.position)
            told, left = waiting[:count], waiting[count:]
        elif position is None and history[0] == here[0]:
            return  # the stream is gone, but nobody said that Redis has lost anything
        else:
            told = [each for each in waiting if each.answer.answered_at <= event.at]
            left = [each for each in waiting if each.answer.answered_at > event.at]
        self.covered += [Covered(each.answer, event.at) for each in told]
        self._open[history, topic] = left

    def _compare(self, event: Event, said: dict[str, object], topic: object) -> Iterator[str]:
        """Hold ``data`` against the only notification that may stand behind it."""
        here, position = self._losses.history_of(event), event.position
        if position is None:
            yield "data without an ID"
            return
        answer = self._by_position.get((here, position))
        if answer is not None:
            expected = {"topic": answer.topic, "data": answer.data, "by": answer.by}
            if got := {
                name: said.get(name)
                for name, is_to_be in expected.items()
                if said.get(name) != is_to_be
            }:
                yield f"{position} was accepted with {expected}, and told with {got}"
        others = [
            each
            for (history, of_topic), waiting in self._open.items()
            if history == here and topic in (None, of_topic)
            for each in waiting
            if each.position < position
        ]
        if others:
            yield (
                f"{position} carries data, though {len(others)} more stand behind it, "
                f"the first {others[0].position}"
            )


def told(witness: Witness, stored: Sequence[Stored], losses: Losses) -> Coverage:
    """Return the coverage of a browser's whole history."""
    coverage = Coverage(stored, losses)
    for visit in witness.visits:
        for event in visit.events:
            for _ in coverage.hear(event):
                pass
    return coverage
