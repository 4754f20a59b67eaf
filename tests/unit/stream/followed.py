"""A tail that is driven by hand, and the streams that its tests speak of."""

from __future__ import annotations

from collections.abc import Callable

from sse_push.notification import Change, Entry, EntryId, Notification
from sse_push.stream.reads import Read
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Watch

MOST = 1000


def at(number: int) -> EntryId:
    return EntryId(number, 0)


def entry(number: int, topic: str | None = None) -> Entry:
    return Entry(at(number), Notification("42", topic))


def entries(*numbers: int) -> list[Entry]:
    return [entry(number) for number in numbers]


class Followed:
    """A tail, and what it has published."""

    def __init__(self, *, sweep_steps: int = 1, may_plant: bool = False) -> None:
        self.may_plant = may_plant
        self.armed: list[tuple[str, EntryId | None]] = []
        self.changes: list[Change] = []
        self.on_arming: Callable[[], object] = lambda: None
        self.tail = Tail(
            self.on_armed,
            self.changes.append,
            sweep_steps=sweep_steps,
            may_plant=lambda _merchant_id: self.may_plant,
        )

    def on_armed(self, merchant_id: str, newest: EntryId | None) -> None:
        self.armed.append((merchant_id, newest))
        self.on_arming()

    def reads(self, most: int = MOST) -> list[Read]:
        """Send the reads that are due, and leave them unanswered."""
        return [read for _, read in self.tail.reads(most)]

    def send_one(self) -> tuple[Watch, Read]:
        ((watch, read),) = self.tail.reads(MOST)
        return watch, read

    def answer(self, *numbers: int) -> Read:
        """Send the one read that is due, and answer it."""
        watch, read = self.send_one()
        self.tail.answered(watch, entries(*numbers))
        return read

    def fail(self) -> Read:
        watch, read = self.send_one()
        self.tail.failed(watch)
        return read

    def follow(self, *numbers: int, merchant_id: str = "42") -> None:
        """Follow a stream that has these entries."""
        self.tail.watch(merchant_id)
        self.answer(*numbers[-1:])
