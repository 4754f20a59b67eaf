"""Which primary of a cluster follows each merchant that is watched, as slots move between them.

Knows that whoever takes a merchant over has to know whether it was armed before. Does no I/O, and
does not know slots (``slots``), nor what a primary does with a merchant (``tail``).
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView
from typing import Generic, Protocol, TypeVar


class Home(Protocol):
    """A primary, as far as it follows merchants."""

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        """Follow a merchant; ``is_taken_over``: it was armed before, and its next read resyncs."""

    def unwatch(self, merchant_id: str) -> None:
        """Follow a merchant no longer: nobody listens any more."""

    def hand_over(self, merchant_id: str) -> bool:
        """Follow a merchant no longer: it is elsewhere; whether it was armed here."""


HomeT = TypeVar("HomeT", bound=Home)


class Homes(Generic[HomeT]):
    """Every merchant that is watched, each at one home or at none.

    ``owner_of(merchant_id)`` returns the home that has the merchant's slot now; None: nobody has.
    """

    def __init__(self, owner_of: Callable[[str], HomeT | None]) -> None:
        self._owner_of = owner_of
        self._homes: dict[str, HomeT | None] = {}
        self._armed: set[str] = set()
        """Those without a home that the listener knows."""

    def __getitem__(self, merchant_id: str) -> HomeT | None:
        """Return who follows a merchant; None: nobody has it, or nobody watches it."""
        return self._homes.get(merchant_id)

    def items(self) -> ItemsView[str, HomeT | None]:
        """Return all merchants, each with who follows it."""
        return self._homes.items()

    def watch(self, merchant_id: str) -> None:
        """Have a merchant followed from now on, wherever it is."""
        home = self._homes[merchant_id] = self._owner_of(merchant_id)
        if home is not None:
            home.watch(merchant_id)

    def unwatch(self, merchant_id: str) -> None:
        """Have a merchant followed no longer."""
        home = self._homes.pop(merchant_id)
        self._armed.discard(merchant_id)
        if home is not None:
            home.unwatch(merchant_id)

    def settle(self) -> int:
        """Bring each merchant to the one that has it now; return how many have moved."""
        moves = [
            (merchant_id, home, owner)
            for merchant_id, home in self._homes.items()
            if (owner := self._owner_of(merchant_id)) is not home
        ]
        for merchant_id, home, owner in moves:
            self._move(merchant_id, home, owner)
        return len(moves)

    def _move(self, merchant_id: str, home: HomeT | None, owner: HomeT | None) -> None:
        is_armed = merchant_id in self._armed if home is None else home.hand_over(merchant_id)
        self._armed.discard(merchant_id)
        self._homes[merchant_id] = owner
        if owner is not None:
            owner.watch(merchant_id, is_taken_over=is_armed)
        elif is_armed:
            self._armed.add(merchant_id)
