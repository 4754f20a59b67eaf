"""The transitions that a state machine makes, noted while it runs.

Each machine changes its state in one place, which asserts ``following in TRANSITIONS[state]`` with
the table of its module. So a table that notes what it is asked knows each transition made. An
illegal one fails the run in which it is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from types import ModuleType

import pytest

Table = Mapping[Enum, Collection[Enum]]
Transition = tuple[Enum, Enum]


class NotingRow:
    """A row of a table: the states that may follow one state."""

    def __init__(self, state: Enum, following: Collection[Enum], made: set[Transition]) -> None:
        self._state = state
        self._following = following
        self._made = made

    def __contains__(self, state: Enum) -> bool:
        is_legal = state in self._following
        if is_legal:
            self._made.add((self._state, state))
        return is_legal


class AnyState:
    """A row of a table that permits each transition."""

    def __contains__(self, _state: Enum) -> bool:
        return True


def permit_all(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let the machines of these modules make illegal transitions, and see what they lead to."""
    for module in modules:
        monkeypatch.setattr(module, "TRANSITIONS", dict.fromkeys(module.TRANSITIONS, AnyState()))


class Notebook:
    """The tables of several modules, and which of their transitions were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self.made: set[Transition] = set()
        self.possible: set[Transition] = set()
        for module in modules:
            table: Table = module.TRANSITIONS
            self.possible |= {(state, each) for state, row in table.items() for each in row}
            noting = {state: NotingRow(state, row, self.made) for state, row in table.items()}
            monkeypatch.setattr(module, "TRANSITIONS", noting)

    @property
    def not_made(self) -> set[Transition]:
        return self.possible - self.made
