"""The two histories: what a backend was answered, and what each browser received.

Knows the form of IDs and of the events' JSON. Does not know what is promised. All times are of
``time.monotonic()``, which all processes of one machine share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

_ID = re.compile(r"(0|[1-9]\d{0,19})-(0|[1-9]\d{0,19})(?:\.([0-9A-Za-z_-]+))?")


class Position(NamedTuple):
    """An ID, ``<ms>-<seq>`` or ``<ms>-<seq>.<history>``; compared within one history only."""

    history: str
    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Read an ID; None if it has not the form of one."""
        found = _ID.fullmatch(text)
        if found is None:
            return None
        return cls(found[3] or "", int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}" + (f".{self.history}" if self.history else "")


class Outcome(StrEnum):
    """What a backend knows of its notification."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """4xx, 503 with ``not_published``, or no connection: certainly not stored."""
    UNKNOWN = "unknown"
    """503 with ``unknown``, or no answer: stored or not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One notification, and what became of it as far as its backend was told."""

    merchant_id: str
    asked_at: float
    answered_at: float
    outcome: Outcome
    position: Position | None = None
    topic: str | None = None
    data: object = None
    by: str | None = None
    took_s: float = 0.0
    """How long the answer took, without what the backend itself was late."""

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> Answer:
        """Read one answer of another process's history."""
        asked_at, answered_at = float(str(said["asked_at"])), float(str(said["answered_at"]))
        outcome = Outcome(str(said["outcome"]))
        position = Position.parse(str(said["id"])) if outcome is Outcome.ACCEPTED else None
        if (outcome is Outcome.ACCEPTED) is (position is None):
            raise ValueError(f"expected an ID with every accepted notification, got {said}")
        return cls(
            str(said["merchant_id"]),
            asked_at,
            answered_at,
            outcome,
            position,
            topic=_text(said.get("topic")),
            data=said.get("data"),
            by=_text(said.get("by")),
            took_s=float(str(said.get("took_s", answered_at - asked_at))),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as an EventSource dispatches it."""

    at: float
    type: str
    data: str
    id: str | None = None
    """The ``id`` field of this very block; None without one."""
    retry_ms: int | None = None
    """The ``retry`` field of this very block."""

    @property
    def said(self) -> dict[str, object]:
        """Return what the data says; empty if that is not a JSON object."""
        try:
            said = json.loads(self.data)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    @property
    def position(self) -> Position | None:
        """Return the ID of this very block, if it has one that has the form of an ID."""
        return None if self.id is None else Position.parse(self.id)


class End(StrEnum):
    """How a connection ended."""

    OPEN = "open"
    COMPLETE = "complete"
    """The response has its last chunk."""
    CUT = "cut"
    """The connection ended before the response did."""
    REFUSED = "refused"
    """There was no connection, or no response on it."""
    LEFT = "left"
    """The browser itself went."""
    FINAL = "final"
    """An answer after which an EventSource never comes back."""
    MALFORMED = "malformed"
    """The bytes were no HTTP/1.1 response."""


@dataclass(slots=True)
class Visit:
    """One connection of a browser, from its request to its end."""

    began_at: float
    last_event_id: str
    """What the request said."""
    events: list[Event] = field(default_factory=list)
    end: End = End.OPEN
    ended_at: float | None = None
    flaw: str = ""
    """What was wrong with the bytes or the status."""
    rest: str = ""
    """What came after the last whole event, of a response that is complete."""

    @property
    def is_served(self) -> bool:
        """Return whether the browser counts as open: ``ready`` has come."""
        return any(event.type == "ready" for event in self.events)


@dataclass(slots=True)
class Witness:
    """One browser's history."""

    name: str
    merchant_id: str
    visits: list[Visit] = field(default_factory=list)

    @property
    def refreshes(self) -> int:
        """Return how many refreshes it has received."""
        return sum(event.type == "refresh" for visit in self.visits for event in visit.events)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
