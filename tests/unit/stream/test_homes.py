"""Who follows each merchant while slots move."""

from __future__ import annotations

from sse_push.stream.homes import Homes


class Noted:
    """A primary that notes what it is told."""

    def __init__(self) -> None:
        self.followed: dict[str, bool] = {}
        """The merchants, and whether each was taken over."""
        self.armed: set[str] = set()

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        assert merchant_id not in self.followed
        self.followed[merchant_id] = is_taken_over

    def unwatch(self, merchant_id: str) -> None:
        del self.followed[merchant_id]

    def hand_over(self, merchant_id: str) -> bool:
        was_taken_over = self.followed.pop(merchant_id)
        return merchant_id in self.armed or was_taken_over


def test_a_merchant_is_followed_by_its_owner_until_nobody_listens() -> None:
    one = Noted()
    homes = Homes({"a": one, "b": None}.get)

    homes.watch("a")
    homes.watch("b")
    assert one.followed == {"a": False}
    assert (homes["a"], homes["b"], homes["c"]) == (one, None, None)

    homes.unwatch("a")
    homes.unwatch("b")
    assert one.followed == {}
    assert homes["a"] is None


def test_a_merchant_that_moves_is_taken_over_if_it_was_armed() -> None:
    one, two = Noted(), Noted()
    owners = {"new": one, "known": one, "stays": one}
    homes = Homes(owners.get)
    for merchant_id in owners:
        homes.watch(merchant_id)
    one.armed = {"known", "stays"}
    owners |= {"new": two, "known": two}

    assert homes.settle() == 2
    assert one.followed == {"stays": False}
    assert two.followed == {"new": False, "known": True}
    assert homes.settle() == 0


def test_a_merchant_that_nobody_has_for_a_while_is_taken_over_after_it() -> None:
    one, two = Noted(), Noted()
    owners: dict[str, Noted | None] = {"known": one, "new": one, "left": one}
    homes = Homes(owners.get)
    for merchant_id in owners:
        homes.watch(merchant_id)
    one.armed = {"known", "left"}

    owners = dict.fromkeys(owners)
    homes._owner_of = owners.get
    assert homes.settle() == 3
    assert one.followed == {}
    homes.unwatch("left")
    homes.watch("left")
    assert homes.settle() == 0

    owners |= {"known": two, "new": two, "left": two}
    assert homes.settle() == 3
    assert two.followed == {"known": True, "new": False, "left": False}
